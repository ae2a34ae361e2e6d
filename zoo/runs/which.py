"""Which run a word means: a run folder, the name of a run below runs/, `last`, or weights of the catalogue.

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote

from zoo.base.did_you_mean import nearest
from zoo.base.paths import local_path
from zoo.errors import InputError, RunError, ZooError
from zoo.runs.record import METRICS, RECORD, RESULT, WEIGHTS, read_record

RUNS = Path("runs")
HUB = "hf://"
LAST = "last"
"""The word for the run below runs/ that was written to last."""

MAX_LEVELS = 4
"""How deep below a folder runs are looked for."""

MOST_NAMED = 5
"""Runs that a message names."""

PARTS = (RECORD, RESULT, METRICS, WEIGHTS, "SHA256SUMS")
"""A folder with one of these is a run or a package, whole or damaged."""


# ---- one run -----------------------------------------------------------------------------------------


def folder_of_run(word: str | Path, root: Path = RUNS) -> Path:
    """The folder of the run or the package that a word means.

    Args:
        word: a folder, the name of a run below `root`, or "last"; a folder comes before a name, and both before "last".
    Raises:
        InputError: there is none; says where it was looked for, and what is like it.
    """
    folder = known(word, root)
    if folder is None:
        raise unknown(str(word), root)
    return folder


def known(word: str | Path, root: Path = RUNS) -> Path | None:
    """As `folder_of_run`; None where the word means nothing."""
    if not str(word):
        return None
    for folder in (local_path(word), root / word):
        if any(_is_file(folder / part) for part in PARTS):
            return folder
    return last(root) if str(word) == LAST else None


def reference_of(word: str, root: Path = RUNS) -> str | None:
    """The folder of a run, as `known` finds it, or the package of weights of the catalogue: a folder, or hf://...

    Args:
        word: as for `known`; else NAME@DATASET, or a model's NAME for the first of its weights.
    Returns:
        None: the word means neither.
    Raises:
        InputError: a model that has weights, but not for this dataset. SpecError: they are not where they should be.
    """
    if (folder := known(word, root)) is not None:
        return str(folder)
    if not word or "/" in word:
        return None
    from zoo.catalogue.registry import load_registry
    from zoo.catalogue.weights import find_weights_of

    found = find_weights_of(word, load_registry())
    return found and found.reference


def say_if_others(word: str) -> None:
    """Warn where a word means weights beside a registry file that are not those which their entry states."""
    if known(word) is None:
        from zoo.catalogue.registry import load_registry
        from zoo.catalogue.weights import say_if_others as say

        say(word, load_registry())


def members_of(word: str, root: Path = RUNS) -> tuple[str, ...]:
    """The words of an ensemble, "RUN+RUN+..."; nothing where the word means one run, or nothing at all.

    A member may be whatever means a run, hf://OWNER/NAME, or weights of a library. A run's own name may hold a plus:
    the longest beginning that means something is a member.

    Raises:
        InputError: the first member is there, and another is not, or one is an exported file; names it.
    """
    if "+" not in word or _is_member(word, root):
        return ()
    members: list[str] = []
    rest = word.split("+")
    while rest:
        count = next((n for n in range(len(rest), 0, -1) if _is_member("+".join(rest[:n]), root)), 0)
        if not count and members and not any(rest):
            raise InputError(f"{word!r} ends with a plus; an ensemble is RUN+RUN, with a run on each side")
        if not count and is_exported_file(rest[0], root):
            raise InputError(
                f"{rest[0]} is an exported file, which cannot be a member of an ensemble; give the run that it was "
                "made of, or export the ensemble: zoo export RUN+RUN"
            )
        if not count and members:
            raise unknown("+".join(rest), root)
        if not count:
            return ()
        members.append("+".join(rest[:count]))
        rest = rest[count:]
    return tuple(members)


def _is_member(word: str, root: Path) -> bool:
    """Whether a word alone means a run, a package on the Hub, or weights."""
    if word.startswith(HUB):
        return "+" not in word
    if "+" in word or known(word, root) is not None:
        return known(word, root) is not None
    if reference_of(word, root) is not None:
        return True
    from zoo.catalogue.registry import load_registry

    return "/" in word and load_registry().offers_weights(word)


def is_ensemble(word: str, *, allowed: bool) -> bool:
    """Whether a word means several runs: see `members_of`.

    Args:
        allowed: whether several can be used where it stands.
    Raises:
        InputError: it does, and one run is needed; or a member is not there.
    """
    members = members_of(word)
    if members and not allowed:
        raise no_ensemble(word, len(members))
    return bool(members)


def no_ensemble(word: str, count: int) -> InputError:
    """The error about an ensemble of `count` runs where one run is needed."""
    return InputError(
        f"{word} is an ensemble of {count} runs, and one run is needed here; eval, predict, serve, export "
        "and zoo.load take an ensemble, and `zoo soup RUN RUN --method ensemble` makes one run of it"
    )


def is_name_of_weights(word: str, root: Path = RUNS) -> bool:
    """Whether a word means weights of the catalogue, and no run."""
    return known(word, root) is None and reference_of(word, root) is not None


def is_exported_file(word: str | Path, root: Path = RUNS) -> bool:
    """Whether a word is the path of an ONNX file, and no run is called so; predict, serve and eval take one."""
    path = local_path(word)
    return path.suffix.lower() == ".onnx" and _is_file(path) and known(word, root) is None


def last(root: Path = RUNS) -> Path | None:
    """The run below a folder that was written to last."""
    runs = [folder for folder, _ in below(root, root) if _is_file(folder / RECORD)]
    return max(runs, key=lambda folder: (written(folder), folder.name), default=None)


def written(folder: Path) -> float:
    """When a run was last written to, in seconds since 1970."""
    times = []
    for part in (RECORD, METRICS, RESULT):
        with contextlib.suppress(FileNotFoundError):
            times.append(os.stat(f"{folder}/{part}").st_mtime)
    return max(times)


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # also of what is not allowed, or no path at all


# ---- runs below a folder -----------------------------------------------------------------------------


def below(folder: Path, root: Path, level: int = 0) -> Iterator[tuple[Path, str]]:
    """Run folders below a folder, with their names; what lies inside a run (its package) is no run of its own."""
    if level > MAX_LEVELS or not os.path.isdir(folder):
        return
    with os.scandir(folder) as entries:
        present = sorted(entries, key=lambda entry: entry.name)
    above = f"{name_of(folder, root)}/" if _inside(folder, root) and folder.absolute() != root.absolute() else ""
    for entry in present:
        hidden = entry.is_symlink() or entry.name.startswith(".")
        if os.path.isfile(f"{entry.path}/{RECORD}") or not (hidden or _is_listed(entry)):
            yield folder / entry.name, above + entry.name
        elif not hidden and entry.is_dir():
            yield from below(folder / entry.name, root, level + 1)


def name_of(folder: Path, root: Path) -> str:
    """What a run is called: its path below `root`."""
    absolute = folder.absolute()
    return absolute.relative_to(root.absolute()).as_posix() if _inside(folder, root) else folder.resolve().name


def _is_listed(entry: os.DirEntry[str]) -> bool:
    """Whether a path can be listed; if not, reading it as a run gives the reason."""
    try:
        if entry.is_dir():
            os.scandir(entry.path).close()
    except OSError:
        return False
    return True


def _inside(path: Path, root: Path) -> bool:
    return path.absolute().is_relative_to(root.absolute())


# ---- a word that means none --------------------------------------------------------------------------


def unknown(word: str, root: Path = RUNS) -> InputError:
    """The error about a word that means no run: what it is instead, or where it was looked for and what is like it."""
    from zoo.data.files.formats import ENDINGS

    path = local_path(word)
    if members := members_of(word, root):
        return no_ensemble(word, len(members))
    runs = list(below(root, root))
    if path.suffix.lower() in ENDINGS:
        return InputError(f"{word!r} is an image, not a run; RUN comes first: zoo predict RUN {quote(word)}")
    if _is_file(path):
        return InputError(f"{word!r} is a file, not a run: a run is a folder; {_choice([n for _, n in runs], root)}")
    if word and os.path.isdir(path) and (inside := [str(folder) for folder, _ in below(path, path)]):
        return InputError(f"{word!r} is a folder of runs; give one of them: {_few(inside)}")
    if any(c in word for c in "*?["):
        return InputError(f"no run of the pattern {word!r}; `zoo runs` lists those below {root}/")
    return _as_model(word, runs) or InputError(_nothing(word, path, [name for _, name in runs], root))


def _nothing(word: str, path: Path, names: Sequence[str], root: Path) -> str:
    if word and os.path.isdir(path):
        tried = f"{word!r} is no run folder: it has no {RECORD}"
    else:
        tried = f"no run folder {word!r}, and no run of this name below {root}/"
    alike = [name for name in names if word and word in name][:MOST_NAMED] or nearest(word, names)
    advice = f"did you mean {', '.join(alike)}?" if alike else ""
    return "; ".join(part for part in (tried, advice, _choice([] if alike else names, root, bool(names))) if part)


def _choice(names: Sequence[str], root: Path, some: bool | None = None) -> str:
    """Which runs there are, and how to see or to make them."""
    if not (bool(names) if some is None else some):
        return f"there are no runs below {root}/: `zoo train MODEL` makes one"
    known = f"known: {_few(names)}; " if names else ""
    return f"{known}`zoo runs` lists all"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


def _as_model(word: str, runs: Iterable[tuple[Path, str]]) -> InputError | None:
    """The error about a word that is a model of the catalogue, or belongs to a plugin that is left out."""
    from zoo.catalogue.registry import load_registry

    try:
        registry = load_registry()
        if registry.left_out(word, only_its_own=True):
            return registry.unknown("run folder or model", word, ())
        registry.model(word)
    except ZooError:
        return None
    if registry.models[word].weights if word in registry.models else ():
        return InputError(f"{word!r} is a model with trained weights, and not a run; give a run folder")
    trained = [name for folder, name in runs if _model_of(folder) == word]
    advice = f"runs of it: {_few(trained)}" if trained else f"`zoo train {word}` makes a run of it"
    return InputError(f"{word!r} is a model, not a run; {advice}")


def _model_of(folder: Path) -> str:
    try:
        return read_record(folder).model
    except RunError:
        return ""
