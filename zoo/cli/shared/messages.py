"""Errors and warnings on stderr, one line each."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from zoo.base.text import one_line, printable_line
from zoo.errors import ZooError


def explained(error: BaseException) -> tuple[int, str]:
    """Exit code and message of what ended a command."""
    if isinstance(error, ZooError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        cause = error.__cause__ or error  # click wraps what a signal's handler raised
        return 128 + getattr(cause, "number", 2), "interrupted"
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context else ""
        return error.exit_code, error.format_message().rstrip(".") + hint
    if (
        isinstance(error, OSError) and error.strerror
    ):  # a folder that cannot be made, a file that cannot be read
        return 1, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    what = f"unexpected {type(error).__name__}: {error}"
    return 70, f"{what}; please report it with the output of --debug"


def say_error(message: str) -> None:
    """One line on stderr."""
    print(f"error: {one_line(message)}", file=sys.stderr)


def say_problems(problems: Sequence[str]) -> None:
    """Warnings about plugins: one line each on stderr, whatever characters the plugin put into it."""
    for problem in problems:
        print(f"warning: {printable_line(problem)}", file=sys.stderr)
