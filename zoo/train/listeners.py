"""Listeners that plugins bring: `zoo train --log NAME`.

A listener receives plain data. One that raises is switched off, so that no logger can end a run.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from zoo.base.streams import printing_to
from zoo.base.text import first_line
from zoo.catalogue.plugins import import_factory
from zoo.catalogue.registry import Registry
from zoo.errors import InputError, ZooError
from zoo.train.events import Listener, Tick

if TYPE_CHECKING:
    from zoo.train.plan import Plan

Say = Callable[[str], None]

EVENTS = ("start", "epoch", "end")
"""What a listener may be told."""


class Several(Listener):
    """Passes every event to several listeners, in order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = tuple(listeners)

    def start(self, plan: Plan, parameters: int) -> None:
        """Called before the first step."""
        for listener in self.listeners:
            listener.start(plan, parameters)

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Called if the run is resumed."""
        for listener in self.listeners:
            listener.resumed(rows)

    def tick(self, tick: Tick) -> None:
        """Called a few times a second."""
        for listener in self.listeners:
            listener.tick(tick)

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Called after each epoch."""
        for listener in self.listeners:
            listener.epoch(row, best)

    def end(self, result: dict[str, Any]) -> None:
        """Called at the end of the run."""
        for listener in self.listeners:
            listener.end(result)


class Guarded(Listener):
    """A plugin's or user's listener, which receives plain data, and nothing more after its first exception."""

    def __init__(self, name: str, target: Any, say: Say, *, given: bool = False) -> None:
        """See the class.

        Args:
            given: it is an object of the caller's own, which may print; what a plugin's prints goes to stderr.
        """
        self.name, self.target, self.say, self.given = name, target, say, given

    def start(self, plan: Plan, parameters: int) -> None:
        """Pass the record of the run, as in run.toml."""
        self._send("start", msgspec.to_builtins(plan.record), parameters)

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Pass the row of metrics.jsonl."""
        self._send("epoch", copy.deepcopy(row), best)

    def end(self, result: dict[str, Any]) -> None:
        """Pass the content of result.json; an empty table if the run was stopped."""
        self._send("end", copy.deepcopy(result))
        self.target = None

    def _send(self, event: str, *values: Any) -> None:
        method = getattr(self.target, event, None)
        if method is None:
            return
        try:
            # A command's stdout is for its result.
            with contextlib.nullcontext() if self.given else printing_to(sys.stderr):
                method(*values)
        except (Exception, SystemExit) as error:
            self.target = None
            what = f"{type(error).__name__}: {first_line(error)}"
            who = f"{'listener' if self.given else '--log'} {self.name}"
            self.say(f"{who} failed and was switched off; the run continues ({what})")


def find_listeners(names: Sequence[str], registry: Registry) -> dict[str, Callable[..., Any]]:
    """The factories of listeners by component name; "tensorboard" is short for "loggers.tensorboard".

    Raises:
        UnknownNameError: no such listener. InputError: two plugins have one of that short name.
        PluginError: its module, or the library that it needs, cannot be imported.
    """
    known = [name for name, component in registry.components.items() if component.kind == "listener"]
    factories = {}
    for name in names:
        fitting = [k for k in known if name == k or name == k.partition(".")[2]]
        if not fitting:
            raise registry.unknown("logger", name, [*known, *(k.partition(".")[2] for k in known)])
        if len(fitting) > 1 and name not in fitting:
            raise InputError(f"--log {name!r} is ambiguous: {' or '.join(fitting)}; give the full name")
        full = name if name in fitting else fitting[0]
        factories[full] = import_factory(registry.component(full).factory, full)
    return factories


def attach(listener: Listener, factories: dict[str, Callable[..., Any]], folder: Path, say: Say) -> Listener:
    """Combine a listener with those that the factories make for a run folder.

    Raises:
        InputError: a factory failed.
    """
    made = []
    for name, factory in factories.items():
        try:
            with printing_to(sys.stderr):
                made.append(Guarded(name, factory(folder=folder), say))
        except ZooError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"--log {name} cannot be started: {type(error).__name__}: {error}") from error
    return Several([listener, *made]) if made else listener


def refuse_no_listeners(objects: Sequence[object]) -> None:
    """Refuse objects that hear nothing of a training.

    Raises:
        InputError: one has none of the methods of a listener, or is a class; or it is no list.
    """
    if isinstance(objects, str) or not isinstance(objects, Iterable):
        raise InputError(f"listeners: give a list of objects, not a {type(objects).__name__}")
    for one in objects:
        if isinstance(one, type) or not any(callable(getattr(one, event, None)) for event in EVENTS):
            what = f"{one.__name__} is a class" if isinstance(one, type) else f"{type(one).__name__} has none of them"
            raise InputError(
                f"listeners: give objects with any of start(record, parameters), epoch(row, best), end(result); {what}"
            )


def attach_objects(listener: Listener, objects: Sequence[object], say: Say) -> Listener:
    """Combine a listener with the caller's own objects, which get what a plugin's listener gets.

    Args:
        objects: each with any of start(record, parameters), epoch(row, best), end(result).
    Raises:
        InputError: as `refuse_no_listeners`.
    """
    refuse_no_listeners(objects)
    own = [Guarded(type(one).__name__, one, say, given=True) for one in objects]
    return Several([listener, *own]) if own else listener
