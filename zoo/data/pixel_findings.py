"""What equal, similar and empty images mean for training: repeats, leaks between the splits, labels that disagree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from zoo.base.text import plural
from zoo.data.duplicates import LEAST_SIDE, Pairs, nearly_equal_pairs
from zoo.data.findings import MOST_LISTED, Finding, Group
from zoo.data.label_sets import label_keys
from zoo.data.pixels import NEARLY_BLACK, Looks
from zoo.data.split import VALIDATION_FRACTION, VALIDATION_SEED, ImageData, Split, divided_rows, is_given
from zoo.data.types import VALIDATES, Images, Labels
from zoo.errors import InputError

NOUNS: Mapping[str, str] = MappingProxyType(
    {"train": "training image", "validation": "validation image", "test": "test image"}
)

KINDS: Mapping[tuple[str, str], str] = MappingProxyType(
    {("train", "validation"): "validation", ("validation", "test"): "validation-test", ("train", "test"): "train-test"}
)
"""How the kinds of findings begin that are about images of two splits."""


def splits_of(data: ImageData) -> dict[str, Split]:
    """The splits that are loaded, by name; validation images that came with a dataset are rows of "train"."""
    return {"train": data.train, "test": data.test}


def split_at(data: ImageData, side: str) -> Split:
    """The loaded split that holds the images of a side of a `Place`."""
    return data.test if side == "test" else data.train


def side_at(data: ImageData, side: str, row: int) -> str:
    """The side of an image of a loaded split: of "train", "validation" if it came for that."""
    given = data.train.columns.get(VALIDATES)
    return "validation" if side == "train" and given is not None and given[row] else side


def _by_side(data: ImageData, looks: Mapping[str, Looks]) -> dict[str, Looks]:
    """What was seen of each side, in the order in which a run meets them; images of other sides have no digest."""
    given = np.resize(is_given(data.train), len(looks["train"].digests))  # without altered copies
    if not given.any():
        return dict(looks)
    train = looks["train"]
    parts = (("train", ~given), ("validation", given))
    own = {side: [d if is_own else b"" for d, is_own in zip(train.digests, its, strict=True)] for side, its in parts}
    return {side: replace(train, digests=digests) for side, digests in own.items()} | {"test": looks["test"]}


def pixel_findings(data: ImageData, looks: Mapping[str, Looks]) -> list[Finding]:
    """What equal and blank images say.

    Args:
        looks: of each split that `splits_of` names.
    """
    sides = _by_side(data, looks)
    splits = {side: split_at(data, side) for side in sides}
    findings = [f for one, other in combinations(sides, 2) for f in _shared(splits, sides, one, other)]
    for side in sides:
        findings += _repeats(side, sides[side])
    for side, split in splits.items():
        findings += _torn(side, split, sides[side])
    if "validation" not in sides:
        findings += _held_out(data.train, looks["train"].digests)
    return [*findings, *_empty(data, looks)]


def similar_findings(data: ImageData, looks: Mapping[str, Looks]) -> list[Finding]:
    """What images say that look nearly the same, without those that are equal; nothing of very small images."""
    if min(data.train.images.shape[2:]) < LEAST_SIDE:
        return []
    every = _Joined(data, looks)
    order = list(NOUNS)
    found = ((every.place(one), every.place(other)) for one, other in every.similar().tolist())
    pairs = [(a, b) if order.index(a[0]) <= order.index(b[0]) else (b, a) for a, b in found]
    labels = {side: label_keys(split_at(data, side).labels) for side in order}
    findings: list[Finding] = []
    for one, other in combinations(order, 2):
        across = [(b, a) for a, b in pairs if (a[0], b[0]) == (one, other)]
        first = list({group[0]: group for group in reversed(across)}.values())[::-1]
        says = f"nearly the same as a {NOUNS[one]}"
        findings += counted(
            "warning", f"near-{one}-{other}", first, f"{NOUNS[other]} looks", f"{NOUNS[other]}s look", says
        )
    for side in order:
        within = [group for group in pairs if {place[0] for place in group} == {side}]
        rest = "nearly the same"
        noun = f"pair of {NOUNS[side]}s"
        findings += counted("note", f"near-{side}", within, f"{noun} looks", f"pairs of {NOUNS[side]}s look", rest)
    torn = [group for group in pairs if len({labels[side][row] for side, row in group}) > 1]
    rest = "nearly the same, with differing labels"
    findings += counted("warning", "near-conflict", torn, "pair of images looks", "pairs of images look", rest)
    return findings


def counted(
    level: Literal["error", "warning", "note"], kind: str, groups: Sequence[Group], one: str, many: str, rest: str
) -> list[Finding]:
    """A finding of as many things as there are groups of images; none of nothing.

    Args:
        one, many: the words for one thing and for several, with the verb.
    """
    if not groups:
        return []
    text = f"{plural(len(groups), one, many)} {rest}"
    examples = tuple(" = ".join(f"{side} {row}" for side, row in group) for group in groups[:5])
    listed = tuple(groups[:MOST_LISTED])
    return [Finding(level=level, kind=kind, message=text, count=len(groups), examples=examples, images=listed)]


# ---- equal images ------------------------------------------------------------------------------


def _firsts(looks: Looks) -> dict[bytes, int]:
    """The first row of each image that can be read."""
    return {digest: row for row, digest in reversed(list(enumerate(looks.digests))) if digest}


def _shared(splits: Mapping[str, Split], looks: Mapping[str, Looks], one: str, other: str) -> Iterator[Finding]:
    """Images of a split that an earlier one has too, and those among them with a label of their own."""
    firsts, labels = _firsts(looks[one]), _labels_of(splits[one], looks[one])
    digests, own = looks[other].digests, label_keys(splits[other].labels)
    shared = [row for row, digest in enumerate(digests) if digest in firsts]
    torn = [row for row in shared if own[row] not in labels[digests[row]]]

    def groups(rows: list[int]) -> list[Group]:
        return [((other, row), (one, firsts[digests[row]])) for row in rows]

    noun, kind = NOUNS[other], KINDS[one, other]
    yield from counted("warning", f"{kind}-duplicate", groups(shared), f"{noun} is", f"{noun}s are", f"also in {one}")
    rest = f"another label than the same image in {one}"
    yield from counted("warning", f"{kind}-conflict", groups(torn), f"{noun} has", f"{noun}s have", rest)


def _labels_of(split: Split, looks: Looks) -> dict[bytes, set[Any]]:
    labels: defaultdict[bytes, set[Any]] = defaultdict(set)
    for digest, label in zip(looks.digests, label_keys(split.labels), strict=False):  # copies follow
        labels[digest].add(label)
    return labels


def _repeats(side: str, looks: Looks) -> list[Finding]:
    firsts = _firsts(looks)
    again = [(row, firsts[d]) for row, d in enumerate(looks.digests) if d and firsts[d] != row]
    groups: list[Group] = [((side, row), (side, first)) for row, first in again]
    noun = NOUNS[side]
    return counted("note", f"{side}-duplicate", groups, noun, f"{noun}s", "seen earlier in the same set")


def _torn(side: str, split: Split, looks: Looks) -> list[Finding]:
    """Images of a split that occur in it with several labels."""
    rows: defaultdict[bytes, dict[Any, int]] = defaultdict(dict)
    labels = label_keys(split.labels)
    for row, digest in enumerate(looks.digests):
        if digest:
            rows[digest].setdefault(labels[row], row)
    groups: list[Group] = [tuple((side, row) for row in own.values()) for own in rows.values() if len(own) > 1]
    kind, noun = "label-conflict" if side == "train" else f"{side}-label-conflict", NOUNS[side]
    return counted("warning", kind, groups, f"{noun} occurs", f"{noun}s occur", "with differing labels")


def _held_out(train: Split, digests: list[bytes]) -> list[Finding]:
    """Images that a run holds out for validation, though it learns from an equal one."""
    try:
        rows, validation = divided_rows(train, VALIDATION_FRACTION, VALIDATION_SEED)
    except InputError:
        return []
    originals = len(digests)
    known = {digests[row]: row for row in reversed(rows[rows < originals].tolist()) if digests[row]}
    copies = [row for row in validation[validation < originals].tolist() if digests[row] in known]
    groups: list[Group] = [(("train", row), ("train", known[digests[row]])) for row in copies]
    return counted(
        "warning",
        "validation-duplicate",
        groups,
        "training image that a run holds out for validation is",
        "training images that a run holds out for validation are",
        "also among those it learns from",
    )


def _empty(data: ImageData, looks: Mapping[str, Looks]) -> Iterator[Finding]:
    black: list[Group] = [((side_at(data, side, row), row),) for side, seen in looks.items() for row in seen.black]
    rest = f"nearly black: no value above {NEARLY_BLACK - 1} of 255 (of images of more than 8 bits, ?white=N says "
    yield from counted("warning", "nearly-black", black, "image is", "images are", f"{rest}which value is white)")
    blank: list[Group] = [((side_at(data, side, row), row),) for side, seen in looks.items() for row in seen.blank]
    yield from counted("warning", "blank", blank, "image shows", "images show", "a single colour and nothing else")


# ---- similar images ----------------------------------------------------------------------------


class _Joined:
    """The images of all splits, one after another."""

    def __init__(self, data: ImageData, looks: Mapping[str, Looks]) -> None:
        self.data, self.looks = data, looks
        self.names = list(looks)
        self.starts = np.cumsum([0, *(len(looks[side].digests) for side in self.names)])

    def place(self, row: int) -> tuple[str, int]:
        """The side, and the row in the loaded split."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        inside = row - int(self.starts[part])
        return side_at(self.data, self.names[part], inside), inside

    def similar(self) -> Pairs:
        """Pairs of rows that look nearly the same and are not equal, int64 (P, 2), the earlier one first."""
        hashes = np.concatenate([self.looks[side].hashes for side in self.names])
        rows = [self.looks[side].comparable() + self.starts[i] for i, side in enumerate(self.names)]
        pairs = nearly_equal_pairs(hashes, np.concatenate(rows), self._read)
        digests = [digest for side in self.names for digest in self.looks[side].digests]
        kept = [digests[one] != digests[other] for one, other in pairs.tolist()]
        return pairs[np.array(kept, bool)]

    def _read(self, rows: Labels) -> Images:
        places = [self.place(row) for row in rows.tolist()]
        return np.stack([split_at(self.data, side).images[row] for side, row in places])
