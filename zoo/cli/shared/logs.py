"""The loggers of `--log`: found by name before anything is loaded, attached to the display of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry
    from zoo.train.events import Listener

Factories = dict[str, Callable[..., Any]]
"""By the full name of the logger's component."""


def find(names: tuple[str, ...], registry: Registry) -> Factories:
    """The loggers of these names.

    Raises:
        ZooError: as `zoo.train.listeners.find_listeners`.
    """
    if not names:
        return {}
    from zoo.train.listeners import find_listeners

    return find_listeners(names, registry)


def watched(display: Listener, loggers: Factories, folder: Path) -> Listener:
    """The display, and beside it the loggers, which write into the run folder."""
    if not loggers:
        return display
    from zoo.cli.shared.messages import say_problems
    from zoo.train.listeners import attach

    folder.mkdir(parents=True, exist_ok=True)
    return attach(display, loggers, folder, lambda line: say_problems([line]))
