"""What a user of an exported file must know of it: where its weights come from, what it takes, what it gives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.base.version import __version__
from zoo.data.portable import portable_spec
from zoo.errors import RunError
from zoo.evaluate.classifier import Classifier
from zoo.runs.folder import read_result
from zoo.runs.record import RunRecord

PREPARED, PIXELS = "images", "pixels"
"""Names of the input: of floats as the model takes them, and of bytes as an image file decodes to."""

OUTPUT = "logits"


def origin_of(folder: Path, record: RunRecord) -> dict[str, str]:
    """Where the weights of a run come from: dataset, recipe, protocol, and the test accuracy over its views."""
    try:
        top1 = f"{read_result(folder)['test']['top1']:.6f}"
    except (RunError, KeyError, TypeError):
        top1 = "not measured: the run is not finished"
    return {
        "dataset": portable_spec(record.data.spec),
        "fingerprint": record.data.fingerprint,
        "recipe": record.recipe,
        "protocol": record.protocol,
        "seed": str(record.seed),
        "tta": record.settings.tta,
        "test_top1": top1,
    }


def facts(
    classifier: Classifier, origin: Mapping[str, str], *, preprocessing: bool, batch: int | None
) -> dict[str, str]:
    """What is written into the file beside the graph: texts; `zoo.input` and `zoo.classes` are JSON."""
    takes = input_facts(classifier, preprocessing=preprocessing, batch=batch)
    gives = {"name": OUTPUT, "shape": [batch or "batch", classifier.sizes.num_classes]}
    return {
        "zoo.version": __version__,
        "zoo.model": classifier.name,
        "zoo.parameters": str(classifier.parameter_count),
        "zoo.classes": json.dumps(list(classifier.classes), ensure_ascii=False),
        "zoo.input": json.dumps(takes),
        "zoo.output": json.dumps(gives),
        **{f"zoo.{key}": value for key, value in sorted(origin.items())},
    }


def input_facts(classifier: Classifier, *, preprocessing: bool, batch: int | None) -> dict[str, Any]:
    """The input: its name, type, layout and shape, and what must have been done to an image before."""
    sizes, given, rows = classifier.sizes, classifier.preprocessing, batch or "batch"
    scaling = {
        "scale": "1/255",
        "normalize": {"mean": list(given.mean), "std": list(given.std)} if given.normalize else None,
    }
    image: dict[str, Any] = {
        "colour": "RGB",
        "resize": f"{given.rule}; averaging where it shrinks (PIL's {given.rule.interpolation.upper()})",
    }
    if preprocessing:
        shape = [rows, sizes.height, sizes.width, sizes.in_channels]
        array = {"name": PIXELS, "dtype": "uint8", "layout": "NHWC", "shape": shape}
        return array | image | {"inside": scaling}
    shape = [rows, sizes.in_channels, sizes.height, sizes.width]
    return {"name": PREPARED, "dtype": "float32", "layout": "NCHW", "shape": shape} | image | scaling


def describe(classifier: Classifier, *, preprocessing: bool) -> str:
    """The same in one sentence, for people."""
    sizes, given = classifier.sizes, classifier.preprocessing
    fitted = f"scaled {given.rule}" if given.rule.size else f"scaled and cut ({given.rule})"
    if preprocessing:
        return (
            f"`{PIXELS}`: uint8 (batch, {sizes.height}, {sizes.width}, {sizes.in_channels}), RGB as an image file "
            f"decodes to, {fitted}; division by 255 and normalisation are inside"
        )
    how = f"(x/255 - mean)/std, mean {list(given.mean)}, std {list(given.std)}"
    return (
        f"`{PREPARED}`: float32 (batch, {sizes.in_channels}, {sizes.height}, {sizes.width}), RGB, "
        f"{fitted}, {how if given.normalize else 'x/255'}"
    )
