"""Threads of a training beside busy processes: the fewer ones where a step is faster so, and on as a run began."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import torch

from zoo.models.device import threads_in_words
from zoo.train.environment import differences
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
    assert candidates(16, 1.2) == [16, 15, 1]
    assert candidates(2, 1.0) == [2, 1]
    assert candidates(4, 9.0) == [4, 1]


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
