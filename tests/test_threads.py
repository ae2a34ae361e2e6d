"""Threads of a training beside busy processes: the fewer ones where a step is faster so, and on as a run began."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch

from zoo.base import cpus
from zoo.models.device import pick_device, threads_in_words
from zoo.train.environment import differences, environment
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request
from zoo.train.speed.threads import as_recorded, beside_others, candidates, step_timer


@pytest.fixture(autouse=True)
def three_threads_of_torchs_own_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("zoo.base.cpus.usable", lambda: 3)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plan() -> Plan:
    request = Request(model="cnn-baseline", dataset="digits", device="cpu", limit_train=64, limit_test=20, epochs=1)
    return resolve(request)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({3: 0.9, 2: 0.02, 1: 0.03}, 2),
        ({3: 0.9, 2: 0.8, 1: 0.03}, 1),
        ({3: 0.030, 2: 0.028, 1: 0.05}, 3),  # so little may be chance
    ],
)
def test_the_fastest_number_of_threads_is_used_and_recorded(seconds: dict[int, float], chosen: int, plan: Plan) -> None:
    faster, line = beside_others(plan, 1.0, seconds.__getitem__)
    assert torch.get_num_threads() == chosen
    assert faster.record.environment["threads"] == str(chosen)
    said = f"{chosen} thread{'s' * (chosen > 1)}: a step takes {1e3 * seconds[chosen]:.3g} ms"
    assert line.startswith(said) if chosen != 3 else line == ""
    assert [note for note in faster.notes if note.startswith(said) and "1.0 of" in note]
    assert not any("3 threads" in note for note in faster.notes) or chosen == 3


@pytest.mark.parametrize(("busy", "asked"), [(None, ""), (0.3, ""), (1.0, "3")])
def test_nothing_is_timed_on_a_quiet_machine_or_against_the_users_choice(
    busy: float | None, asked: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert beside_others(plan, busy, {}.__getitem__) == (plan, "")
    assert torch.get_num_threads() == 3


def test_all_the_free_ones_and_one_are_compared() -> None:
    assert candidates(16, 1.2, 16) == [16, 15, 1]
    assert candidates(2, 1.0, 2) == [2, 1]
    assert candidates(4, 9.0, 4) == [4, 1]
    assert candidates(16, 0.3, 16) == [16]  # a quiet machine
    assert candidates(1, 0.0, 2) == [2, 1]  # a quota of one CPU and a part
    assert candidates(1, 1.0, 1) == [1]


def test_a_real_step_is_timed_with_each_number(plan: Plan) -> None:
    timer = step_timer(plan)
    assert all(0 < timer(threads) < 60 for threads in (2, 1))


def test_a_run_goes_on_with_the_threads_with_which_it_began(plan: Plan) -> None:
    faster, _ = beside_others(plan, 1.0, {3: 9.0, 2: 2.0, 1: 1.0}.__getitem__)
    torch.set_num_threads(3)
    assert [line for line in differences(faster.record, plan.registry) if "threads" in line]
    assert as_recorded(faster.record).startswith("1 thread: as this run began")
    assert torch.get_num_threads() == 1
    assert differences(faster.record, plan.registry) == []
    assert threads_in_words().startswith("1 thread")


def test_more_threads_than_here_or_a_users_choice_stay_a_difference(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = msgspec.structs.replace(plan.record, environment={**plan.record.environment, "threads": "64"})
    fewer = msgspec.structs.replace(plan.record, environment={**plan.record.environment, "threads": "1"})
    assert as_recorded(more) == ""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert as_recorded(fewer) == ""
    assert torch.get_num_threads() == 3


# ---- four situations --------------------------------------------------------------------------

MOUNT = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, visible: int, limit: str, torchs: int) -> None:
    """A machine with so many CPUs, a quota as a control group says it, and as many threads as torch would use."""
    monkeypatch.undo()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    tree = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": MOUNT, "sys/fs/cgroup/cpu.max": f"{limit}\n"}
    for name, text in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    quota = cpus.quota
    monkeypatch.setattr(cpus, "quota", lambda: quota(folder))
    monkeypatch.setattr(cpus, "affinity", lambda: visible)
    torch.set_num_threads(torchs)


SITUATIONS: dict[str, tuple[int, str, int, float, dict[int, float]]] = {
    "quiet": (2, "max 100000", 2, 0.1, {1: 1.0, 2: 0.55}),
    "one busy neighbour": (2, "max 100000", 2, 1.0, {1: 0.016, 2: 0.848}),
    "one busy neighbour of four CPUs": (4, "max 100000", 4, 1.0, {1: 1.0, 2: 0.55, 3: 0.4, 4: 0.9}),
    "a quota of one CPU": (4, "100000 100000", 4, 0.0, {1: 1.0, 2: 1.3, 3: 2.0, 4: 3.0}),
    "a quota of one CPU and a half": (4, "150000 100000", 4, 0.0, {1: 1.0, 2: 0.7, 3: 1.2, 4: 2.0}),
    "the same for many small steps": (4, "150000 100000", 4, 0.0, {1: 1.0, 2: 0.98, 3: 1.2, 4: 2.0}),
    "16 visible CPUs, two usable": (16, "200000 100000", 16, 0.3, {1: 1.0, 2: 0.55, 4: 1.5, 16: 9.0}),
    "16 visible CPUs, two usable, one busy": (16, "200000 100000", 16, 1.0, {1: 0.4, 2: 0.9, 4: 1.5, 16: 9.0}),
}
"""CPUs, quota, torch's own threads, CPUs that others keep busy, and what a step takes with each number of threads."""


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_number_chosen_is_never_far_from_the_best_fixed_one(
    name: str, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visible, limit, torchs, busy, seconds = SITUATIONS[name]
    machine(tmp_path, monkeypatch, visible, limit, torchs)
    pick_device("cpu")
    chosen, _ = beside_others(plan, busy, seconds.__getitem__)
    assert min(seconds.values()) / seconds[torch.get_num_threads()] >= 0.9
    recorded = environment(torch.device("cpu"))
    assert recorded["threads"] == str(torch.get_num_threads())
    assert chosen is plan or chosen.record.environment["threads"] == recorded["threads"]


def test_a_run_that_began_with_a_thread_for_a_part_of_a_cpu_goes_on_with_it(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch, 4, "150000 100000", 4)
    pick_device("cpu")
    found, line = beside_others(plan, 0.0, {1: 1.0, 2: 0.7}.__getitem__)
    assert line == "2 threads: a step takes 700 ms, 1e+03 ms with 1, under a quota of 1.5 CPUs"
    torch.set_num_threads(1)
    assert as_recorded(found.record).startswith("2 threads: as this run began")
    assert torch.get_num_threads() == 2
