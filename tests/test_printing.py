"""What a thread prints while a call keeps stdout clean: the lines of other threads stay where they belong."""

from __future__ import annotations

import io
import sys
from threading import Event, Thread

import pytest

from zoo.base.streams import printing_to


def test_only_the_thread_and_those_that_it_begins_print_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    before, inside, done, kept = sys.stdout, Event(), Event(), io.StringIO()

    def work() -> None:
        with printing_to(kept):
            print("ours")
            child = Thread(target=print, args=("our thread's",))
            child.start()
            child.join()
            inside.set()
            done.wait(30)

    worker = Thread(target=work)
    worker.start()
    inside.wait(30)
    print("the program's")
    with printing_to(other := io.StringIO()):  # it overlaps, and ends after the first
        print("another's")
        done.set()
        worker.join()
        print("still another's")
    print("the program's again")
    assert sys.stdout is before
    assert kept.getvalue() == "ours\nour thread's\n"
    assert other.getvalue() == "another's\nstill another's\n"
    assert capsys.readouterr().out == "the program's\nthe program's again\n"


def test_prints_within_one_another_return_to_where_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    outer, inner = io.StringIO(), io.StringIO()
    with printing_to(outer):
        with printing_to(inner):
            print("in", end="", flush=True)
        print("out", end="")
    print("usual", end="")
    assert (inner.getvalue(), outer.getvalue(), capsys.readouterr().out) == ("in", "out", "usual")


def test_a_program_without_a_console_prints_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with printing_to(None):
        print("a bar of a download", flush=True)
    assert sys.stdout is None
