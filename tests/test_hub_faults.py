"""Every fault at every request of publish and pull ends as docs/hub.md says, and leaves nothing half or wrong."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server.cases import FAULTS, Bench, Case, Outcome, cases, read_table
from hub_server.faults import Fault
from hub_server.measure import PAGE, measure
from hub_server.runs import made_package

QUICK = ("answer lost once", "wrong bit once", "403", "main moves")
LONGEST = 120
"""Seconds; nothing may take longer."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_package(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module", params=[pytest.param("LFS", marks=pytest.mark.slow), "Xet"])
def bench(request: pytest.FixtureRequest, small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("bench"), small, f"hf_{secrets.token_hex(17)}", mode=request.param)
    yield made
    made.close()


def test_the_table_has_every_case() -> None:
    expected = read_table(PAGE.read_text("utf-8"))
    wanted = {(case.row, case.fault) for case in cases()}
    assert wanted <= set(expected)
    assert not [key for key in wanted if expected[key] in ("–", "")]


def test_a_fault_at_each_request_ends_as_the_table_says(bench: Bench) -> None:
    """One fault at each request, another one at the next, so that all are met soon; the rest is slow."""
    expected = read_table(PAGE.read_text("utf-8"))
    mine = [c for c in cases(tuple((n, dict(FAULTS)[n]) for n in QUICK)) if c.mode == bench.mode]
    requests = list(dict.fromkeys((c.command, c.request) for c in mine))
    for n, (command, request) in enumerate(requests):
        options = [c for c in mine if (c.command, c.request) == (command, request)]
        check(bench, options[n % len(options)], expected)


@pytest.mark.parametrize("fault", ["answer lost once", "main moves", "401 bad token", "404"])
def test_the_commit_itself_survives(fault: str, bench: Bench) -> None:
    check(bench, Case("publish", bench.mode, "commit", fault), read_table(PAGE.read_text("utf-8")))


@pytest.mark.parametrize("request_name", ["create", "commit", "info"])
def test_a_wrong_bit_anywhere_in_an_answer_costs_another_request_and_no_more(request_name: str, bench: Bench) -> None:
    for outcome in turned_bits(bench, Case("publish", bench.mode, request_name, "a wrong bit"), 6):
        assert outcome.met
        assert outcome.word == "done", outcome


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_wrong_bit_anywhere_in_any_answer_leaves_nothing_half_or_wrong(bench: Bench) -> None:
    for command, request in dict.fromkeys((c.command, c.request) for c in cases() if c.mode == bench.mode):
        case = Case(command, bench.mode, request, "a wrong bit")
        words = Counter(outcome.word for outcome in turned_bits(bench, case, 24))
        print(case.row, dict(words), flush=True)


def turned_bits(bench: Bench, case: Case, places: int) -> Iterator[Outcome]:
    """Turn one bit of the first answer of a kind, at places spread over the whole of it, one after another."""
    chance = random.Random(case.row)
    for place in range(places):
        fault = Fault("", "flip", times=1, at=(place + chance.random()) / places, bit=chance.randrange(8))
        outcome = bench.meet(case, fault)
        assert outcome.wrong == [], (case, fault, outcome)
        assert outcome.word != "error", (case, fault, outcome)
        assert outcome.seconds < LONGEST, (case, fault)
        yield outcome


def check(bench: Bench, case: Case, expected: dict[tuple[str, str], str]) -> None:
    outcome = bench.run(case)
    assert outcome.wrong == [], (case, outcome)
    assert outcome.seconds < LONGEST, case
    assert outcome.word == expected[case.row, case.fault] or not outcome.met, (case, outcome)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_every_fault_at_every_request_ends_as_the_table_says(small: Path) -> None:
    expected = read_table(PAGE.read_text("utf-8"))
    outcomes = measure(small, workers=6)
    bad = {case: o for case, o in outcomes.items() if o.wrong or o.seconds > LONGEST}
    assert not bad
    other = {c: o.word for c, o in outcomes.items() if o.met and o.word != expected[c.row, c.fault]}
    assert not other
