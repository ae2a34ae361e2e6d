"""The loggers of `--log`: looked up before anything is loaded, and attached to the display of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry
    from zoo.train.events import Listener

Factories = dict[str, Callable[..., Any]]
"""The factory of each logger, by the full name of its component."""


def find(names: tuple[str, ...], registry: Registry) -> Factories:
    """Find the loggers by name.

    Raises:
        ZooError: as `zoo.train.listeners.find_listeners`.
    """
    if not names:
        return {}
    from zoo.train.listeners import find_listeners

    return find_listeners(names, registry)


def watched(display: Listener, loggers: Factories, folder: Path) -> Listener:
    """The display together with the loggers, which write into the run folder."""
    if not loggers:
        return display
    from zoo.cli.shared.messages import say_problems
    from zoo.train.listeners import attach

    folder.mkdir(parents=True, exist_ok=True)
    return attach(display, loggers, folder, lambda line: say_problems([line]))
