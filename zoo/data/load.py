"""From a SPEC (a catalogue name, or "scheme:rest") to arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from zoo.base.paths import cache_dir, local_path
from zoo.base.paths import data_dir as default_data_dir
from zoo.base.text import plural
from zoo.catalogue.spec import Dataset
from zoo.data.asked_task import as_asked, asked_task
from zoo.data.batches.mode import Delivery, fit
from zoo.data.cache import Cached, cache_key, cached, numbered
from zoo.data.dataset_spec import find, loading_rule, options_of, source_at
from zoo.data.files.colours import Colours, checked_colours
from zoo.data.files.decode import Rule, transform_rule, without_warnings
from zoo.data.files.depth import Depth, depth_of
from zoo.data.files.pool import Pool, default_workers
from zoo.data.findings import Finding
from zoo.data.given_data import GivenData
from zoo.data.label_sets import Task
from zoo.data.shards.packed import Packed
from zoo.data.shards.shuffle import Shuffle
from zoo.data.sources.altered_images import Altered
from zoo.data.sources.known_classes import KnownClasses
from zoo.data.sources.listed import FileSource
from zoo.data.sources.source import Once, Request, Show, Source, silent
from zoo.data.split import ImageData
from zoo.data.undecoded import Undecoded, as_cached, undecoded
from zoo.errors import AbsentDataError, DataError, InputError
from zoo.plugin.contract import Transform

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry


def load(
    spec: str,
    registry: Registry | None = None,
    *,
    data_dir: Path | str | None = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    show: Show | None = None,
    skip_bad: bool = False,
    delivery: Delivery = Delivery(),  # noqa: B008 - a named tuple does not change
    transform: Transform | None = None,
    whole: bool = False,
    colours: Colours | None = None,
    given: GivenData | None = None,
    earlier: bool = False,
    task: Task | None = None,
    shuffle: Shuffle | None = None,
) -> ImageData:
    """Load a dataset; the images are decoded on first use and memory-mapped afterwards.

    Where they are streamed, those of folders and tables stay files that are decoded batch by batch, and
    those of other sources are read from the decoded cache.

    Args:
        spec: a name of the catalogue ("cifar10"), or "scheme:rest" with options after "?":
            "folder:PATH", "csv:FILE", "jsonl:FILE", "parquet:PATH?image=img&label=label", "hf:OWNER/NAME@REVISION",
            "wds:PATTERN", "torchvision:CIFAR10", "idx:PATH", "sklearn:digits", "plugin:PLUGIN.COMPONENT".
        registry: the catalogue; without one only "scheme:rest" is understood.
        data_dir: where downloads go and are looked for; default `zoo.base.paths.data_dir()`.
        image_size: side, or (height, width), to resize to; None keeps the dataset's.
        seed: of the split of a folder without one of its own; other sources ignore it.
        show: receives (description, done, total) while images are decoded.
        skip_bad: leave unreadable images out, counted in `ImageData.skipped`, instead of failing.
        delivery: whether the images are for a device as a whole, or streamed; "auto" looks whether they fit.
        transform: how images are brought to their size, in the place of `image_size` and of the dataset's own.
        colours: how values become colours, where the SPEC does not say it; None: as suits all images of the dataset.
        given: images that were given in Python, of which `spec` is the name; they are read from there.
        task: whether images have several labels, "multi-label": files in several class folders are then one image, and
            images with one label have a set of one; None: what the labels are.
        whole: a folder that is not divided into train and test is not divided here either: each split is all of it.
        earlier, shuffle: as of `zoo.data.sources.source.Request`.
    Raises:
        UnknownNameError, InputError: the SPEC or an option is wrong.
        DataError: the data cannot be had or is damaged.
    """
    name, dataset = find(spec, registry)
    common, specific = options_of(dataset)
    wanted = (image_size, image_size) if isinstance(image_size, int) else image_size
    if wanted is not None and min(wanted) < 1:
        raise InputError(f"an image size of {wanted[0]}x{wanted[1]} is not possible; give at least 1")
    skip_bad = skip_bad or bool(common.get("skip_bad"))
    task = asked_task(dataset.source, common, task)
    request = replace(_request(specific, seed, data_dir), whole=whole, earlier=earlier, skip_bad=skip_bad)
    request = replace(request, several=task == "multi-label", shuffle=shuffle, show=show or silent)
    source = source_at(dataset.source, request) if given is None else given.source
    asked = checked_colours(common, dataset.source, colours)
    rule = replace(transform_rule(transform) if transform else loading_rule(dataset, common, wanted), colours=asked)
    delivery.check()
    job = _Job(name, spec, dataset, common, rule, skip_bad, delivery, silent if show is None else show)
    with without_warnings():
        return replace(as_asked(_loaded(source, job), task), rule=rule)


def source_of(
    spec: str, registry: Registry | None = None, *, data_dir: Path | str | None = None, skip_bad: bool = False
) -> Source:
    """The images of a dataset before anything is done to them; the arguments are those of `load`.

    Raises:
        UnknownNameError, InputError: the SPEC or an option is wrong. DataError: the data cannot be had.
    """
    _, dataset = find(spec, registry)
    common, specific = options_of(dataset)
    several, skip_bad = bool(common.get("multi_label")), skip_bad or bool(common.get("skip_bad"))
    return source_at(dataset.source, replace(_request(specific, 0, data_dir), several=several, skip_bad=skip_bad))


def _request(specific: dict[str, Any], seed: int, data_dir: Path | str | None) -> Request:
    folder = local_path(data_dir) if data_dir else default_data_dir()
    return Request("", folder, specific, seed, data_dir is not None)


@dataclass(frozen=True)
class _Job:
    """What is to be loaded and how; `rule.colours` holds what was asked for, before any image was seen."""

    name: str
    spec: str
    dataset: Dataset
    common: dict[str, Any]
    rule: Rule
    skip_bad: bool
    delivery: Delivery
    show: Show

    @property
    def workers(self) -> int:
        """Number of processes that decode."""
        return default_workers(self.delivery.device) if self.delivery.workers is None else self.delivery.workers

    def rule_for(self, depth: Depth) -> Rule:
        """How images are decoded, by what all of them have in common."""
        return replace(self.rule, colours=depth.colours(self.rule.colours))


def _loaded(source: Source, job: _Job) -> ImageData:
    """The dataset from its files, if they are streamed, or else from the cache."""
    stays = getattr(source, "streams", False)
    if stays and _alters(job.common):
        raise InputError(f"{job.spec}: ?stream leaves images in their shards, and altered copies are kept decoded")
    may = stays or (job.delivery.mode != "resident" and not _alters(job.common))
    if may and isinstance(source, FileSource):
        files = undecoded(source, job.rule, skip_bad=job.skip_bad)
        files = files.of_known_classes() if job.common.get("drop_unknown") else files
        streams, why = _streams(files, source, job.delivery, job.skip_bad)
        if streams:
            return _from_files(source, files, job, why)
    return _from_source(source, job)


def _from_files(source: FileSource, found: Undecoded, job: _Job, why: str) -> ImageData:
    """The dataset of a source whose images stay files."""
    depth = depth_of(*source.content(found.listings))
    files = Undecoded(found.train, found.test, job.rule_for(depth), found.size, found.findings)
    data = as_cached(files, job.workers, job.show, name=job.name, skip_bad=job.skip_bad)
    described = _described(job.name, job.spec, job.dataset, data, _note(why, job.workers, files))
    described = replace(described, splits_from=source.splits_from())
    seen = _seen(described, (*source.findings(found.listings), *found.findings), depth, job.rule.colours)
    return replace(seen, notes=(*getattr(source, "notes", ()), *seen.notes))


def _from_source(source: Source, job: _Job) -> ImageData:
    """The dataset of any source, decoded into the cache."""
    once = Once(source)
    depth = _depth(source, once)
    read = KnownClasses(once) if job.common.get("drop_unknown") else once
    plain = cached(read, job.rule_for(depth), job.show, name=job.name, skip_bad=job.skip_bad)
    if isinstance(source, FileSource):  # the cache keeps what was beside the images when they were decoded
        plain = replace(plain, ignored=once.open().ignored)
    data = _altered(plain, job.common, job.name, job.show)
    findings = (*getattr(source, "findings", tuple)(), *plain.findings)
    described = _seen(_described(job.name, job.spec, job.dataset, data), findings, depth, job.rule.colours)
    # What the splits are called is said by the source: the cache keeps the words of those who filled it.
    splits_from = source.splits_from() if isinstance(source, FileSource) else plain.splits_from
    described = replace(described, splits_from=splits_from)
    delivered = _from_arrays(described, job.delivery, job.workers)
    return replace(delivered, notes=(*getattr(source, "notes", ()), *delivered.notes))


def _depth(source: Source, once: Once) -> Depth:
    """What all images of a source have in common; nothing where it cannot be opened, which is said if it has to be."""
    try:
        if isinstance(source, FileSource):
            return depth_of(*source.content())
        return depth_of(*once.content(), lambda: (*once.open().train.files, *once.open().test.files))
    except DataError:
        return Depth()


def _seen(data: ImageData, findings: tuple[Finding, ...], depth: Depth, given: Colours) -> ImageData:
    """The dataset with what was seen of it."""
    colours = depth.colours(given)
    white = colours.white if depth.values.images else None
    return replace(data, findings=(*findings, *depth.findings(given)), white=white, colours=colours)


def _streams(files: Undecoded, source: FileSource, delivery: Delivery, skip_bad: bool) -> tuple[bool, str]:
    """Whether a source's images stay files, and why."""
    if delivery.mode == "stream" or getattr(source, "streams", False):
        return True, "stream, as asked"

    def decoded() -> bool:
        key = cache_key(source.identity(), files.rule, skip_bad)
        return (cache_dir() / "images" / key / "index.json").is_file()

    fits, why = fit(len(files), files.size, delivery.device, disk=cache_dir(), decoded=decoded)
    return not fits, f"stream: {why}"


def _from_arrays(data: ImageData, delivery: Delivery, workers: int) -> ImageData:
    """The dataset from decoded arrays, streamed where that was asked for or they do not fit a GPU."""
    size = data.dataset.size or (1, 1)
    count = len(data.train) + len(data.test)
    if delivery.mode == "auto":
        fits, why = fit(count, size, delivery.device, disk=None, decoded=lambda: True)
        # A CPU reads them where the cache maps them: there is nothing to gain by reading ahead.
        streams, why = (not fits and delivery.device.startswith("cuda"), f"{'resident' if fits else 'mapped'}: {why}")
    else:
        streams, why = delivery.mode == "stream", f"{delivery.mode}, as asked"
    if not streams:
        return replace(data, notes=(f"data {why}",))
    pool = Pool(workers, Rule(), size)
    splits = {side: replace(getattr(data, side), pool=pool) for side in ("train", "test")}
    return replace(data, **splits, notes=(f"data {why.replace('mapped', 'stream', 1)}, from the decoded cache",))


def _note(why: str, workers: int, files: Undecoded) -> tuple[str, ...]:
    by = f"files are decoded by {plural(workers, 'worker')}" if workers else "no workers"
    shards = files.train.listing.files
    if not isinstance(shards, Packed):
        return (f"data {why}; {by}",)
    how = shards.shuffle
    blocks = len(np.unique(shards.blocks[files.train.rows]))
    window = f"windows of {how.buffer:,} images or {how.buffer_mb:,} MB"
    return (f"data {why}; {by}", f"shuffled by {plural(blocks, 'block')} of the shards and in {window}")


def _alters(common: dict[str, Any]) -> bool:
    return any(tuple(common.get(key, ("original",))) != ("original",) for key in ("alter_train", "alter_test"))


@contextmanager
def only_this() -> Iterator[None]:
    """Do not advise another dataset where one cannot be had, since only this one will do."""
    try:
        yield
    except AbsentDataError as error:
        raise AbsentDataError(error.fact) from error


def _altered(data: Cached, common: dict[str, Any], name: str, show: Show) -> Cached:
    if not _alters(common):
        return data
    train, test = (tuple(common.get(key, ("original",))) for key in ("alter_train", "alter_test"))
    names = data.classes if data.named else ()
    made = cached(
        Altered(data.key, data.fingerprint, data.train, data.test, names, train, test), Rule(), show, name=name
    )
    return replace(made, skipped=data.skipped, ignored=data.ignored)


def _described(name: str, spec: str, dataset: Dataset, data: Cached, notes: tuple[str, ...] = ()) -> ImageData:
    classes = _class_names(name, dataset, data)
    height, width = data.train.images.shape[2:]
    filled = msgspec.structs.replace(
        dataset,
        classes=classes,
        num_classes=len(classes),
        size=(height, width),
        channels=3,
        train=len(data.train),
        test=len(data.test),
    )
    return ImageData(
        name=name,
        spec=spec,
        dataset=filled,
        train=data.train,
        test=data.test,
        classes=classes,
        fingerprint=data.fingerprint,
        skipped=data.skipped,
        ignored=data.ignored,
        notes=notes,
        named=data.named or not numbered(dataset.classes),
    )


def _class_names(name: str, dataset: Dataset, data: Cached) -> tuple[str, ...]:
    """The catalogue's names where it has them (and they fit), else the source's."""
    listed = dataset.classes
    expected = dataset.num_classes or len(listed)
    only_numbers = numbered(data.classes)
    if expected and len(data.classes) != expected and not (only_numbers and len(data.classes) < expected):
        raise DataError(f"{name} has {plural(len(data.classes), 'class')}, the catalogue says {expected}")
    if listed and not only_numbers and set(listed) == set(data.classes) and listed != data.classes:
        raise DataError(f"{name}: the catalogue lists the same classes in another order than the data")
    if listed:
        return listed
    return tuple(map(str, range(expected))) if only_numbers and expected else data.classes
