"""Threads of a training on CPUs that others use too or that are rationed: timed there, kept when a run is resumed."""

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

Timer = Callable[[int], float]
"""Seconds of a training step with this number of threads."""


def beside_others(plan: Plan, busy: float | None, timer: Timer | None = None) -> tuple[Plan, str]:
    """Train with another number of threads if a step is faster so, where CPUs are shared or rationed.

    Threads wait for one another at the end of every operation. If another process has the CPU of one of them, all
    wait, and a step can take several times as long. Where a quota allows a part of a CPU, as 1.5 of 8, one thread more
    than its whole CPUs can be faster or slower. A number of threads that the user chose is kept.

    Args:
        busy: CPUs that other processes keep busy; None: not known. timer: measures a step; for tests.
    Returns:
        The plan, whose record and notes say how many threads were chosen, and a line for people; "" if nothing changed.
    """
    threads = torch.get_num_threads()
    if plan.hardware.device.type != "cpu" or threads_as_asked():
        return plan, ""
    counts = candidates(threads, busy or 0.0, cpus.most() if threads == cpus.usable() else threads)
    if len(counts) == 1:
        return plan, ""
    was, timer = threads_in_words(), timer or step_timer(plan)
    seconds = {count: timer(count) for count in counts}
    best = min(seconds, key=lambda count: seconds[count])
    chosen = best if seconds[best] <= (1 - GAIN) * seconds[threads] else threads
    torch.set_num_threads(chosen)
    line = f"{plural(chosen, 'thread')}: a step takes {_in_words(seconds, chosen)}, {_why(busy or 0.0)}"
    return _noted(plan, was, f"{line} (OMP_NUM_THREADS sets another number)"), line if chosen != threads else ""


def candidates(threads: int, busy: float, most: int) -> list[int]:
    """The numbers of threads to compare; one number: there is nothing to compare.

    Beside busy processes: all, as many as there are free CPUs, and one. Under a quota with a part of a CPU also one
    more.

    Args:
        threads: as many as torch uses now. busy: CPUs that other processes keep busy. most: see `zoo.base.cpus.most`.
    """
    fewer = {max(1, threads - round(busy)), 1} if busy >= cpus.CROWDED else set()
    return sorted({threads, max(threads, most), *fewer}, reverse=True)


def _why(busy: float) -> str:
    crowded = f"while other processes keep {busy:.1f} of {plural(cpus.affinity(), 'CPU')} busy"
    limit = cpus.quota()
    return crowded if busy >= cpus.CROWDED or limit is None else f"under a quota of {limit:g} CPUs"


def as_recorded(record: RunRecord) -> str:
    """Let torch use the threads with which a run began, if it may, so that it goes on bit by bit; a line if it does."""
    recorded, now = record.environment.get("threads", ""), torch.get_num_threads()
    other = recorded.isdigit() and int(recorded) != now and 0 < int(recorded) <= max(now, cpus.most())
    if not other or torch.device(record.device).type != "cpu" or threads_as_asked():
        return ""
    torch.set_num_threads(int(recorded))
    return f"{plural(int(recorded), 'thread')}: as this run began (OMP_NUM_THREADS sets another number)"


def step_timer(plan: Plan) -> Timer:
    """What times a forward and backward pass over a batch of the plan: the mean of the steps that fit `BUDGET`.

    A quota stops all threads for the rest of a tenth of a second once it is used up, so that a single step, or a
    median, may not see it.
    """
    sizes, hardware = plan.record.sizes, plan.hardware
    module = plan.build().train()
    batch = min(plan.recipe.batch_size, len(plan.train)) // plan.recipe.accumulate
    shape = (max(2, batch), sizes.in_channels, sizes.height, sizes.width)
    images = torch.rand(shape).to(memory_format=hardware.memory_format)

    def timed(threads: int) -> float:
        torch.set_num_threads(threads)
        return statistics.mean(_times(module, images, hardware))

    return timed


def _times(module: nn.Module, images: torch.Tensor, hardware: Hardware) -> Iterable[float]:
    """Seconds of each step; the first one warms up, and counts only if it takes all the time there is."""
    took: list[float] = []
    began = time.perf_counter()
    while not took or time.perf_counter() - began < BUDGET:
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
