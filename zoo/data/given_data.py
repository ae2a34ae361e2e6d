"""Images that are given in Python in place of a SPEC: arrays, splits, torch datasets, lists of files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zoo.base.paths import local_path
from zoo.base.text import first_line, plural
from zoo.data.files.colours import may_be_transparent
from zoo.data.files.deep_colour import unread_file
from zoo.data.files.orientation import turn_of
from zoo.data.given_sets import is_set, label_sets
from zoo.data.sources.in_memory import SCHEME, MemorySource, Part, Parts, digest_of, keep_list
from zoo.data.sources.known_classes import one_numbering
from zoo.data.sources.labels import class_number, class_numbers
from zoo.data.types import Images, Item, Labels
from zoo.errors import DataError, InputError, ZooError
from zoo.plugin.contract import ImageSplits

FORMS = (
    "((images, labels), (images, labels)) for train and test, one (images, labels), an ImageSplits, a pair of torch "
    "datasets, or a list of (path, label)"
)
AT_ONCE = 1024
READ_TWICE = 16
SIDES = ("train", "validation", "test")


_Picture = Images | Image.Image | Path
"""One image of Python: its values, or what is decoded as files are."""


@dataclass(frozen=True)
class GivenData:
    """Images that were given: the SPEC that records name them by, and where they are read from."""

    spec: str
    source: MemorySource


class _Side(NamedTuple):
    """One split as it was given: images that can be decoded, and labels, numbers or names."""

    images: Images | Sequence[Item]
    labels: list[Any]
    where: str
    classes: tuple[str, ...] = ()
    name: str = "arrays"


def given_data(dataset: object, *, whole: bool = False) -> GivenData:
    """Images that were given in Python, read into memory and hashed; lists of files stay files.

    Args:
        dataset: ((images, labels), (images, labels)) for train and test, or one (images, labels), of which a
            stratified fifth becomes the test, always the same. `images` is an array or tensor (N, H, W),
            (N, H, W, 1 or 3) or (N, 1 or 3, H, W): uint8, or other integers of 0..255, or floats of 0..1, which are
            scaled to 0..255 and rounded; or a list of PIL images, arrays, encoded bytes or paths. `labels` are class
            numbers, or names. An `ImageSplits`. Two (or one) `torch.utils.data.Dataset` with items (image, label),
            the image a PIL image, an array or a tensor as above; they are read once, so that random transforms are
            refused. A list of (path, label). A mapping with "train", and "validation", "test" and "classes" if wanted.
        whole: what has one split alone is not divided.
    Raises:
        InputError: it is nothing of these. DataError: its images or labels cannot be used.
    """
    if isinstance(dataset, GivenData):
        return dataset
    given, names = _divided(dataset)
    sides = {side: _side(value, side) for side, value in given.items()}
    if not names:
        sides = _numbered_alike(sides)
    parts = _parts(sides, names or sides["train"].classes)
    name = f"{sides['train'].name}-{digest_of(parts)}"
    if all(part.of_files for part in parts.sides.values()):
        keep_list(name, parts)
    return GivenData(f"{SCHEME}:{name}", MemorySource(name, parts, whole))


# ---- what was given -----------------------------------------------------------------------------------


def _divided(dataset: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The splits by name, "train" always among them, and the names of the classes where they are given."""
    if isinstance(dataset, ImageSplits):
        return {"train": dataset.train, "test": dataset.test}, tuple(map(str, dataset.classes))
    if isinstance(dataset, Mapping):
        unknown = [str(key) for key in dataset if key not in (*SIDES, "classes")]
        if unknown or "train" not in dataset:
            what = f"unknown key {unknown[0]!r}" if unknown else "no key 'train'"
            raise InputError(f"dataset: {what}; allowed: train, validation, test, classes")
        sides = {side: dataset[side] for side in SIDES if side in dataset}
        return sides, _names(dataset.get("classes"))
    if _are_splits(dataset):
        return {"train": dataset[0], "test": dataset[1]}, ()
    if _is_pair(dataset) or _are_files(dataset) or _is_dataset(dataset):
        return {"train": dataset}, ()
    raise InputError(f"dataset: cannot be made of {_shown(dataset)}; give a SPEC, {FORMS}")


def _names(classes: Any) -> tuple[str, ...]:
    """The names of classes as they are given; a text would be its letters, a table has an order of its own."""
    if classes is None:
        return ()
    if not isinstance(classes, Sequence | np.ndarray) or isinstance(classes, str | bytes):
        raise InputError(f"dataset: classes: is {_shown(classes)}; give a list of names, in the order of the labels")
    return tuple(map(str, classes))


def _are_splits(value: Any) -> bool:
    """Whether it is train and test, each as it may be given alone."""
    if not isinstance(value, tuple | list) or len(value) != 2 or _are_files(value):
        return False
    return all(map(_is_dataset, value)) or all(_is_pair(part) or _are_files(part) for part in value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_pair(value: Any) -> bool:
    """Whether it is (images, labels): an array or a list of images, and as many labels."""
    if not isinstance(value, tuple | list) or len(value) != 2 or _are_files(value):
        return False
    images, labels = value
    if _is_array(images):
        return len(images.shape) >= 3 and (_is_array(labels) or isinstance(labels, Sequence))
    return (
        isinstance(images, Sequence) and not isinstance(images, str | bytes) and bool(images) and _is_image(images[0])
    )


def _is_image(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike | Image.Image) or (
        _is_array(value) and len(value.shape) in (2, 3)
    )


def _are_files(value: Any) -> bool:
    """Whether it is a list of (path, label)."""
    return (
        isinstance(value, tuple | list)
        and bool(value)
        and all(
            isinstance(row, tuple | list)
            and len(row) == 2
            and isinstance(row[0], str | os.PathLike)
            and (isinstance(row[1], int | np.integer) or (isinstance(row[1], str | list) and isinstance(row, tuple)))
            for row in value
        )
    )


def _is_dataset(value: Any) -> bool:
    """Whether it looks like a `torch.utils.data.Dataset` that can be indexed."""
    plain = isinstance(value, tuple | list | str | bytes | Mapping) or _is_array(value)
    return not plain and hasattr(value, "__getitem__") and isinstance(value, Sized)


def _shown(value: Any) -> str:
    if hasattr(value, "dataset") and hasattr(value, "batch_size"):
        return "a DataLoader (give its .dataset)"
    if isinstance(value, tuple | list):
        inner = ", ".join(type(part).__name__ for part in value[:3])
        return f"a {type(value).__name__} of {plural(len(value), 'value')} ({inner}{', ...' if len(value) > 3 else ''})"
    return f"a {type(value).__name__}"


# ---- one split ----------------------------------------------------------------------------------------


def _side(value: Any, side: str) -> _Side:
    if _are_files(value):
        where = f"dataset ({side})"
        return _Side(_files([path for path, _ in value], where), [label for _, label in value], where, name="files")
    if _is_dataset(value):
        return _read(value, side)
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(f"dataset ({side}): expected (images, labels), got {_shown(value)}")
    images, labels = value
    where = f"dataset ({side})"
    count, wanted = len(images), len(labels)
    if count != wanted or not count:
        raise DataError(f"{where}: {plural(count, 'image')} for {plural(wanted, 'label')}")
    return _Side(_images(images, where), _listed(labels), where)


def _listed(labels: Any) -> list[Any]:
    """Labels as a list of Python's own values."""
    labels = _numpy(labels)
    if isinstance(labels, np.ndarray) and labels.ndim == 2:
        if labels.shape[1] != 1:
            return list(labels)
        labels = labels[:, 0]
    return [_scalar(label) for label in (labels.tolist() if isinstance(labels, np.ndarray) else labels)]


def _scalar(value: Any) -> Any:
    """A label out of a tensor or array of one value; of several, an array."""
    return value.item() if _is_array(value) and len(value.shape) == 0 else _numpy(value)


def _numpy(value: Any) -> Any:
    """A tensor as an array, of numpy's own types; all else as it is."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()


def _images(images: Any, where: str) -> Images | Sequence[Item]:
    if _is_array(images):
        return pixels(_numpy(images), where)
    if all(isinstance(image, str | os.PathLike) for image in images):
        return _files(images, where)
    if all(isinstance(image, bytes) for image in images):
        return list(images)
    return _alike([_decoded(image, f"{where}, image {i}") for i, image in enumerate(images)])


def _files(paths: Sequence[str | os.PathLike[str]], where: str) -> list[Path]:
    found = [local_path(path).absolute() for path in paths]
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise DataError(f"{where}: {missing[0]}: no such file ({len(missing)} of {len(found)} are missing)")
    return found


def _decoded(image: Any, where: str) -> _Picture:
    """One image: uint8 (H, W), (H, W, 3) or (3, H, W), or what is decoded as its file would be."""
    if isinstance(image, Image.Image):
        try:
            return _of_pillow(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{where}: the picture cannot be read: {first_line(error)}") from error
    if not _is_array(image):
        raise DataError(f"{where}: is a {type(image).__name__}; give a PIL image, an array or a tensor")
    array = pixels(_numpy(image)[None], where)
    return array[0]


def _of_pillow(image: Image.Image) -> _Picture:
    """The values of a PIL image; of one that lies on its side, is transparent or has more than 8 bits, the image."""
    if file := unread_file(image):  # asked first: Pillow reads a PNG to find out whether it lies on its side
        return file.absolute()
    is_plain = image.mode in ("L", "RGB") and not may_be_transparent(image) and turn_of(image) is None
    return np.asarray(image) if is_plain else image.copy()


def _alike(images: Sequence[_Picture]) -> Images | Sequence[Item]:
    """Images of one size as one array; else each to be brought to a size later."""
    shapes = {image.shape if isinstance(image, np.ndarray) else None for image in images}
    if len(shapes) == 1 and None not in shapes:
        return np.stack(images)  # type: ignore[arg-type]
    return [_opener(image) for image in images]


def _opener(image: _Picture) -> Item:
    if isinstance(image, Path):
        return image
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] not in (1, 3):
            image = image.transpose(1, 2, 0)
        image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    kept = image
    return kept.copy  # whoever decodes it closes what it opened


def pixels(array: Any, where: str) -> Images:
    """Pixel values as uint8.

    Args:
        array: (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W): integers of 0..255, or floats of 0..1.
    Raises:
        DataError: other values; says what to do.
    """
    array = np.asarray(array)
    if array.ndim not in (3, 4) or (array.ndim == 4 and not {array.shape[1], array.shape[3]} & {1, 3}):
        raise DataError(f"{where}: images of shape {array.shape}; needed: (N, H, W), (N, H, W, 3) or (N, 3, H, W)")
    if 0 in array.shape[1:]:
        raise DataError(f"{where}: images of shape {array.shape} have no pixels")
    if array.dtype == np.uint8:
        return array
    kind = array.dtype.kind
    if kind not in "iuf":
        raise DataError(f"{where}: images of {array.dtype}; needed: uint8 of 0..255, or floats of 0..1")
    most = 1 if kind == "f" else 255
    out = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), AT_ONCE):
        chunk = array[start : start + AT_ONCE]
        low, high = chunk.min(), chunk.max()
        if not (low >= 0 and high <= most):
            raise DataError(f"{where}: {array.dtype} values from {low:.3g} to {high:.3g}; {_advice(kind, low, high)}")
        out[start : start + AT_ONCE] = np.rint(chunk * 255.0) if kind == "f" else chunk
    return out


def _advice(kind: str, low: Any, high: Any) -> str:
    if kind == "f" and low >= 0 and high <= 255:
        return "floats are taken as 0..1: divide them by 255, or give uint8"
    if kind == "f":
        return "give them as 0..1 (undo the normalisation: the recipe normalises), or uint8"
    return "integers are taken as 0..255"


# ---- torch datasets -----------------------------------------------------------------------------------


def _read(dataset: Any, side: str) -> _Side:
    """A torch dataset, read once."""
    where = f"dataset ({side})"
    with _failing(where):
        count = len(dataset)
    if not count:
        raise DataError(f"{where}: holds no images")
    images, labels = [], []
    for row in range(count):
        image, label = _item(dataset, row, where)
        images.append(_decoded(image, f"{where}, image {row}"))
        labels.append(_scalar(label))
    _refuse_random(dataset, images, where)
    return _Side(_alike(images), labels, where, _classes(dataset), _name(dataset))


def _refuse_random(dataset: Any, images: Sequence[_Picture], where: str) -> None:
    """Read some images again: a transform that is random may leave any one of them as it is."""
    for row in sorted({*np.linspace(0, len(images) - 1, READ_TWICE).astype(int).tolist()}):
        again = _decoded(_item(dataset, row, where)[0], f"{where}, image {row}")
        if _values(again) != _values(images[row]):
            raise InputError(
                f"{where}: its images are others each time that they are read; take the random transforms out: the "
                "recipe augments, or a function given as augment="
            )


def _values(picture: _Picture) -> bytes:
    return os.fsencode(picture) if isinstance(picture, Path) else np.asarray(picture).tobytes()


@contextmanager
def _failing(where: str) -> Iterator[None]:
    """What a dataset of the user's own raises, in one line; it ends no program."""
    try:
        yield
    except ZooError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(f"{where}: {type(error).__name__}: {first_line(error)}") from error


def _item(dataset: Any, row: int, where: str) -> tuple[Any, Any]:
    with _failing(f"{where}, image {row}"):
        item = dataset[row]
    if isinstance(item, Mapping):
        pair = [
            next((item[key] for key in keys if key in item), None)
            for keys in (("image", "img"), ("label", "fine_label"))
        ]
    else:
        pair = list(item) if isinstance(item, tuple | list) else []
    if len(pair) != 2 or pair[0] is None or pair[1] is None:
        raise DataError(f"{where}, image {row}: is {_shown(item)}; needed: (image, label)")
    return pair[0], pair[1]


def _classes(dataset: Any) -> tuple[str, ...]:
    """The names of the classes that a dataset, or the one that it is a part of, has."""
    names = getattr(dataset, "classes", None)
    if names is None and hasattr(dataset, "dataset"):
        return _classes(dataset.dataset)
    return tuple(map(str, names)) if isinstance(names, Sequence) and not isinstance(names, str) else ()


def _name(dataset: Any) -> str:
    inner = getattr(dataset, "dataset", dataset)
    name = "".join(c for c in type(inner).__name__.lower() if c.isalnum() or c in "_")
    return name if name not in ("", "dataset", "tensordataset", "subset") else "images"


# ---- together -----------------------------------------------------------------------------------------


def _parts(sides: Mapping[str, _Side], names: tuple[str, ...]) -> Parts:
    labels = [label for side in sides.values() for label in side.labels]
    if any(map(is_set, labels)):
        return _parts_with_sets(sides, names)
    if labels and all(isinstance(label, str) for label in labels):
        known = names or tuple(sorted({*labels}))
        numbers = {name: number for number, name in enumerate(known)}
        strange = [label for label in labels if label not in numbers]
        if strange:
            raise DataError(f"dataset: the label {strange[0]!r} is no class; the classes are {', '.join(known[:8])}")
        names = known
        sides = {key: side._replace(labels=[numbers[label] for label in side.labels]) for key, side in sides.items()}
    parts = {key: _part(side) for key, side in sides.items()}
    return Parts(parts["train"], parts.get("test"), names, parts.get("validation"))


def _parts_with_sets(sides: Mapping[str, _Side], names: tuple[str, ...]) -> Parts:
    given = [(side.labels, partial(_where, side)) for side in sides.values()]
    sets, names = label_sets(given, names)
    parts = {
        key: Part(side.images, found, where)
        for (key, side), found, (_, where) in zip(sides.items(), sets, given, strict=True)
    }
    return Parts(parts["train"], parts.get("test"), names, parts.get("validation"))


def _numbered_alike(sides: Mapping[str, _Side]) -> dict[str, _Side]:
    """The splits with one numbering, the first one's: two folders of images number their own classes each.

    Raises:
        DataError: the splits have different classes, and a name stands for several.
    """
    named = {name: side for name, side in sides.items() if side.classes}
    if len(named) < 2 or "train" not in named:
        return dict(sides)
    others = [name for name in named if name != "train"]
    classes, places = one_numbering(named["train"].classes, [named[name].classes for name in others])
    if any(is_set(label) and named[name].classes != classes for name in named for label in named[name].labels[:1]):
        raise DataError("dataset: the splits list different classes, or another order of them; give all the same")
    numbers = {"train": np.arange(len(classes)), **dict(zip(others, places, strict=True))}
    return {name: _renumbered(side, numbers[name], classes) if name in named else side for name, side in sides.items()}


def _renumbered(side: _Side, places: Labels, classes: tuple[str, ...]) -> _Side:
    kept = [
        int(places[number]) if (number := class_number(label)) is not None and 0 <= number < len(places) else label
        for label in side.labels
    ]
    return side._replace(labels=kept, classes=classes)


def _part(side: _Side) -> Part:
    where = partial(_where, side)
    return Part(side.images, class_numbers(side.labels, where), where)


def _where(side: _Side, row: int) -> str:
    item = side.images[row] if not isinstance(side.images, np.ndarray) else None
    return str(item) if isinstance(item, Path) else f"{side.where}, image {row}"
