"""`--validation`: a share of the training images, or the images of another dataset, that select the epoch."""

from __future__ import annotations

from typing import NamedTuple

from zoo.base.paths import local_path
from zoo.catalogue.registry import Registry
from zoo.data.batches.mode import Delivery
from zoo.data.dataset_spec import SCHEMES
from zoo.data.files.decode import Rule
from zoo.data.matched_images import Taken, loaded_as, matched
from zoo.data.portable import spec_of
from zoo.data.split import Split
from zoo.data.types import CARVED
from zoo.errors import InputError

FORMS = (
    "give a share of the training images (0.2), or a folder or file of validation images (folder:PATH, csv:FILE, "
    "parquet:PATH or wds:PATTERN)"
)


class ValidationImages(NamedTuple):
    """Images of another dataset that select: their labels count the training images' classes."""

    spec: str
    images: Split
    fingerprint: str
    left_out: int


def share_or_spec(given: str) -> float | str:
    """What `--validation` says: a share, 0 < share < 1, or the SPEC of images.

    Args:
        given: a number, a SPEC, or the path of a folder or a file.
    Raises:
        InputError: it is neither.
    """
    try:
        share = float(given)
    except ValueError:
        return _spec_of(given)
    if not 0 < share < 1:
        raise InputError(f"--validation {given}: a share is above 0 and below 1; {FORMS}")
    return share


def _spec_of(given: str) -> str:
    scheme, colon, _ = given.partition(":")
    if colon and scheme in SCHEMES:
        return given
    path = local_path(given)
    found = spec_of(path)
    if path.is_dir() or (path.is_file() and not found.startswith("folder:")):
        return f"{found.partition(':')[0]}:{given}"
    raise InputError(f"--validation {given}: no such folder or file; {FORMS}")


def validation_images(
    spec: str,
    registry: Registry,
    size: tuple[int, int],
    rule: Rule,
    classes: tuple[str, ...],
    *,
    data_dir: str | None,
    delivery: Delivery,
    several: bool = False,
) -> ValidationImages:
    """Load the images of another dataset, all of them, for validation.

    Args:
        size: (height, width) of the training images. rule: how those are brought to it.
        classes: of the training images; these are matched by name.
        several: whether an image may have several labels.
    Raises:
        InputError: the dataset is divided itself, or has a class that the training images have not.
        UnknownNameError, DataError: as `zoo.data.load`.
    """
    taken = Taken("the training images", size, rule, [classes], several)
    data = loaded_as(taken, registry, spec, data_dir=data_dir, delivery=delivery)
    if data.splits_from.test != CARVED:
        raise InputError(
            f"--validation {spec}: is divided into train and test itself; name a folder of classes, or a file, that "
            "holds the validation images alone"
        )
    found = matched(data, data.train, taken, registry)
    return ValidationImages(spec, found.images, data.fingerprint, found.left_out)
