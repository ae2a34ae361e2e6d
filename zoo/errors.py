"""The errors that `zoo` raises on purpose.

Each message is one line: what was given, what is allowed, what to do. The command line prints it
after ``error:`` and exits with the class's ``exit_code``; ``--debug`` adds the traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class ZooError(Exception):
    """Base of every error that `zoo` raises on purpose; its message is one printable line."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__("".join(c if c.isprintable() else _escaped(c) for c in message))

    def __reduce__(self) -> tuple[object, ...]:
        """What it says and knows, whatever its class is made of: an error may come from another process."""
        return _again, (type(self), self.args), self.__dict__ or None


class InputError(ZooError, ValueError):
    """Something that the user gave (an option, a name, a file) cannot be used as it is."""

    exit_code = 2


class SpecError(InputError):
    """A table in a registry file, or a setting, is wrong; the message says where, and what is allowed."""


class UnknownNameError(InputError, LookupError):
    """A name is not in the catalogue; the message suggests the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        super().__init__(_unknown(kind, name, sorted(known), hint))


class ShapeError(InputError):
    """A model, a part or a tensor does not fit the given channels, height or width."""


class PluginError(ZooError):
    """A plugin, or a component of it, does not keep the plugin contract."""


class DataError(ZooError):
    """A dataset is not available, or its content is damaged."""


class BadImagesError(DataError):
    """Some images cannot be read; `problems` has one line for each, with its path."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        more = f"; {len(self.problems) - 1} more like it" if len(self.problems) > 1 else ""
        advice = "`zoo datasets check --json` lists each; --skip-bad leaves them out"
        super().__init__(f"{self.problems[0]}{more}; {advice}")

    def by_kind(self) -> dict[str, list[str]]:
        """The problems by what is wrong, in the order in which the kinds first occur."""
        import re

        kinds: dict[str, list[str]] = {}
        for problem in self.problems:
            alike = re.sub(r"0x[0-9a-f]+", "", problem.partition("; it begins with ")[0])
            kinds.setdefault(alike.rpartition(": ")[2], []).append(problem)
        return kinds


class AbsentDataError(DataError):
    """A dataset is not on this machine, and cannot be downloaded.

    Attributes:
        fact: the message without the advice to take another dataset, for where only this one will do.
    """

    def __init__(self, fact: str, other: str = "") -> None:
        self.fact = fact
        super().__init__(f"{fact}, or {other}" if other else fact)


class SizesError(DataError):
    """The images of a dataset differ in size, and nobody said which size they should have."""


class RunError(ZooError):
    """A run folder is missing something, damaged, in use, or from another version."""


class BusyError(RunError):
    """Another running process is using a run folder."""


class DeviceError(ZooError):
    """The requested device is not available, or its memory does not suffice."""


class TrainingError(ZooError):
    """Training cannot continue: the loss is not finite, or there is nothing to train on."""


class ZooWarning(UserWarning):
    """Something is probably wrong, and the work went on; one line, as for an error."""


class OtherVersionWarning(ZooWarning):
    """A run or package was made with another version of a plugin than the installed one."""


class PackageError(ZooError):
    """A package is damaged, incomplete or malicious, or its weights do not fit its model."""

    exit_code = 3


class VerifyError(ZooError):
    """A package is intact, but measuring it again did not give its recorded results."""

    exit_code = 4


class MissingPluginError(ZooError):
    """A package needs a component that no installed plugin provides; the message says what to install."""

    exit_code = 5


class HubError(ZooError):
    """A request to the Hub failed; subclasses name the common reasons."""

    exit_code = 10


class HubConnectionError(HubError):
    """The Hub cannot be reached, does not answer in time, or keeps failing; try again later."""

    exit_code = 11


class HubLoginError(HubError):
    """There is no token, or the Hub rejects it; log in with `hf auth login`."""

    exit_code = 12


class HubPermissionError(HubError):
    """The token lacks the permission; use a token with write access, or another repository."""

    exit_code = 13


class HubNotFoundError(HubError):
    """The repository, revision or file does not exist (or is private)."""

    exit_code = 14


class HubGatedError(HubError):
    """The repository's terms must be accepted on the Hub first."""

    exit_code = 15


class HubConflictError(HubError):
    """Somebody else has changed the repository meanwhile; look at it, then publish again."""

    exit_code = 16


def _again(kind: type[ZooError], args: tuple[object, ...]) -> ZooError:
    return kind.__new__(kind, *args)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _unknown(kind: str, name: str, known: list[str], hint: str) -> str:
    import difflib  # imported only here, to keep listing fast

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    advice = f"did you mean {', '.join(near)}?" if near else ""
    if not near and known:
        advice = f"known: {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
    return "; ".join(part for part in (f"no {kind} named {name!r}", advice, hint) if part)
