"""The options `--log` and `--verbose` of commands that train."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zoo.train.events import Listener

KEY = "zoo.cli.shared.logs"
VERBOSE = "zoo.cli.verbose"


def choose(context: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> None:
    """Find the loggers before anything is loaded, and keep them for `watched`."""
    del parameter
    if names and not context.resilient_parsing:
        from zoo.catalogue.registry import load_registry
        from zoo.train.listeners import find_listeners

        context.meta[KEY] = find_listeners(names, load_registry())


def watched(display: Listener, folder: Path) -> Listener:
    """The display, and the loggers that the running command was asked for."""
    context = click.get_current_context(silent=True)
    factories = context.meta.get(KEY) if context else None
    if not factories:
        return display
    from zoo.cli.shared.messages import say_problems
    from zoo.train.listeners import attach

    folder.mkdir(parents=True, exist_ok=True)
    return attach(display, factories, folder, lambda line: say_problems([line]))


def explain(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Remember that the reasons are asked for, for `say_notes`."""
    del parameter
    context.meta[VERBOSE] = wanted


def say_notes(notes: tuple[str, ...]) -> None:
    """Print what was chosen and why, where the running command was asked to."""
    context = click.get_current_context(silent=True)
    if context and context.meta.get(VERBOSE):
        for note in notes:
            print(f"  {note}", file=sys.stderr)
