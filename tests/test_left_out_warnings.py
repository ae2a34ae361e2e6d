"""Warnings that are left out for a while: a program's own filters stay, also where threads overlap."""

from __future__ import annotations

import sys
import warnings
from threading import Event, Thread

from zoo.base.quiet_imports import ignoring


def test_threads_that_overlap_leave_the_filters_of_the_program() -> None:
    before, inside, done = list(warnings.filters), Event(), Event()

    def work() -> None:
        with ignoring():
            inside.set()
            done.wait(30)

    worker = Thread(target=work)
    worker.start()
    inside.wait(30)
    with ignoring(module="PIL"):
        assert len(warnings.filters) == len(before) + 2
        done.set()
        worker.join()
    assert list(warnings.filters) == before


def test_only_what_is_named_is_left_out_also_where_the_program_changes_its_filters_within() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with ignoring("left .* out"):
            warnings.warn("left it out", stacklevel=1)
            warnings.warn("told", stacklevel=1)
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn("told too", stacklevel=1)
        with ignoring(module="test_left_out"):
            warnings.warn("not told", stacklevel=1)
    assert [str(one.message) for one in told] == ["told", "told too"]


def test_threads_that_overlap_leave_the_filters_as_they_are() -> None:
    def often(message: str) -> None:
        for _ in range(30_000):
            with ignoring(message):
                pass

    before, pause = list(warnings.filters), sys.getswitchinterval()
    threads = [Thread(target=often, args=(name,)) for name in "abcd"]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(pause)
    assert list(warnings.filters) == before
