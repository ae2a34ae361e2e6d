"""What code of the user's own raises in the middle of a training, in one line that names its line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.base.text import first_line
from zoo.catalogue.own_code import OwnCode, places
from zoo.errors import InputError, ZooError
from zoo.runs.own_source import own_codes
from zoo.runs.record import tree_of
from zoo.train.loop import Stop
from zoo.train.plan import Plan


@contextmanager
def saying_own_failures(plan: Plan) -> Iterator[None]:
    """The context of a training; its error names the place in the user's code that an exception came through.

    Raises:
        InputError: it did come through the user's code; the exception is its cause.
    """
    try:
        yield
    except (ZooError, Stop):
        raise
    except (Exception, SystemExit) as error:
        codes = own_codes(plan.registry, tree_of(plan.record)) if plan.record.own else {}
        for use, code in codes.items():
            if place := _place(error, code):
                raise InputError(f"{use}: failed: {type(error).__name__}: {first_line(error)} ({place})") from error
        raise


def _place(error: BaseException, code: OwnCode) -> str:
    """The last line of the user's files that an exception came through; "" if it came through none."""
    files = places(code)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
