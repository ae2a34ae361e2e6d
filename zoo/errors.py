"""The errors that `zoo` raises on purpose.

Each message is one line: what was given, what is allowed, what to do. The command line prints it
after ``error:`` and exits with the class's ``exit_code``; ``--debug`` adds the traceback.
"""

from __future__ import annotations

from collections.abc import Iterable

from zoo.base.did_you_mean import did_you_mean


class ZooError(Exception):
    """Base of every error that `zoo` raises on purpose: one printable line, whatever a stranger's file says."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(c if c.isprintable() else _escaped(c) for c in message))


class InputError(ZooError, ValueError):
    """Something that the user gave (an option, a name, a file) cannot be used as it is."""

    exit_code = 2


class SpecError(InputError):
    """A table in a registry file or a setting is wrong: names the file, the key and what is allowed."""


class UnknownNameError(InputError, LookupError):
    """A name that the catalogue does not hold; the message suggests the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        super().__init__(_unknown(kind, name, sorted(known), hint))


class ShapeError(InputError):
    """A model, a part or a tensor does not fit the given channels, height or width."""


class PluginError(ZooError):
    """A plugin, or the component that it offers, broke its contract."""


class DataError(ZooError):
    """A dataset cannot be had, or what it holds is damaged."""


class BadImagesError(DataError):
    """Images that cannot be read; `problems` has one line for each, with its path."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        more = f"; {len(self.problems) - 1} more like it" if len(self.problems) > 1 else ""
        advice = "`zoo datasets check` lists each; --skip-bad leaves them out"
        super().__init__(f"{self.problems[0]}{more}; {advice}")


class RunError(ZooError):
    """A run folder is missing something, damaged, in use, or from another version."""


class BusyError(RunError):
    """Another living process holds a run folder."""


class DeviceError(ZooError):
    """The device asked for is absent, or its memory does not suffice."""


class TrainingError(ZooError):
    """Training cannot go on: a loss that is not finite, or nothing to train on."""


class OtherVersionWarning(UserWarning):
    """A plugin that something was made with has another version here."""


class PackageError(ZooError):
    """A package of weights is damaged, incomplete, hostile, or does not fit the model that it names."""

    exit_code = 3


class VerifyError(ZooError):
    """A package is whole, and its recorded numbers were not measured again."""

    exit_code = 4


class MissingPluginError(ZooError):
    """A package needs a component that no installed plugin offers; the message says what to install."""

    exit_code = 5


class HubError(ZooError):
    """The Hub answered something that cannot be used; below, by what to do about it."""

    exit_code = 10


class HubConnectionError(HubError):
    """The Hub cannot be reached, does not answer in time, or fails again and again: try again later."""

    exit_code = 11


class HubLoginError(HubError):
    """No token, or one that the Hub refuses: `hf auth login`."""

    exit_code = 12


class HubPermissionError(HubError):
    """The token is known and lacks the right: a token that may write, or another repository."""

    exit_code = 13


class HubNotFoundError(HubError):
    """There is no such repository, revision or file (or it is private)."""

    exit_code = 14


class HubGatedError(HubError):
    """The repository's terms must be accepted on the Hub first."""

    exit_code = 15


class HubConflictError(HubError):
    """Somebody else committed meanwhile: look at the repository, then publish again."""

    exit_code = 16


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _unknown(kind: str, name: str, known: list[str], hint: str) -> str:
    advice = did_you_mean(name, known)
    if not advice and known:
        advice = f"known: {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
    return "; ".join(part for part in (f"no {kind} named {name!r}", advice, hint) if part)
