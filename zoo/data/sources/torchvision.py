"""`torchvision:NAME`: any of torchvision's classification datasets, downloaded by torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from zoo.base.text import first_line
from zoo.data.sources.digits_and_idx import IdxSource, idx_files
from zoo.data.sources.joined_splits import with_validation
from zoo.data.sources.labels import as_labels, class_numbers
from zoo.data.sources.source import Opened, Request, Rows, Source, array_rows, item_rows
from zoo.data.split import drawn_test
from zoo.data.types import CARVED, Item, Labels, SplitsFrom
from zoo.errors import AbsentDataError, DataError, InputError, UnknownNameError

SPLIT_SEED = 0


class VisionData(Protocol):
    """What torchvision's dataset objects have in common."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """An image and its label."""


Make = Callable[..., VisionData]
_OURS = ("train", "validation", "test", "local")
_TRAINS = ("trainval", "train")
_TESTS = ("test", "val", "valid")


@dataclass(frozen=True)
class VisionSource:
    """One torchvision dataset class.

    The classes name their splits in several ways: `train=True`, `split="train"`, or not at all (then a
    fixed stratified split, 80% train and 20% test, is made). The options `train`, `validation` and `test` name the
    splits; a validation split is read only where it is named. Every other option goes to the constructor.
    """

    name: str
    root: Path
    options: dict[str, Any]

    @classmethod
    def make(cls, request: Request) -> Source:
        """The source for `torchvision:NAME`; for IDX files in the folder of the option `local`, those.

        Raises:
            InputError: two of the splits are one.
        """
        for one, other in combinations(("train", "validation", "test"), 2):
            split = request.options.get(one)
            if split and split == request.options.get(other):
                raise InputError(
                    f"torchvision:{request.rest}: {one} and {other} are the same images (split {split!r}); "
                    f"name another split by ?{one}=SPLIT or ?{other}=SPLIT"
                )
        local = request.options.get("local")
        if local and (files := idx_files(Path(local))):
            return IdxSource(tuple(files))
        return cls(request.rest, request.data_dir, request.options)

    def identity(self) -> dict[str, Any]:
        """Name and options: torchvision checks what it downloads against fixed hashes.

        Where the files lie does not matter for those; names of splits and sizes do.
        """
        options = {k: v for k, v in sorted(self.options.items()) if k != "local"}
        return {"scheme": "torchvision", "name": self.name, "options": options, "files": self._stamps()}

    def _stamps(self) -> list[Any]:
        """Files of a folder of that name, however the class spells it: shows when hand-made data changed."""
        folders = self.root.iterdir() if self.root.is_dir() else ()
        named = [folder for folder in folders if _spelled(folder.name) == _spelled(self.name)]
        stamps = []
        for folder in sorted(folder for folder in named if folder.is_dir()):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                status = path.stat()
                stamps.append([path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns])
        return stamps

    def open(self) -> Opened:
        """The splits; downloads what is missing.

        Raises:
            UnknownNameError: torchvision has no such dataset. DataError: it cannot be had, or has no classes.
        """
        make = self._class()
        train, test = self._constructed(make)
        names = tuple(_class_name(c) for c in getattr(train, "classes", ()) or ())
        title = f"torchvision:{self.name}"
        labels = _labels(train, f"{title} (train)")
        known = names if labels.max(initial=0) < len(names) else ()
        if test is not None:
            rows = _rows(train, labels, f"{title} (train)")
            if held := str(self.options.get("validation", "")):
                validation = self._first(make, self._extra, held, ())
                rows = with_validation(rows, self._split(validation, "validation"))
            return Opened(rows, self._split(test, "test"), known, splits_from=SplitsFrom(held))
        rest, chosen = drawn_test(labels, SPLIT_SEED, title)
        split = SplitsFrom(test=CARVED)
        return Opened(_rows(train, labels, title, rest), _rows(train, labels, title, chosen), known, splits_from=split)

    def _split(self, dataset: VisionData, side: str) -> Rows:
        title = f"torchvision:{self.name} ({side})"
        return _rows(dataset, _labels(dataset, title), title)

    def _class(self) -> Make:
        from torchvision import datasets

        known = {n: getattr(datasets, n) for n in datasets.__all__ if inspect.isclass(getattr(datasets, n))}
        if self.name not in known:
            raise UnknownNameError("torchvision dataset", self.name, known, "see `zoo datasets`")
        make: Make = known[self.name]
        return make

    @property
    def _extra(self) -> dict[str, Any]:
        """The options that go to the constructor."""
        return {k: v for k, v in self.options.items() if k not in _OURS}

    def _constructed(self, make: Make) -> tuple[VisionData, VisionData | None]:
        """The dataset objects for train and test; test is None where there is but one set."""
        extra = self._extra
        parameters = inspect.signature(make).parameters
        unknown = set(extra) - set(parameters)
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise InputError(f"torchvision:{self.name}: unknown option {', '.join(sorted(unknown))}")
        if "validation" in self.options and ("split" not in parameters or "split" in extra):
            raise InputError(f"torchvision:{self.name} has no split for validation; leave out ?validation=")
        named = "split" in parameters and "split" not in extra
        if not named and (given := [side for side in ("train", "test") if side in self.options]):
            raise InputError(f"torchvision:{self.name} does not name its splits; leave out ?{given[0]}=")
        if "train" in parameters or ("split" in parameters and "split" in extra):
            return self._build(make, extra | {"train": True}), self._build(make, extra | {"train": False})
        if "split" in parameters:
            train = self._first(make, extra, self.options.get("train"), _TRAINS)
            return train, self._first(make, extra, self.options.get("test"), _TESTS)
        return self._build(make, extra), None

    def _first(self, make: Make, extra: dict[str, Any], given: str | None, usual: tuple[str, ...]) -> VisionData:
        """Build with the given split, or with the first usual one that the class accepts."""
        refused: Exception = ValueError("no split is named")
        for split in (given,) if given else usual:
            try:
                return self._build(make, extra | {"split": split})
            except ValueError as error:
                refused = error
        raise InputError(f"torchvision:{self.name}: {first_line(refused, None)}")

    def _build(self, make: Make, arguments: dict[str, Any]) -> VisionData:
        """What is there already, else after a download."""
        try:
            return make(str(self.root), **arguments)
        except (RuntimeError, OSError) as error:
            absent = error
        accepts = inspect.signature(make).parameters
        loads = "download" in accepts or any(p.kind is p.VAR_KEYWORD for p in accepts.values())
        if not loads:
            raise DataError(
                f"torchvision:{self.name} cannot be downloaded; put it into {self.root} yourself: {first_line(absent)}"
            )
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            return make(str(self.root), download=True, **arguments)
        except (RuntimeError, OSError) as error:
            raise AbsentDataError(
                f"torchvision:{self.name} is not in {self.root} and cannot be downloaded ({first_line(error)}); "
                "connect to the network, or name its folder with --data-dir",
                "use `--dataset digits`, which needs no download",
            ) from error


def _spelled(name: str) -> str:
    """A name without case and signs: "EuroSAT" and "eurosat", "Food101" and "food-101"."""
    return "".join(c for c in name.lower() if c.isalnum())


def _class_name(name: object) -> str:
    return str(name[0]) if isinstance(name, tuple | list) else str(name)


def _labels(dataset: VisionData, title: str) -> Labels:
    """Labels by whichever attribute the class keeps them in; else by reading every sample.

    Raises:
        DataError: an image has no label, or several.
    """

    def where(i: int) -> str:
        return f"{title}, image {i}"

    for attribute in ("targets", "labels", "_labels", "y", "_samples"):
        labels = getattr(dataset, attribute, None)
        if labels is None or not len(labels):
            continue
        if attribute == "_samples":
            labels = [label for _, label in labels]
        if hasattr(dataset, "compat"):  # QMNIST: the class, and who wrote the digit
            labels = np.asarray(labels)[:, 0]
        return as_labels(labels, where)
    return class_numbers((_plain(dataset[i][1]) for i in range(len(dataset))), where)


def _plain(label: Any) -> Any:
    """A label out of the tensor or array that holds it alone."""
    return label.item() if getattr(label, "ndim", None) == 0 else label


def _pixels(dataset: VisionData) -> np.ndarray | None:
    """The decoded images where the class holds them all in memory."""
    data = getattr(dataset, "data", None)
    array = np.asarray(data) if hasattr(data, "shape") else None
    return array if array is not None and array.dtype == np.uint8 and array.ndim in (3, 4) else None


def _image(dataset: VisionData, index: int) -> Image.Image:
    image: Image.Image = dataset[index][0]
    return image


def _rows(dataset: VisionData, labels: Labels, title: str, chosen: Labels | None = None) -> Rows:
    pixels = _pixels(dataset)
    if pixels is not None:
        return array_rows(pixels, labels, title, chosen)
    picked = np.arange(len(labels)) if chosen is None else chosen
    items: list[Item] = [partial(_image, dataset, int(i)) for i in picked]
    return item_rows(items, labels[picked], lambda i: f"{title}, image {int(picked[i])}")
