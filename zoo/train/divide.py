"""Which images of a new run are training, validation and test: what came with the dataset, and what is drawn."""

from __future__ import annotations

from dataclasses import replace

from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.data.batches.mode import Delivery
from zoo.data.split import TEST_SHARE, VALIDATION_FRACTION, ImageData
from zoo.data.types import CARVED
from zoo.plugin.contract import Transform
from zoo.runs.images import RunImages, images_rule, scaling_of
from zoo.runs.validation_images import ValidationImages, share_or_spec, validation_images
from zoo.train.run_options import Request

NONE = "none"
"""In the place of a name: by the protocol `paper`, no images validate."""


def divided_for(
    request: Request, data: ImageData, registry: Registry, delivery: Delivery, transform: Transform | None
) -> tuple[RunImages, ValidationImages | None]:
    """The images as a new run divides them, and those of another dataset that validate, if `--validation` names some.

    Args:
        transform: of the weights that the run begins with, if they have one.
    Raises:
        InputError, DataError: as `zoo.runs.validation_images.validation_images`.
    """
    limits = request.limit_train, request.limit_test
    if request.protocol != "clean":
        return RunImages(data, 0.0, *limits), None
    given = None if request.validation is None else share_or_spec(request.validation)
    if not isinstance(given, str):
        return RunImages(data, given or VALIDATION_FRACTION, *limits, own=given is None), None
    _, _, height, width = data.train.images.shape
    known = replace(data.colours, white=data.white)
    rule = images_rule(data.spec, registry, (height, width), transform or scaling_of(data), known)
    as_train = delivery._replace(mode="stream" if data.streamed else "resident")
    found = validation_images(
        given,
        registry,
        (height, width),
        rule,
        data.classes,
        data_dir=request.data_dir,
        delivery=as_train,
        several=data.task == "multi-label",
    )
    return RunImages(data, VALIDATION_FRACTION, *limits, other=found.images), found


def validation_from(images: RunImages, other: ValidationImages | None) -> str:
    """What the record says of the validation images; see `zoo.runs.record.DataRecord`."""
    if not images.validation:
        return NONE
    if other is not None:
        return other.spec
    return CARVED if images.carves else images.data.splits_from.validation or "given"


def splits_lines(images: RunImages, other: ValidationImages | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A line about where the splits came from.

    Returns:
        It, where that is the usual (a tenth validates, the test is given); and it, where it is not.
    """
    own = images.data.splits_from
    parts = [f"validation images: {validation_from(images, other)}"]
    if images.carves:
        parts = [f"validation images: {images.validation:.3g} of the training images"]
    elif not images.validation:
        parts = ["the test images select the epoch"]
    unused = own.validation if images.carves or other or not images.validation else ""
    parts += [f"the dataset's own validation images ({unused}) are not used"] if unused else []
    parts += [f"{plural(other.left_out, 'image')} of other classes left out"] if other and other.left_out else []
    if own.test == CARVED:
        parts.append(f"test images: {TEST_SHARE:.3g} of the training images, always the same ones")
    elif own.test:
        parts.append(f"test images: {own.test}")
    tenth = not images.validation or (images.carves and images.validation == VALIDATION_FRACTION)
    said = ("; ".join(parts),)
    return (said, ()) if tenth and not unused and own.test != CARVED else ((), said)
