"""Errors and warnings on stderr, one line each."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from zoo.base.text import first_line, printable_line
from zoo.errors import RunError, ZooError


def explained(error: BaseException) -> tuple[int, str]:
    """The exit code and the message for the exception that ended a command."""
    if isinstance(error, ZooError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        cause = error.__cause__ or error  # click wraps the exception of the signal handler
        return 128 + getattr(cause, "number", 2), "interrupted"
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context else ""
        return error.exit_code, error.format_message().rstrip(".") + hint
    if isinstance(error, FileNotFoundError) and error.filename is None and is_folder_deleted():
        return 1, _deleted()
    if (
        isinstance(error, OSError) and error.strerror
    ):  # such as a folder that cannot be created, or a file that cannot be read
        return 1, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if is_lack_of_memory(error):
        return (
            1,
            f"not enough memory ({first_line(error)}); raise the limit (ulimit -v, the job's memory), or use less",
        )
    what = f"unexpected {type(error).__name__}: {error}"
    return 70, f"{what}; please report it with the output of --debug"


def _deleted() -> str:
    name = os.environ.get("PWD", "")  # what the shell called it; the system has no name for it any more
    where = f" {name}" if name and not os.path.exists(name) else ""
    return f"the current folder{where} was deleted; change into one that exists (cd)"


def check_folder() -> None:
    """Refuse to work in a folder that was deleted: libraries would fail in ways that nobody understands.

    Raises:
        RunError: names the folder.
    """
    if is_folder_deleted():
        raise RunError(_deleted())


def is_folder_deleted() -> bool:
    """Whether the current folder is gone."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, also while a library was loaded."""
    words = ("failed to map segment", "cannot allocate memory", "cannot map zero-fill pages")
    loading = isinstance(error, ImportError | OSError) and any(word in str(error).lower() for word in words)
    return isinstance(error, MemoryError) or loading


def say_error(message: str) -> None:
    """Print an error on stderr, as one line."""
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)


def say_problems(problems: Sequence[str]) -> None:
    """Print warnings on stderr, one line each, without control characters that a plugin put into them."""
    for problem in problems:
        print(f"warning: {printable_line(problem)}", file=sys.stderr)
