"""Threads of a training on a CPU that other processes use too: timed where it matters, kept when a run is resumed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec
import torch
from torch import nn

from zoo.base import cpus
from zoo.base.text import plural
from zoo.models.device import Hardware, describe, threads_as_asked, threads_in_words
from zoo.runs.record import RunRecord
from zoo.train.plan import Plan

GAIN = 0.1
"""The share of a step that fewer threads must save: less may be chance."""

BUDGET = 1.0
"""Seconds for which steps are timed with each number of threads; one step is always timed."""

MOST_STEPS = 9

Timer = Callable[[int], float]
"""Seconds of a training step with this number of threads."""


def beside_others(plan: Plan, busy: float | None, timer: Timer | None = None) -> tuple[Plan, str]:
    """Train with fewer threads if a step is faster so, because other processes keep CPUs busy.

    Threads wait for one another at the end of every operation. If another process has the CPU of one of them, all
    wait, and a step can take several times as long. A number of threads that the user chose is kept.

    Args:
        busy: CPUs that other processes keep busy; None: not known. timer: measures a step; for tests.
    Returns:
        The plan, whose record and notes say how many threads were chosen, and a line for people; "" if nothing changed.
    """
    threads = torch.get_num_threads()
    on_cpu = plan.hardware.device.type == "cpu" and not threads_as_asked()
    if not on_cpu or busy is None or busy < cpus.CROWDED or threads == 1:
        return plan, ""
    was, timer = threads_in_words(), timer or step_timer(plan)
    seconds = {count: timer(count) for count in candidates(threads, busy)}
    best = min(seconds, key=lambda count: seconds[count])
    chosen = best if seconds[best] <= (1 - GAIN) * seconds[threads] else threads
    torch.set_num_threads(chosen)
    line = f"{plural(chosen, 'thread')}: a step takes {_in_words(seconds, chosen)}, while other processes keep "
    line += f"{busy:.1f} of {plural(cpus.affinity(), 'CPU')} busy"
    return _noted(plan, was, f"{line} (OMP_NUM_THREADS sets another number)"), line if chosen != threads else ""


def candidates(threads: int, busy: float) -> list[int]:
    """The numbers of threads to compare: all, as many as there are free CPUs, and one."""
    return sorted({threads, max(1, threads - round(busy)), 1}, reverse=True)


def as_recorded(record: RunRecord) -> str:
    """Let torch use the fewer threads with which a run began, so that it goes on bit by bit; a line if it does."""
    recorded = record.environment.get("threads", "")
    fewer = recorded.isdigit() and 0 < int(recorded) < torch.get_num_threads()
    if not fewer or torch.device(record.device).type != "cpu" or threads_as_asked():
        return ""
    torch.set_num_threads(int(recorded))
    return f"{plural(int(recorded), 'thread')}: as this run began (OMP_NUM_THREADS sets another number)"


def step_timer(plan: Plan) -> Timer:
    """What times a forward and backward pass over a batch of the plan: the median of the steps that fit `BUDGET`."""
    sizes, hardware = plan.record.sizes, plan.hardware
    module = plan.build().train()
    batch = min(plan.recipe.batch_size, len(plan.train)) // plan.recipe.accumulate
    shape = (max(2, batch), sizes.in_channels, sizes.height, sizes.width)
    images = torch.rand(shape).to(memory_format=hardware.memory_format)

    def timed(threads: int) -> float:
        torch.set_num_threads(threads)
        return statistics.median(_times(module, images, hardware))

    return timed


def _times(module: nn.Module, images: torch.Tensor, hardware: Hardware) -> Iterable[float]:
    """Seconds of each step; the first one warms up, and counts only if it takes all the time there is."""
    took: list[float] = []
    began = time.perf_counter()
    while len(took) <= MOST_STEPS and (not took or time.perf_counter() - began < BUDGET):
        start = time.perf_counter()
        with hardware.autocast():
            loss = module(images).float().square().mean()
        loss.backward()
        module.zero_grad()
        took.append(time.perf_counter() - start)
    return took[1:] or took


def _in_words(seconds: dict[int, float], chosen: int) -> str:
    others = (f"{1e3 * seconds[n]:.3g} ms with {n}" for n in seconds if n != chosen)
    return f"{1e3 * seconds[chosen]:.3g} ms, {', '.join(others)}"


def _noted(plan: Plan, was: str, line: str) -> Plan:
    """The plan with another note on threads, and the number that torch uses now in its record."""
    before, device = plan.record.environment, describe(plan.hardware.device)
    environment = {**before, "threads": str(torch.get_num_threads()), "device": device}
    notes = tuple(line if note == was else note.replace(before.get("device", device), device) for note in plan.notes)
    return replace(plan, record=msgspec.structs.replace(plan.record, environment=environment), notes=notes)
