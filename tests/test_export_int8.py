"""`zoo export --int8`: a file in integers, measured beside fp32 on the run's test images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from hub_server.runs import own_caches, untrained_run

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.data.load import load
from zoo.errors import InputError
from zoo.evaluate.opened import open_run
from zoo.export.graph import ExportError
from zoo.export.int8 import Int8Images
from zoo.export.write import export
from zoo.models.precision import usual_torch

RUN = "hybrid-alt-1@digits"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tmp_path_factory.mktemp("int8")
    with own_caches(base):
        yield zoo.export(RUN, base / "small.onnx", int8=True, with_preprocessing=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of a small network."""
    base = tmp_path_factory.mktemp("small")
    with own_caches(base):
        yield untrained_run(base / "run", model="cnn-baseline", limit_train=64, limit_test=100)


def top1(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    return float((logits.argmax(1) == labels).mean())


def test_the_file_has_the_accuracy_that_is_said_of_it(made: Any) -> None:
    test = load("digits", load_registry()).test
    images = np.ascontiguousarray(np.asarray(test.images).transpose(0, 2, 3, 1))
    assert top1(made.path, images, test.labels) == pytest.approx(made.quantized.int8_top1)
    assert made.quantized.fp32_top1 == pytest.approx(zoo.evaluate(RUN).top1, abs=0.006)
    assert made.quantized.images == len(test.labels)
    assert made.quantized.fp32_top1 - made.quantized.int8_top1 <= 0.01


def test_the_file_holds_integers_and_is_smaller(made: Any) -> None:
    model = onnx.load(str(made.path))
    kinds = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    large = [t for t in model.graph.initializer if np.prod(t.dims) > 5000]
    assert large
    assert all(t.data_type == onnx.TensorProto.INT8 for t in large)
    assert made.bytes == made.path.stat().st_size < made.quantized.fp32_bytes / 2


def test_the_metadata_and_names_are_those_of_the_file_in_floats(small: Path, tmp_path: Path) -> None:
    floats = zoo.export(small, tmp_path / "floats.onnx", with_preprocessing=True, check=False)
    integers = zoo.export(small, tmp_path / "small.onnx", with_preprocessing=True, int8=True, tolerance_top1=1)
    models = [onnx.load(str(path)) for path in (floats.path, integers.path)]
    told = [{entry.key: entry.value for entry in model.metadata_props} for model in models]
    assert "calibrated on training images" in told[1].pop("zoo.int8")
    assert float(told[1].pop("zoo.int8_top1")) == pytest.approx(integers.quantized.int8_top1, abs=1e-6)
    assert told[0] == told[1]
    assert [value.name for value in models[1].graph.input] == ["pixels"]
    assert [value.name for value in models[1].graph.output] == ["logits"]
    beside = json.loads(integers.path.with_name("small.onnx.json").read_text())
    assert beside["input"]["name"] == "pixels"
    assert "calibrated" in beside["int8"]
    assert float(beside["int8_top1"]) == pytest.approx(integers.quantized.int8_top1, abs=1e-6)


def test_any_number_of_images_passes(made: Any) -> None:
    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        (logits,) = session.run(None, {"pixels": np.zeros((count, 8, 8, 3), np.uint8)})
        assert logits.shape == (count, 10)


def test_a_file_that_loses_too_much_is_not_kept(small: Path, tmp_path: Path) -> None:
    opened = open_run(small, registry=load_registry())
    wanted = Int8Images(opened.images, opened.images, 8, tolerance=-1.0)
    said = r"in int8 its top-1 falls from \d+\.\d+% to .* on 100 test images; allowed is a loss of -100.00%"
    with usual_torch(), pytest.raises(ExportError, match=said):
        export(opened.classifier, tmp_path / "a.onnx", int8=wanted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "torch"}, "--int8 writes ONNX, not --format torch"),
        ({"tolerance_top1": 2}, "--tolerance-top1 2: allowed: a fraction from 0 to 1"),
        ({"calibration": 0}, "calibration 0: allowed: at least 1"),
        ({"int8": False, "calibration": 64}, "--calibration and --tolerance-top1 are for --int8"),
        ({"int8": False, "dataset": "digits"}, "--dataset and --data-dir need --int8"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        zoo.export(RUN, **{"int8": True, **options})


def test_a_model_without_a_run_has_no_images_to_calibrate_on() -> None:
    with pytest.raises(InputError, match="which --untrained has not"):
        zoo.export("cnn-baseline", untrained=True, int8=True)


def test_the_command_says_both_accuracies(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    words = ["export", str(small), "--int8", "--calibration", "16", "--tolerance-top1", "1", "--output", str(file)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.stderr
    assert "int8: top-1 " in done.stderr
    assert "100 test images" in done.stderr
    assert "in fp32 it differs from torch by" in done.stderr
    assert done.stdout.strip() == str(file)
