"""What other runtimes read of a package: `onnx/model.onnx`, `preprocessor_config.json`, and keys of `config.json`.

The graph takes what an image file decodes to, as floats of 0 to 255, and does the rest itself. So the processor's file
says how an image is scaled and cut, and that nothing else is done to it: no runtime can normalise it twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import torch
from PIL import Image

from zoo.base.files import write_bytes
from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.data.batches.open import open_source
from zoo.errors import InputError, PackageError
from zoo.evaluate.classifier import open_classifier
from zoo.evaluate.preparing import Preprocessing
from zoo.export import onnx_file
from zoo.export.agree import Tolerance, judged
from zoo.export.facts import PIXEL_VALUES, origin_of
from zoo.export.graph import ExportError
from zoo.export.write import export
from zoo.hub.sums import ONNX, PROCESSOR
from zoo.models.precision import usual_torch
from zoo.runs.record import RunRecord, Sizes

if TYPE_CHECKING:
    from zoo.evaluate.opened import OpenedSplit

JS_TYPE: Final = "mobilenet_v4"
"""The `model_type` of `config.json`. transformers.js knows no model of ours, and runs one of this type as we need it:
`pixel_values` in, `logits` out. Python's transformers has no such type: it refuses the package, and does not load
our weights into a model of another kind."""

COMPARED: Final = 64
"""Test images, spread over the split, on which the graph is compared with the weights."""


def check_libraries() -> None:
    """Refuse early, before anything is measured.

    Raises:
        InputError: a library that writes or runs ONNX is missing.
    """
    if missing := onnx_file.missing_libraries():
        raise InputError(f"{ONNX}: {missing}; or leave out --onnx")


def write_runtimes(folder: Path, record: RunRecord, registry: Registry) -> None:
    """Add the graph and the processor's file to a package whose record, result and weights are in `folder`.

    Raises:
        ExportError: the model cannot be exported, or the file does not agree. PackageError: too large for one file.
    """
    path = folder / ONNX
    with usual_torch():
        classifier = open_classifier(folder, registry, record=record)
        done = export(classifier, path, origin=origin_of(folder, record), takes=PIXEL_VALUES)
    for beside in set(done.files) - {path}:
        if beside.suffix != ".json":
            raise PackageError(f"{path}: the weights are too large for one file of ONNX; leave out --onnx")
        beside.unlink()  # the same is in the file's metadata
    table = processor_table(classifier.preprocessing, record.sizes)
    write_bytes(folder / PROCESSOR, msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")


def config_keys(classes: Sequence[str], *, several: bool = False) -> dict[str, Any]:
    """The keys of `config.json` that transformers.js reads: the classes, how to run it, and which file is there."""
    return {
        "model_type": JS_TYPE,
        "id2label": {str(row): name for row, name in enumerate(classes)},
        "label2id": {name: row for row, name in enumerate(classes)},
        "transformers.js_config": {"dtype": "fp32"},  # in browsers it would look for a quantized file
        **({"problem_type": "multi_label_classification"} if several else {}),
    }


def processor_table(given: Preprocessing, sizes: Sizes) -> dict[str, Any]:
    """`preprocessor_config.json`, as transformers and transformers.js read it."""
    rule = given.rule
    is_whole = rule.squash or not rule.resize  # both sides are given, and not the shorter one alone
    table: dict[str, Any] = {
        "image_processor_type": "ViTImageProcessor" if rule.size else "CLIPImageProcessor",
        "do_convert_rgb": sizes.in_channels == 3,
        "do_resize": bool(rule.size or rule.resize),
        "resample": int(Image.Resampling[rule.interpolation.upper()]),
        "size": _both(rule.resize or sizes.height, rule.resize or sizes.width)
        if is_whole
        else {"shortest_edge": rule.resize},
        "do_center_crop": bool(rule.crop),
        "do_rescale": False,
        "rescale_factor": 1.0,
        "do_normalize": False,
        "image_mean": [0.0] * sizes.in_channels,
        "image_std": [1.0] * sizes.in_channels,
    }
    if rule.crop:
        table["crop_size"] = _both(rule.crop, rule.crop)
    return table


def _both(height: int, width: int) -> dict[str, int]:
    return {"height": height, "width": width}


def compare(folder: Path, opened: OpenedSplit) -> tuple[bool, str]:
    """Run a package's graph over some of the recorded test images, and compare it with the weights.

    Returns:
        Whether it gives the same classes and logits, and what was seen; holds where nothing here can run it.
    """
    if onnx_file.missing_libraries():
        return True, "not checked: needs onnx and onnxruntime (the extra `export`)"
    count = min(COMPARED, len(opened.images))
    chosen = opened.images.select(np.linspace(0, len(opened.images) - 1, count).astype(np.int64))
    pixels, _ = open_source(chosen).take(torch.arange(count))
    try:
        got = onnx_file.runner(folder / ONNX)(pixels.float())
    except ExportError as error:
        return False, str(error)
    wanted = opened.classifier.logits(pixels).cpu()
    if got.shape != wanted.shape:
        return False, f"gives {tuple(got.shape)} of {plural(count, 'image')}, the weights {tuple(wanted.shape)}"
    found = judged([(wanted.double(), got.double())], (count,))
    seen = f"same class for {found.same_top1} of {plural(count, 'test image')}, logits differ by {found.largest:.1e}"
    return found.within(_allowed(opened)), seen


def _allowed(opened: OpenedSplit) -> float:
    """The largest difference of a logit: what exports may differ by, ten times that where a GPU gave the others."""
    return Tolerance if opened.classifier.device.type == "cpu" else 10 * Tolerance
