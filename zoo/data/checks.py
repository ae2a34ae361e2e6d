"""What is worth knowing about a dataset before hours are spent on it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from typing import Literal, NamedTuple

import numpy as np

from zoo.base.text import plural
from zoo.data.findings import Finding
from zoo.data.split import ImageData, Split

IMBALANCE = 10.0

OTHER = "another label than the same image in train"

NEARLY_BLACK = 32
"""An image without a value of this or more, of 255, is one that a wrong white made, or shows next to nothing."""


def check(data: ImageData) -> list[Finding]:
    """Look for empty classes, duplicates and imbalance, beside what its source found.

    Unreadable images are found by `load`.

    Returns:
        Findings, errors first; an empty list where all is well.
    """
    train, test = _seen(data.train), _seen(data.test)
    findings = [*_classes(data), *_single(data), *_duplicates(data, train.hashes, test.hashes)]
    findings += [*_nearly_black(train, test), *_imbalance(data), *_left_out(data)]
    return sorted(findings, key=lambda f: ("error", "warning", "note").index(f.level))


def class_counts(split: Split, classes: int) -> list[int]:
    """Images per class, in label order."""
    return np.bincount(split.labels, minlength=classes).tolist()


def _classes(data: ImageData) -> list[Finding]:
    findings = []
    if len(data.classes) == 1:
        text = "there is one class only: nothing can be learnt from it, and training refuses it"
        findings.append(Finding(level="warning", kind="one-class", message=text, count=1, examples=data.classes))
    for side, split in (("train", data.train), ("test", data.test)):
        counts = class_counts(split, len(data.classes))
        empty = tuple(name for name, n in zip(data.classes, counts, strict=True) if not n)
        if empty:
            text = f"{plural(len(empty), 'class has', 'classes have')} no {side} image, of {len(data.classes)}"
            level: Literal["error", "warning"] = "error" if side == "train" else "warning"
            findings.append(
                Finding(level=level, kind="empty-class", message=text, count=len(empty), examples=empty[:5])
            )
    return findings


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


def _repeats(side: str, noun: str, hashes: list[bytes]) -> list[Finding]:
    count = sum(n - 1 for n in Counter(hashes).values())
    text = f"{plural(count, f'{noun} image')} seen earlier in the same set"
    return [Finding(level="note", kind=f"{side}-duplicate", message=text, count=count)] if count else []


def _counted(
    level: Literal["warning", "note"], kind: str, examples: list[str], one: str, many: str, rest: str
) -> list[Finding]:
    """A finding of as many images as there are examples; `one` ends with the verb that is `many` for several."""
    count, noun = len(examples), one.rpartition(" ")[0]
    text = f"{plural(count, one, f'{noun}s {many}')} {rest}"
    found = Finding(level=level, kind=kind, message=text, count=count, examples=tuple(examples[:5]))
    return [found] if count else []


def _imbalance(data: ImageData) -> list[Finding]:
    counts = [n for n in class_counts(data.train, len(data.classes)) if n]
    if not counts or max(counts) < IMBALANCE * min(counts):
        return []
    text = f"train classes hold {min(counts):,} to {plural(max(counts), 'image')}"
    return [Finding(level="note", kind="imbalance", message=text, count=len(counts))]


def _left_out(data: ImageData) -> list[Finding]:
    findings = []
    if data.skipped:
        text = f"{plural(data.skipped, 'unreadable image is', 'unreadable images are')} left out"
        findings.append(Finding(level="warning", kind="skipped", message=text, count=data.skipped))
    return [*findings, *data.findings]
