"""What a user of an exported file must know of it: where its weights come from, what it takes, what it gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from zoo.base.headline import MAP, TOP1
from zoo.base.version import __version__
from zoo.data.files.colours import Colours
from zoo.data.portable import portable_spec
from zoo.errors import RunError
from zoo.evaluate.classifier import Classifier
from zoo.runs.folder import read_result
from zoo.runs.record import RunRecord

PREPARED: Final = "images"
"""Name of an input of floats (B, C, H, W) as the model takes them."""

PIXELS: Final = "pixels"
"""Name of an input of bytes (B, H, W, C) as an image file decodes to."""

PIXEL_VALUES: Final = "pixel_values"
"""Name of an input of such bytes as floats, 0 to 255, (B, C, H, W): the name and layout that transformers.js feeds.

The views of an image that the recipe tests with are inside too, so that the file classifies as `zoo predict` does.
"""

Takes: TypeAlias = Literal["images", "pixels", "pixel_values"]
"""What a file takes: the name of its input."""

OUTPUT = "logits"


def origin_of(folder: Path, record: RunRecord) -> dict[str, str]:
    """Where the weights of a run come from: dataset, recipe, protocol, and the test accuracy over its views."""
    figure = MAP if record.data.is_multi_label else TOP1
    try:
        score = f"{read_result(folder)['test'][figure.key]:.6f}"
    except (RunError, KeyError, TypeError):
        score = "not measured: the run is not finished"
    return {
        "fingerprint": record.data.fingerprint,
        "recipe": record.recipe,
        "protocol": record.protocol,
        "seed": str(record.seed),
        f"test_{figure.key}": score,
    }


def reading_of(classifier: Classifier) -> dict[str, str]:
    """How logits become what `predict` says, and what the model was trained on: of a run's model and of a loaded one.

    That is: the views of an image that are averaged, and of which images; the temperature that the file's logits are
    divided by already; of a model for images with several labels, from which probability (the sigmoid of a logit) on a
    class is one of them.
    """
    margin, temperature, thresholds = classifier.tta_margin, classifier.temperature, classifier.thresholds
    return {
        **({"dataset": portable_spec(classifier.dataset)} if classifier.dataset else {}),
        "tta": classifier.tta,
        **({} if margin is None else {"tta_margin": str(margin)}),
        **({} if temperature == 1 else {"temperature": str(temperature)}),
        **({"task": "multi-label", "thresholds": json.dumps(thresholds)} if thresholds else {}),
    }


def facts(classifier: Classifier, origin: Mapping[str, str], *, takes: Takes, batch: int | None) -> dict[str, str]:
    """What is written into the file beside the graph: texts; `zoo.input` and `zoo.classes` are JSON."""
    given, told = input_facts(classifier, takes=takes, batch=batch), reading_of(classifier) | dict(origin)
    gives = {"name": OUTPUT, "shape": [batch or "batch", classifier.sizes.num_classes]}
    return {
        "zoo.version": __version__,
        "zoo.model": classifier.name,
        "zoo.parameters": str(classifier.parameter_count),
        "zoo.classes": json.dumps(list(classifier.classes), ensure_ascii=False),
        "zoo.input": json.dumps(given),
        "zoo.rule": json.dumps(msgspec.to_builtins(classifier.preprocessing.rule)),
        "zoo.output": json.dumps(gives),
        **{f"zoo.{key}": value for key, value in sorted(told.items())},
    }


def input_facts(classifier: Classifier, *, takes: Takes, batch: int | None) -> dict[str, Any]:
    """The input: its name, type, layout and shape, and what must have been done to an image before."""
    sizes, given, rows = classifier.sizes, classifier.preprocessing, batch or "batch"
    scaling = {
        "scale": "1/255",
        "normalize": {"mean": list(given.mean), "std": list(given.std)} if given.normalize else None,
    }
    image: dict[str, Any] = {
        "colour": "RGB",
        "orientation": "upright: turned by its EXIF orientation, if it has one",
        **_colours(given.rule.colours),
        "resize": f"{given.rule}; averaging where it shrinks (PIL's {given.rule.interpolation.upper()})",
    }
    if takes == PIXELS:
        shape = [rows, sizes.height, sizes.width, sizes.in_channels]
        array = {"name": PIXELS, "dtype": "uint8", "layout": "NHWC", "shape": shape}
        return array | image | {"inside": scaling}
    shape = [rows, sizes.in_channels, sizes.height, sizes.width]
    array = {"name": takes, "dtype": "float32", "layout": "NCHW", "shape": shape}
    if takes == PIXEL_VALUES:
        margin = {} if classifier.tta_margin is None else {"tta_margin": classifier.tta_margin}
        return array | {"range": [0, 255]} | image | {"inside": scaling | {"tta": classifier.tta} | margin}
    return array | image | scaling


def _colours(colours: Colours) -> dict[str, Any]:
    """What transparent pixels lie on, and what is black and white where values have more than 8 bits."""
    deep = {} if colours.white is None else {"deep": {"black": colours.black or 0.0, "white": colours.white}}
    return {"background": colours.background or "white", **deep}


def describe(classifier: Classifier, *, takes: Takes) -> str:
    """The same in one sentence, for people."""
    sizes, given = classifier.sizes, classifier.preprocessing
    fitted = f"scaled {given.rule}" if given.rule.size else f"scaled and cut ({given.rule})"
    if (deep := _colours(given.rule.colours).get("deep")) is not None:
        fitted = f"values of more than 8 bits brought from {deep['black']:g}..{deep['white']:g} to 0..255, {fitted}"
    if takes == PIXEL_VALUES:
        return (
            f"`{PIXEL_VALUES}`: float32 (batch, {sizes.in_channels}, {sizes.height}, {sizes.width}), 0 to 255, RGB as "
            f"an image file decodes to, {fitted}; division by 255, normalisation and test-time views are inside"
        )
    if takes == PIXELS:
        return (
            f"`{PIXELS}`: uint8 (batch, {sizes.height}, {sizes.width}, {sizes.in_channels}), RGB as an image file "
            f"decodes to, {fitted}; division by 255 and normalisation are inside"
        )
    how = f"(x/255 - mean)/std, mean {list(given.mean)}, std {list(given.std)}"
    return (
        f"`{PREPARED}`: float32 (batch, {sizes.in_channels}, {sizes.height}, {sizes.width}), RGB, "
        f"{fitted}, {how if given.normalize else 'x/255'}"
    )
