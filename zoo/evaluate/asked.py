"""What an evaluation is asked for: words checked and made whole, before anything that takes time is imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.base.paths import local_path
from zoo.errors import InputError

SplitName = Literal["test", "val", "train"]
PredictionsKind = Literal["csv", "parquet", "none"]

SPLITS = ("test", "val", "train")
PARTS = ("classes", "confusion", "calibration", "latency", "robustness")
OF_A_FOLDER = ("classes", "confusion", "calibration")
"""Measured for a folder of files, unless other parts are asked for."""

LEVELS = (1, 2, 3, 4, 5)

MOST_IMAGES = 1000
"""Images that are corrupted, unless another number is asked for."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured.

    Attributes:
        parts: some of `PARTS`. named: those of them that were named, not meant by "all" or by default.
        output: folder of the files. table: kind of the predictions'.
        corruptions, severities: of robustness. images: corrupted at most, None: all. workers: processes for that.
        batch: images of latency's second row; seconds: for each row.
    """

    split: SplitName = "test"
    parts: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    output: Path | None = None
    table: PredictionsKind = "csv"
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()
    images: int | None = None
    workers: int = 0
    seed: int = 0
    batch: int = 64
    seconds: float = 3.0


def ask(
    *,
    split: SplitName,
    what: str | Sequence[str],
    output: str | Path | None,
    predictions: PredictionsKind,
    corruptions: str | Sequence[str],
    severities: str | Sequence[int],
    images: int | None,
    workers: int | None,
    batch_size: int,
    seconds: float,
    seed: int,
) -> Asked:
    """Check and complete the options of an evaluation, named as `zoo.evaluate` names them.

    Raises:
        InputError: a wrong word or number, or robustness without the library that corrupts images.
    """
    _one_of("split", split, SPLITS)
    _one_of("predictions", predictions, ("csv", "parquet", "none"))
    for name, number, least in (("images", images, 0), ("workers", workers, 0), ("seed", seed, 0)):
        _at_least(name, number, least)
    _at_least("batch-size", batch_size, 1)
    if not seconds > 0:
        raise InputError(f"--seconds {seconds!r}: give a number above 0")
    chosen, levels = parts(what), _severities(severities)
    robust = (
        _words(corruptions) != ("common",),
        levels != LEVELS,
        images not in (MOST_IMAGES, None, 0),
    )  # all are measured anyway
    _refuse_idle(robust, ("corruptions", "severities", "images"), "robustness" in chosen, "--what robustness")
    _refuse_idle((predictions == "parquet",), ("predictions",), output is not None, "--output FOLDER")
    return Asked(
        split=split,
        parts=frozenset(chosen or (OF_A_FOLDER if output is not None else ())),
        named=frozenset(() if "all" in _words(what) else chosen),
        output=None if output is None else local_path(output),
        table=predictions,
        corruptions=_corruptions(corruptions) if "robustness" in chosen else (),
        severities=levels,
        images=images or None,
        workers=_workers(workers) if "robustness" in chosen else 0,
        seed=seed,
        batch=batch_size,
        seconds=seconds,
    )


def parts(what: str | Sequence[str]) -> tuple[str, ...]:
    """The parts that words name: "all", or some of `PARTS`, as a sequence or with commas between; () for none.

    Raises:
        InputError: an unknown word, or a text without any.
    """
    words = _words(what)
    wrong = [word for word in words if word not in (*PARTS, "all")]
    if wrong or (isinstance(what, str) and not words):
        given, first = ",".join(words), (wrong or [""])[0]
        raise InputError(f"--what {given!r}: nothing named {first!r}; allowed: {', '.join(PARTS)}, all")
    return PARTS if "all" in words else words


def _severities(given: str | Sequence[int]) -> tuple[int, ...]:
    words = given.split(",") if isinstance(given, str) else [str(level) for level in given]
    known = {str(level): level for level in LEVELS}
    if not words or any(word.strip() not in known for word in words):
        raise InputError(f"--severities {','.join(words)!r}: give some of 1,2,3,4,5 with commas between")
    return tuple(sorted({known[word.strip()] for word in words}))


def _corruptions(given: str | Sequence[str]) -> tuple[str, ...]:
    """Their names; the library is looked for now, since what comes takes minutes."""
    from zoo.evaluate.corruptions import choose, library

    names = choose(_words(given))
    library()
    return names


def _workers(given: int | None) -> int:
    from zoo.data.files.pool import MOST, default_workers

    return min(MOST, default_workers("cuda") + 1) if given is None else given


def _words(given: str | Iterable[str]) -> tuple[str, ...]:
    several = given.split(",") if isinstance(given, str) else given
    return tuple(word.strip() for word in several if word.strip())


def _refuse_idle(given: Sequence[bool], names: Sequence[str], used: bool, by: str) -> None:
    """Refuse options that nothing would read, so that nobody takes them for done."""
    idle = [name for name, one in zip(names, given, strict=True) if one]
    if idle and not used:
        raise InputError(f"--{idle[0]} has no meaning without {by}; add that, or leave it out")


def _one_of(name: str, given: str, allowed: Sequence[str]) -> None:
    if given not in allowed:
        raise InputError(f"--{name} {given!r}: allowed: {', '.join(allowed)}")


def _at_least(name: str, given: int | None, least: int) -> None:
    if given is not None and given < least:
        raise InputError(f"--{name} {given}: give {least} or more")
