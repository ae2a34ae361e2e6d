"""`zoo export`: what is written gives torch's logits, says what it takes, and holds nothing of this machine."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from hub_server.runs import own_caches, untrained_run
from torch import Tensor, nn

from benchmarks.export_survey import build, examine, published
from zoo.base.install import install_line
from zoo.catalogue.registry import find_model, load_registry
from zoo.cli import cli
from zoo.data.files.colours import Colours
from zoo.data.files.decode import Rule
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier, Preprocessing, open_classifier, untrained_classifier
from zoo.export.facts import Takes, describe, input_facts
from zoo.export.graph import ExportError, Pixels
from zoo.export.write import export
from zoo.hub.pack import package
from zoo.plugin import Transform
from zoo.runs.folder import read_result
from zoo.runs.images import split_of
from zoo.runs.record import Sizes, read_record, write_record

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4
QUICK = ("cnn-baseline-bn-dropout",)
"""These are in every run of the tests; the others are for `pytest -m slow`."""

MODELS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in published(load_registry())]
SMALL = Sizes(in_channels=3, height=8, width=8, num_classes=4)


def small(name: str, module: nn.Module) -> Classifier:
    """A model of 8x8 images that comes from nowhere."""
    preprocessing = Preprocessing(Rule(size=(8, 8)))
    return Classifier(name=name, module=module.eval(), sizes=SMALL, preprocessing=preprocessing)


def opened(folder: Path) -> Classifier:
    return open_classifier(folder, load_registry())


def zoo(*words: str) -> Result:
    return CliRunner().invoke(cli, ["export", *words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("export")
    with own_caches(base):
        yield untrained_run(base / "run", model="cnn-baseline", limit_train=64, limit_test=100)


@pytest.fixture(scope="module")
def pixels_file(folder: Path) -> Path:
    done = zoo(str(folder), "--with-preprocessing")
    assert done.exit_code == 0, done.stderr
    assert "differs from torch by" in done.stderr
    return Path(done.stdout.strip())


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


# ---- the file and its run --------------------------------------------------------------------


def test_a_file_with_preprocessing_takes_bytes_and_gives_the_recorded_test_result(
    folder: Path, pixels_file: Path
) -> None:
    split = split_of(read_record(folder), "test", load_registry())
    images = np.ascontiguousarray(np.asarray(split.images).transpose(0, 2, 3, 1))
    (logits,) = session(pixels_file).run(None, {"pixels": images})
    recorded = read_result(folder)["test"]
    assert int((logits.argmax(1) == split.labels).sum()) == recorded["correct"]
    assert len(logits) == recorded["count"] == 100
    assert pixels_file == folder / "model.onnx"


@pytest.mark.parametrize("count", [1, 3, 17])
def test_any_number_of_images_goes_through_at_once(folder: Path, pixels_file: Path, count: int) -> None:
    target = opened(folder)
    pixels = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8)
    (logits,) = session(pixels_file).run(["logits"], {"pixels": pixels.numpy()})
    with torch.inference_mode():
        wanted = Pixels(target)(pixels)
    assert np.abs(logits - wanted.numpy()).max() < TOLERANCE


def test_the_file_says_what_it_takes_and_where_it_comes_from(folder: Path, pixels_file: Path) -> None:
    model = onnx.load(pixels_file)
    said = {p.key: p.value for p in model.metadata_props}
    takes, record = json.loads(said["zoo.input"]), read_record(folder)
    assert takes["name"] == model.graph.input[0].name == "pixels"
    assert (takes["dtype"], takes["layout"], takes["shape"]) == ("uint8", "NHWC", ["batch", 8, 8, 3])
    assert takes["inside"]["normalize"]["mean"] == list(record.data.mean)
    assert json.loads(said["zoo.classes"]) == list("0123456789")
    assert said["zoo.model"] == "cnn-baseline"
    assert said["zoo.dataset"] == "sklearn:digits"
    assert float(said["zoo.test_top1"]) == pytest.approx(read_result(folder)["test"]["top1"], abs=1e-6)
    batch = [t.type.tensor_type.shape.dim[0].dim_param for t in (model.graph.input[0], model.graph.output[0])]
    assert batch == ["batch", "batch"]
    assert model.producer_name == "hybrid-zoo"


def test_the_same_stands_in_a_json_file_beside_it(folder: Path, pixels_file: Path) -> None:
    table = json.loads(pixels_file.with_name("model.onnx.json").read_text("utf-8"))
    said = {p.key: p.value for p in onnx.load(pixels_file).metadata_props}
    assert {f"zoo.{key}" for key in table} == said.keys() | {"zoo.usage"}
    for key in ("input", "output", "classes"):
        assert table[key] == json.loads(said[f"zoo.{key}"])
    assert table["usage"].startswith("`pixels`: uint8 (batch, 8, 8, 3)")


def test_the_file_says_how_images_are_scaled_and_cut(folder: Path, tmp_path: Path) -> None:
    assert input_facts(opened(folder), takes="pixels", batch=None)["resize"].startswith("to 8x8, bilinear;")
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    record = read_record(cut)
    transform = Transform(size=(8, 8), resize=12, interpolation="bicubic")
    data = msgspec.structs.replace(record.data, transform=transform)
    write_record(cut, msgspec.structs.replace(record, data=data))
    target = opened(cut)
    wanted = "the shorter side to 12, bicubic, then a centred square of 8"
    assert input_facts(target, takes="images", batch=None)["resize"].startswith(wanted)
    assert wanted in describe(target, takes="pixels")
    untrained = untrained_classifier(*find_model("mixer-s32"))
    assert str(untrained.preprocessing.rule) == "the shorter side to 256, bilinear, then a centred square of 224"


def test_the_file_says_what_is_done_to_an_image_before_it_is_scaled(folder: Path) -> None:
    target = opened(folder)
    plain = input_facts(target, takes="pixels", batch=None)
    assert plain["orientation"].startswith("upright")
    assert (plain["background"], "deep" in plain) == ("white", False)
    rule = replace(target.preprocessing.rule, colours=Colours(white=4095.0, background="black", black=64.0))
    target.preprocessing = replace(target.preprocessing, rule=rule)
    kinds: tuple[Takes, ...] = ("images", "pixels", "pixel_values")
    for takes in kinds:
        deep = input_facts(target, takes=takes, batch=None)
        assert (deep["background"], deep["deep"]) == ("black", {"black": 64.0, "white": 4095.0})
        assert "values of more than 8 bits brought from 64..4095 to 0..255, scaled to 8x8" in describe(
            target, takes=takes
        )


def test_no_path_of_this_machine_is_in_the_file(pixels_file: Path) -> None:
    content = pixels_file.read_bytes()
    assert len(content) > 1000
    for secret in (ROOT, Path.home(), Path(sys.prefix), Path(torch.__file__).parent):
        assert str(secret).encode() not in content


def test_a_torch_program_is_loaded_without_us_and_gives_the_same(folder: Path, tmp_path: Path) -> None:
    done = zoo(str(folder), "--format", "torch", "--output", str(tmp_path / "a.pt2"), "--json")
    assert done.exit_code == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["agreement"]["largest"] <= TOLERANCE
    extra = {"zoo.json": ""}
    program = torch.export.load(tmp_path / "a.pt2", extra_files=extra)
    assert json.loads(extra["zoo.json"]) == row["metadata"]
    assert json.loads(row["metadata"]["zoo.input"])["normalize"] is not None
    images = torch.randn(6, 3, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(program.module()(images), opened(folder).module(images), atol=1e-6)
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert str(ROOT).encode() not in everything
    assert str(sys.prefix).encode() not in everything


def test_a_fixed_batch_and_an_opset_are_kept(tmp_path: Path) -> None:
    target = small("small", nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    path = tmp_path / "two.onnx"
    assert export(target, path, batch=2, opset=18).opset == 18
    assert {o.domain: o.version for o in onnx.load(path).opset_import}[""] == 18
    loaded = session(path)
    assert loaded.get_inputs()[0].shape == [2, 3, 8, 8]
    with pytest.raises(Exception, match="Got invalid dimensions"):
        loaded.run(None, {"images": np.zeros((3, 3, 8, 8), np.float32)})


def test_a_package_stays_as_its_hashes_say(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = package(folder, tmp_path / "package", predictions=False).folder
    before = sorted(p.name for p in made.iterdir())
    assert "zoo export hf://" in (made / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    done = zoo(str(made), "--format", "torch")
    assert done.stdout.strip() == "cnn-baseline.pt2", done.stderr
    assert (tmp_path / "cnn-baseline.pt2").is_file()
    assert sorted(p.name for p in made.iterdir()) == before


# ---- what cannot be exported ------------------------------------------------------------------


class Two(nn.Module):
    """Does something else while it is traced, as code that asks for the tracer does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear(x.mean((2, 3)))
        return out + 0.01 if torch.compiler.is_exporting() else out


class Looking(Two):
    """Asks for values, which no graph has."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3))) if float(x.sum()) > 0 else self.linear(x.amax((2, 3)))


def test_a_file_that_does_not_agree_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "two.pt2"
    path.write_text("before")
    target = small("two", Two())
    with pytest.raises(ExportError, match=r"differ from torch's by up to 1\.00e-02.*nothing was kept"):
        export(target, path, format="torch")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["two.pt2"]
    done = export(target, path, format="torch", check=False)
    assert done.agreement is None
    assert path.read_bytes()[:2] == b"PK"


def test_a_model_that_cannot_be_traced_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"looking: cannot be traced by torch\.export: ") as caught:
        export(small("looking", Looking()), tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_one_line_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = zoo("cnn-baseline", "--untrained", "--output", str(tmp_path / "a.onnx"))
    assert isinstance(done.exception, InputError)
    assert f"ONNX needs onnxscript: {install_line('export')}" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("hybrid-alt-2",), "is a model, not a run; zoo export hybrid-alt-2 --untrained"),
        (("hybrid-alt-1", "--untrained", "--opset", "5"), "--opset 5: torch's exporter and this onnx know 18 to"),
        (("hybrid-alt-1", "--untrained", "--output", "a.bin"), "a file of format onnx ends in .onnx"),
        (("hybrid-alt-1", "--untrained", "--output", "."), "is a folder; name a file"),
        (("a", "--format", "torch", "--opset", "20"), "--opset is ONNX's"),
        (("a", "--seed", "3"), "need --untrained"),
        (("a", "--batch", "0"), "'0' is no number of images; give 1 or more, or dynamic"),
        (("nowhere",), "no run folder"),
        (("hybrid-alt-9", "--untrained"), "did you mean hybrid-alt-"),
    ],
)
def test_wrong_input_is_one_line(words: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(cli, ["export", *words], standalone_mode=False)
    assert message in str(done.exception)


# ---- every published model --------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_at_its_native_size_agrees_as_onnx(name: str, tmp_path: Path) -> None:
    row = examine(build(name, load_registry()), folder=tmp_path)
    assert row["built"] == "whole"
    assert row["max_abs_difference"] <= TOLERANCE
    assert row["std_of_logits"] > 1e-4, "it says the same of every image"


def test_the_kept_record_holds_every_published_model_and_all_agree() -> None:
    record = json.loads((ROOT / "results" / "export.json").read_text())
    rows = {row["model"]: row for row in record["rows"]}
    registry = load_registry()
    assert set(rows) == set(published(registry))
    for name, row in rows.items():
        assert row["built"] == "whole", name
        assert row["parameters"] == registry.model(name).parameters, name
        assert row["max_abs_difference"] <= TOLERANCE, name
        assert row["std_of_logits"] > 1e-4, name
        assert row["std_of_logits"] > 100 * row["max_abs_difference"], name
    assert "dirty" not in record["commit"]


def test_of_a_model_too_large_a_few_layers_are_built_and_the_row_says_so() -> None:
    built = build("mixer-s8-32", load_registry(), largest=1_000_000)
    assert built.note == "2 layers instead of all"
    assert built.classifier.parameter_count < 16_986_762 / 3
    assert built.classifier.sizes.height == 32


def test_untrained_weights_are_those_of_their_seed_and_touch_no_other_randomness() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one, two, other = (untrained_classifier(*find_model("cnn-baseline"), seed=seed).module for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), wanted)
    first = [next(m.parameters()) for m in (one, two, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
