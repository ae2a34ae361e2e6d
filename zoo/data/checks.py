"""What is worth knowing about a dataset before hours are spent on it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

import msgspec

from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.base.text import plural, printable_line
from zoo.catalogue.recipe import Recipe
from zoo.data.findings import Finding
from zoo.data.split import VALIDATION_FRACTION, VALIDATION_SEED, ImageData, Split, divided_rows, is_given
from zoo.data.split_findings import class_counts, class_findings, group_findings
from zoo.errors import InputError, SizesError

FORMAT = 1
"""Of the findings that are kept: counted up when something else is looked for."""

LOOKED_AT = 256 << 20
"""Bytes of images that a run looks at for duplicates, which takes a second or two, once."""

SIDE = 64
"""Pixels of the sides that images are brought to for a check if they differ in size."""

IMBALANCE = 10.0

LONGEST_NAME = 40
"""Characters of the name of a class in a line with others."""

OTHER = "another label than the same image in train"

NEARLY_BLACK = 32
"""An image without a value of this or more, of 255, is one that a wrong white made, or shows next to nothing."""


def check(data: ImageData) -> list[Finding]:
    """Look for empty classes, duplicates and imbalance, beside what its source found.

    Unreadable images are found by `load`.

    Returns:
        Findings, errors first; an empty list where all is well.
    """
    findings = [*_classes(data), *_single(data), *_pixel_findings(data), *_imbalance(data), *_left_out(data)]
    return sorted(findings, key=lambda f: ("error", "warning", "note").index(f.level))


def loaded_and_checked(load: Callable[[int | None], ImageData]) -> tuple[ImageData, list[Finding]]:
    """A dataset and its findings; one whose images differ in size is looked at in a size of ours.

    Args:
        load: loads it with an image size; None: the images' own.
    Raises:
        ZooError: as `zoo.data.load.load`.
    """
    try:
        data = load(None)
        return data, check(data)
    except SizesError as error:
        data = load(SIDE)
        said = str(error).rpartition(";")[0]
        text = f"{said}; training needs --image-size N (all else was looked at in {SIDE}x{SIDE})"
        return data, [Finding(level="warning", kind="sizes", message=text), *check(data)]


def findings_for_training(data: ImageData, clean: bool) -> list[Finding]:
    """What `check` would say, as far as it costs a run nothing: pixels are looked at once, and only in small datasets.

    Args:
        clean: whether validation images are held out of the training images.
    """
    findings = [f for f in _classes(data) if f.level != "error"]  # which the run refuses
    images = (data.train.images, data.test.images)
    if not data.streamed and sum(part.nbytes for part in images) <= LOOKED_AT:
        ours = ("validation-duplicate",) if not clean else ()
        findings += [f for f in _kept_pixel_findings(data) if f.level == "warning" and f.kind not in ours]
    return [*findings, *_left_out(data)]


def _kept_pixel_findings(data: ImageData) -> list[Finding]:
    path = cache_dir() / "files" / f"check-{FORMAT}-{data.fingerprint[:24]}.json"
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=list[Finding])
    findings = _pixel_findings(data)
    with suppress(WriteError), replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.encode(findings))
    return findings


def _pixel_findings(data: ImageData) -> list[Finding]:
    train, test = _seen(data.train), _seen(data.test)
    duplicates = [*_duplicates(data, train.hashes, test.hashes), *_held_out(data.train, train.hashes)]
    return [*duplicates, *_nearly_black(train, test)]


def _classes(data: ImageData) -> list[Finding]:
    findings = [*_alike(data)]
    if len(data.classes) == 1:
        text = "there is one class only: nothing can be learnt from it, and training refuses it"
        findings.append(Finding(level="warning", kind="one-class", message=text, count=1, examples=data.classes))
    return [*findings, *class_findings(data), *group_findings(data)]


def _alike(data: ImageData) -> Iterator[Finding]:
    """Classes of one name, and names that differ by case or blanks alone."""
    often = [name for name, count in Counter(data.classes).items() if count > 1]
    if often:
        text = f"{plural(len(often), 'name is', 'names are')} that of several classes"
        yield Finding(
            level="warning", kind="same-name", message=text, count=len(often), examples=tuple(map(repr, often[:5]))
        )
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(data.classes):
        groups["".join(name.casefold().split())].append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    if alike:
        text = f"{plural(len(alike), 'name is', 'names are')} written in several ways, each a class of its own"
        examples = tuple(" and ".join(map(repr, names)) for names in alike[:5])
        yield Finding(level="warning", kind="similar-classes", message=text, count=len(alike), examples=examples)


def _single(data: ImageData) -> list[Finding]:
    counts = class_counts(data.train, len(data.classes))
    names = tuple(name for name, n in zip(data.classes, counts, strict=True) if n == data.train.copies)
    if not names or len(data.classes) < 2:
        return []
    text = (
        f"{plural(len(names), 'class has', 'classes have')} a single training image, which is never held out: "
        "validation has none of them"
    )
    return [Finding(level="note", kind="single-image", message=text, count=len(names), examples=names[:5])]


def division_findings(data: ImageData, train: Split, limited: int | None) -> list[Finding]:
    """What a run's own division of the images does to small classes.

    Args:
        train: what the run learns from. limited: how many training images were asked for, if fewer than all.
    """
    counts = class_counts(train, len(data.classes))
    names = tuple(name for name, n in zip(data.classes, counts, strict=True) if not n)
    if not names:
        return _single(data)
    text = f"{plural(limited or len(train), 'image')} leave {len(names):,} of {plural(len(data.classes), 'class')} out"
    return [Finding(level="warning", kind="class-left-out", message=text, count=len(names), examples=names[:5])]


class _Seen(NamedTuple):
    """What the pixels of a split say: a hash of each image, and which ones are nearly black."""

    hashes: list[bytes]
    black: list[int]


def _seen(split: Split) -> _Seen:
    hashes, black = [], []
    for row in range(len(split) // split.copies):
        image = split.images[row]
        hashes.append(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        if image.max(initial=0) < NEARLY_BLACK:
            black.append(row)
    return _Seen(hashes, black)


def _nearly_black(train: _Seen, test: _Seen) -> list[Finding]:
    rows = [f"{side} {row}" for side, seen in (("train", train), ("test", test)) for row in seen.black]
    if not rows:
        return []
    text = (
        f"{plural(len(rows), 'image is', 'images are')} nearly black: no value above {NEARLY_BLACK - 1} of 255 (of "
        "images of more than 8 bits, ?white=N says which value is white)"
    )
    return [Finding(level="warning", kind="nearly-black", message=text, count=len(rows), examples=tuple(rows[:5]))]


def _duplicates(data: ImageData, train: list[bytes], test: list[bytes]) -> list[Finding]:
    """Equal images (all decoded pixels) across the splits, within each, and with differing labels."""
    first: dict[bytes, int] = {}
    labels: defaultdict[bytes, set[int]] = defaultdict(set)
    for row, digest in enumerate(train):
        first.setdefault(digest, row)
        labels[digest].add(int(data.train.labels[row]))
    shared = [row for row, digest in enumerate(test) if digest in first]
    other = [row for row in shared if int(data.test.labels[row]) not in labels[test[row]]]
    torn = [f"train {first[digest]}" for digest, names in labels.items() if len(names) > 1]

    def pairs(rows: list[int]) -> list[str]:
        return [f"test {row} = train {first[test[row]]}" for row in rows]

    return [
        *_counted("warning", "train-test-duplicate", pairs(shared), "test image is", "are", "also in train"),
        *_counted("warning", "train-test-conflict", pairs(other), "test image has", "have", OTHER),
        *_repeats("train", "training", train),
        *_repeats("test", "test", test),
        *_counted("warning", "label-conflict", torn, "training image occurs", "occur", "with differing labels"),
    ]


def _held_out(train: Split, hashes: list[bytes]) -> list[Finding]:
    """Images that a run holds out for validation, though it learns from an equal one."""
    try:
        rows, validation = divided_rows(train, VALIDATION_FRACTION, VALIDATION_SEED)
    except InputError:
        return []
    originals = len(hashes)
    known = {hashes[row]: row for row in reversed(rows[rows < originals].tolist())}
    copies = [row for row in validation[validation < originals].tolist() if hashes[row] in known]
    pairs = [f"train {row} = train {known[hashes[row]]}" for row in copies]
    if is_given(train).any():
        return _counted("warning", "validation-duplicate", pairs, "validation image is", "are", "also in train")
    return _counted(
        "warning",
        "validation-duplicate",
        pairs,
        "training image that a run holds out for validation is",
        "training images that a run holds out for validation are",
        "also among those it learns from",
    )


def _repeats(side: str, noun: str, hashes: list[bytes]) -> list[Finding]:
    count = sum(n - 1 for n in Counter(hashes).values())
    text = f"{plural(count, f'{noun} image')} seen earlier in the same set"
    return [Finding(level="note", kind=f"{side}-duplicate", message=text, count=count)] if count else []


def _counted(
    level: Literal["warning", "note"], kind: str, examples: list[str], one: str, many: str, rest: str
) -> list[Finding]:
    """A finding of as many images as there are examples.

    Args:
        one: ends with a verb. many: the same for several images, or the verb alone.
    """
    count, noun = len(examples), one.rpartition(" ")[0]
    text = f"{plural(count, one, many if ' ' in many else f'{noun}s {many}')} {rest}"
    found = Finding(level=level, kind=kind, message=text, count=count, examples=tuple(examples[:5]))
    return [found] if count else []


def _imbalance(data: ImageData) -> list[Finding]:
    counts = [n for n in class_counts(data.train, len(data.classes)) if n]
    if not counts or max(counts) < IMBALANCE * min(counts):
        return []
    text = f"train classes hold {min(counts):,} to {plural(max(counts), 'image')}"
    return [Finding(level="note", kind="imbalance", message=text, count=len(counts))]


def range_of_classes(split: Split, classes: Sequence[str]) -> str:
    """Images of the smallest and of the largest class: "500 (ship) to 4,500 (cat)", or "450" where all have as many.

    Args:
        classes: their names.
    """
    counts = class_counts(split, len(classes))
    least, most = min(counts), max(counts)
    if least == most:
        return f"{most:,}"
    named = (printable_line(classes[counts.index(count)], LONGEST_NAME) for count in (least, most))
    return " to ".join(f"{count:,} ({name})" for count, name in zip((least, most), named, strict=True))


def imbalance_findings(train: Split, classes: Sequence[str], recipe: Recipe) -> list[Finding]:
    """That a run's classes are uneven and its recipe does nothing about it; classes without images do not count.

    Args:
        train: what the run learns from. classes: their names.
    """
    counts = [n for n in class_counts(train, len(classes)) if n]
    is_met = recipe.class_weights != "none" or recipe.sampler != "shuffled" or recipe.loss == "focal"
    if is_met or not counts or max(counts) < IMBALANCE * min(counts):
        return []
    text = (
        f"training images per class are uneven, {range_of_classes(train, classes)}; a model may learn to ignore the "
        'small ones: set recipe.class_weights="balanced", recipe.sampler="balanced" (or "sqrt") or '
        'recipe.loss="focal", and select by recipe.select="balanced-top1"'
    )
    return [Finding(level="warning", kind="imbalance", message=text, count=len(counts))]


def _left_out(data: ImageData) -> list[Finding]:
    findings = []
    if data.skipped:
        text = f"{plural(data.skipped, 'unreadable image is', 'unreadable images are')} left out"
        findings.append(Finding(level="warning", kind="skipped", message=text, count=data.skipped))
    return [*findings, *data.findings]
