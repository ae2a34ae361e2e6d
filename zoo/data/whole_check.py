"""Everything that can be found in a dataset, at once: an image that cannot be read does not end the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.data.checks import label_findings
from zoo.data.dataset_spec import skips_bad
from zoo.data.findings import Finding, sorted_findings
from zoo.data.image_names import Names, named
from zoo.data.load import load, source_of
from zoo.data.originals import originals, size_findings, unreadable
from zoo.data.pixel_findings import pixel_findings, similar_findings, splits_of
from zoo.data.pixels import Looks, looked_at
from zoo.data.sources.source import Rows, Show
from zoo.data.split import ImageData, Split
from zoo.errors import BadImagesError, DataError, SizesError

SIDE = 64
"""Pixels of the sides that images are brought to for a check if they differ in size."""


@dataclass(frozen=True)
class Examined:
    """A dataset, and all that was found in it.

    Attributes:
        findings: the errors first; examples name images by their files. unreadable: a line for each such image.
    """

    data: ImageData
    findings: list[Finding]
    unreadable: tuple[str, ...]

    @cached_property
    def names(self) -> Names:
        """What the images are called."""
        return Names(self.data)


def examine(
    spec: str,
    registry: Registry,
    *,
    data_dir: str | Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    skip_bad: bool = False,
    show: Show,
) -> Examined:
    """Load a dataset without the images that cannot be read, and look at every image that can.

    Args:
        spec, data_dir, image_size: as for `zoo.data.load.load`; images that differ in size are looked at in `SIDE`.
        skip_bad: what cannot be read is a warning, since a run leaves it out as well; else an error, unless the SPEC
            says it.
    Raises:
        BadImagesError: no image of a split can be read. Else as `zoo.data.load.load`, but for images that
            cannot be read or differ in size.
    """

    def at(side: int | None, skip: bool) -> ImageData:
        size = side if image_size is None else image_size
        return load(spec, registry, data_dir=data_dir, image_size=size, skip_bad=skip, show=show)

    findings: list[Finding] = []
    skip_bad = skip_bad or skips_bad(spec, registry)
    try:
        data, bad, looks = _looked(lambda skip: at(None, skip), skip_bad, show)
    except SizesError as error:
        if image_size is not None:
            raise
        data, bad, looks = _looked(lambda skip: at(SIDE, skip), skip_bad, show)
        findings.append(_differing(error))
    names = Names(data)
    opened = _opened(spec, registry, data_dir)
    if len(bad) < data.skipped:
        more = (line for side, rows in opened.items() for line in unreadable(rows, _readable(data, side), data.rule))
        bad = [*dict.fromkeys((*bad, *more))]
    findings += unreadable_findings(bad, "warning" if skip_bad else "error")
    # Without `skip_bad`, the rows of a table that were left out are among the errors.
    told_of = ("skipped",) if skip_bad else ("skipped", "bad-row")
    findings += [f for f in label_findings(data) if f.kind not in told_of]
    findings += [*pixel_findings(data, looks), *similar_findings(data, looks)]
    sizes = [found for rows in opened.values() if (found := originals(rows)) is not None]
    if sizes and len(sizes) == len(opened):
        findings += size_findings(sizes, names.places())
    return Examined(data, sorted_findings(named(findings, data, names)), tuple(sorted(bad)))


def _differing(error: SizesError) -> Finding:
    said = str(error).rpartition(";")[0]
    text = f"{said}; training needs --image-size N (all else was looked at in {SIDE}x{SIDE})"
    return Finding(level="warning", kind="differing-sizes", message=text)


def _looked(
    at: Callable[[bool], ImageData], skip_bad: bool, show: Show
) -> tuple[ImageData, list[str], dict[str, Looks]]:
    """The dataset, what cannot be read of it (maybe not all that was left out), and what its images look like."""
    bad: list[str] = []
    try:
        data = at(skip_bad)
    except BadImagesError as error:
        bad = list(error.problems)
        data = _without_bad(at, error)
    looks = _looks(data, show)
    found = [line for its in looks.values() for line in its.unreadable.values()]
    if found:  # only images that are decoded while they are looked at: as others, they do not count
        data = _without_bad(at, BadImagesError(found))
        looks = _looks(data, show)
    return data, [*bad, *found], looks


def _looks(data: ImageData, show: Show) -> dict[str, Looks]:
    """What the images of each split look like."""
    looks = {}
    for side, split in splits_of(data).items():
        title = f"looking at {data.name} ({side})"
        looks[side] = looked_at(split, _progress(show, title, len(split)), similar=True)
    return looks


def _without_bad(at: Callable[[bool], ImageData], error: BadImagesError) -> ImageData:
    """The dataset without unreadable images; where none is left, `error` names them."""
    try:
        return at(True)
    except SizesError:
        raise
    except DataError:
        raise error from None


def _progress(show: Show, title: str, total: int) -> Callable[[int], None]:
    return lambda done: show(title, done, total)


def _opened(spec: str, registry: Registry, data_dir: str | Path | None) -> dict[str, Rows]:
    """The splits before anything is done to them, without unusable rows; none if they cannot be had again."""
    opened: dict[str, Rows] = {}
    with suppress(DataError):
        found = source_of(spec, registry, data_dir=data_dir, skip_bad=True).open()
        sides = ((side, getattr(found, side, None)) for side in ("train", "test"))
        opened = {side: rows for side, rows in sides if rows is not None}
    return opened


def _readable(data: ImageData, side: str) -> list[str]:
    split: Split = splits_of(data)[side]
    return split.origins()


def unreadable_findings(problems: Sequence[str], level: Literal["error", "warning"]) -> Iterator[Finding]:
    """A finding for each kind of what is wrong with images that cannot be read."""
    if not problems:
        return
    for lines in BadImagesError(sorted(problems)).by_kind().values():
        text = plural(len(lines), "image cannot be read", "images cannot be read")
        left = " and left out" if level == "warning" else ""
        yield Finding(
            level=level, kind="unreadable", message=f"{text}{left}", count=len(lines), examples=tuple(lines[:5])
        )
