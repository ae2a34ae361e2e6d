"""What code of the user's own or of a plugin raises in the middle of a training, in one line that names its line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.base.text import first_line
from zoo.catalogue.own_code import OwnCode, places
from zoo.catalogue.plugins import OURS
from zoo.catalogue.provenance import sources_of
from zoo.errors import InputError, PluginError, ZooError
from zoo.runs.own_source import own_codes
from zoo.runs.record import tree_of
from zoo.train.loop import Stop
from zoo.train.plan import Plan


@contextmanager
def saying_own_failures(plan: Plan) -> Iterator[None]:
    """The context of a training; its error names where in the user's code, or a plugin's, an exception came from.

    Raises:
        InputError: it did come through the user's code; the exception is its cause. PluginError: through a plugin's.
    """
    try:
        yield
    except (ZooError, Stop):
        raise
    except (Exception, SystemExit) as error:
        codes = own_codes(plan.registry, tree_of(plan.record)) if plan.record.own else {}
        for use, code in codes.items():
            if place := _place(error, code):
                raise InputError(f"{use}: failed: {_said(error)} ({place})") from error
        for use, folder in _plugins(plan).items():
            if place := _last_place(error, lambda file, inside=folder: file.startswith(inside)):  # type: ignore[misc]
                origin = plan.registry.origin("component", use)
                raise PluginError(f"{use} ({origin}): failed: {_said(error)} ({place})") from error
        raise


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _plugins(plan: Plan) -> dict[str, str]:
    """The components of a run that are somebody else's, each with the file or the folder of its package."""
    found: dict[str, str] = {}
    for use, origin in sources_of(tree_of(plan.record), plan.registry):
        factory = plan.registry.component(use).factory
        if origin.distribution == OURS or not isinstance(factory, str):
            continue
        package = sys.modules.get(factory.partition(":")[0].partition(".")[0])
        file = getattr(package, "__file__", None) or ""
        folder = os.path.join(os.path.dirname(file), "") if hasattr(package, "__path__") else file
        found |= {use: folder} if file else {}
    return found


def _place(error: BaseException, code: OwnCode) -> str:
    """The last line of the user's files that an exception came through; "" if it came through none."""
    files = places(code)
    return _last_place(error, lambda file: file in files)


def _last_place(error: BaseException, is_there: Callable[[str], bool]) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_there(frame.filename)]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
