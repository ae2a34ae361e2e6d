"""The option -q of every command; `zoo -q COMMAND` and `zoo COMMAND -q` are the same."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

from zoo.cli.shared.table import QUIET

HELP = "Print results, errors and warnings only: no progress, no hints."


def remembered(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Whether it was given here or before the command; remembered for `zoo.cli.shared.table.say`."""
    del parameter
    context.meta[QUIET] = value or context.meta.get(QUIET, False)
    return bool(context.meta[QUIET])


# Eager: other options may have something to say while they are read.
ABOUT: Mapping[str, Any] = MappingProxyType({"is_flag": True, "is_eager": True, "callback": remembered, "help": HELP})


def add_quiet(command: click.Command) -> None:
    """Give the option to a command that does not look at it itself, and to the commands in it."""
    if all("--quiet" not in parameter.opts for parameter in command.params):
        command.params.append(click.Option(["-q", "--quiet"], expose_value=False, **ABOUT))
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        add_quiet(below)
