"""An ONNX file in integers of 8 bits: calibrated on training images, and measured on test images beside fp32.

ONNX Runtime's static quantisation: weights of convolutions and matrix products become int8, one scale for each output
channel; activations become int8 between the smallest and the largest value that they had for the calibration images.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from zoo.base.text import plural
from zoo.data.batches.open import open_source
from zoo.data.batches.resident import order
from zoo.data.split import Split
from zoo.evaluate.classifier import Classifier
from zoo.export.facts import PIXELS, Takes
from zoo.export.graph import ExportError, Pixels, first
from zoo.export.onnx_file import runner

BATCH = 64
INT8: Final = "weights and activations, calibrated on training images"
"""What the metadata of such a file say."""

CALIBRATION: Final = 512
ToleranceTop1: Final = 0.01


@dataclass(frozen=True)
class Int8Images:
    """What a file in integers is calibrated and measured on.

    Attributes:
        train, test: the splits of the run. calibration: how many training images, drawn by chance, always the same.
        tolerance: how much of its top-1 accuracy (a fraction) the file may lose.
    """

    train: Split
    test: Split
    calibration: int = CALIBRATION
    tolerance: float = ToleranceTop1


@dataclass(frozen=True)
class Quantized:
    """What integers cost.

    Attributes:
        fp32_top1, int8_top1: accuracy of both files on the same test images, one view each; fractions.
        images: how many test images. same: of how many both files name the same class.
        calibration: how many training images the scales are from. fp32_bytes: size of the file before.
    """

    fp32_top1: float
    int8_top1: float
    images: int
    same: int
    calibration: int
    fp32_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def facts(self) -> dict[str, str]:
        """What the file says of it, beside what its run was measured with."""
        return {"zoo.int8": INT8, "zoo.int8_top1": f"{self.int8_top1:.6f}"}


def quantize(path: Path, classifier: Classifier, given: Int8Images, takes: Takes) -> Quantized:
    """Replace an ONNX file by one in integers that classifies the test images nearly as well.

    Args:
        path: the file in fp32, with its weights inside. takes: its input.
    Raises:
        ExportError: ONNX Runtime cannot quantise it, or too much accuracy is lost; says how much.
    """
    integers = path.with_name(f"int8-{path.name}")
    count = min(given.calibration, len(given.train))
    _write(path, integers, _fed(classifier, given.train, takes, rows=order(0, 0, len(given.train))[:count]))
    before, after = (_classes(file, classifier, given.test, takes) for file in (path, integers))
    labels = torch.tensor(given.test.labels)
    top1 = [float((found == labels).double().mean()) for found in (before, after)]
    done = Quantized(top1[0], top1[1], len(labels), int((before == after).sum()), count, path.stat().st_size)
    if done.fp32_top1 - done.int8_top1 > given.tolerance:
        raise ExportError(
            f"{classifier.name}: in int8 its top-1 falls from {top1[0]:.2%} to {top1[1]:.2%} on "
            f"{plural(done.images, 'test image')}; allowed is a loss of {given.tolerance:.2%} (--tolerance-top1); "
            "nothing was kept; try more --calibration images, or export it without --int8"
        )
    _note(integers, done.facts())
    integers.replace(path)
    return done


def _fed(classifier: Classifier, split: Split, takes: Takes, rows: Tensor | None = None) -> Iterator[Tensor]:
    """Batches of a split as the file takes them."""
    prepare = Pixels(classifier).prepare
    for _, images, _ in open_source(split).batches(BATCH, rows=rows):
        pixels = images.permute(0, 2, 3, 1).contiguous()
        yield pixels if takes == PIXELS else prepare(pixels).contiguous()


def _classes(path: Path, classifier: Classifier, split: Split, takes: Takes) -> Tensor:
    """The class that a file gives each image of a split: int64 (N,)."""
    run = runner(path)
    return torch.cat([run(batch).argmax(1) for batch in _fed(classifier, split, takes)])


def _write(path: Path, output: Path, batches: Iterator[Tensor]) -> None:
    onnx = importlib.import_module("onnx")
    quantization = importlib.import_module("onnxruntime.quantization")
    shapes = importlib.import_module("onnxruntime.quantization.shape_inference")
    ready = path.with_name(f"ready-{path.name}")
    kept = onnx.load(str(path), load_external_data=False)
    name = kept.graph.input[0].name
    try:
        with _quiet():
            shapes.quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(ready),
                str(output),
                _Reader(name, batches),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        _name_as(onnx, output, kept)
    except Exception as error:  # the library raises nearly anything
        raise ExportError(f"ONNX Runtime cannot quantise this model: {first(error)}; leave out --int8") from error
    finally:
        ready.unlink(missing_ok=True)


class _Reader:
    """Batches, as ONNX Runtime's calibration asks for them."""

    def __init__(self, name: str, batches: Iterator[Tensor]) -> None:
        self.name, self.batches = name, batches

    def get_next(self) -> dict[str, Any] | None:
        """The next one; None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch.numpy()}


def _name_as(onnx: Any, path: Path, kept: Any) -> None:
    """Give the file the names and the metadata of the one that it was made from, which the library leaves out."""
    model = onnx.load(str(path))
    model.producer_name, model.producer_version = kept.producer_name, kept.producer_version
    model.doc_string, model.graph.name = kept.doc_string, kept.graph.name
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in kept.metadata_props})
    onnx.save(model, str(path))


def _note(path: Path, facts: Mapping[str, str]) -> None:
    """Write more into the metadata of a file."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(str(path))
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's advice, which is not the user's to follow."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
