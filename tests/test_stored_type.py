"""Packages in 16 bits: half the bytes, the numbers of the stored weights, and no other mixture of types is opened."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from click.testing import CliRunner
from hub_server.runs import own_caches
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import InputError, PackageError, RunError
from zoo.evaluate.opened import open_run
from zoo.hub.package import open_package
from zoo.hub.storage import AS_TRAINED, allowed_loss, narrowed
from zoo.hub.sums import CARD, CONFIG, SUMS, write_sums
from zoo.models.header import STORED_KEY, read_header
from zoo.models.precision import DTYPES
from zoo.models.tensors import to_bytes
from zoo.runs.folder import read_result, write_result
from zoo.runs.record import WEIGHTS, read_record
from zoo.train.plan import resolve
from zoo.train.pretrained import find_weights, with_weights
from zoo.train.run_options import Request
from zoo.train.runner import Watch, train_in

FEW = {"dataset": "digits", "device": "cpu", "limit_train": 400}
MODEL, LAST, BIAS = "cnn-baseline-bn", "1.5.weight", "1.5.bias"
SIXTEEN = {"fp16": "F16", "bf16": "BF16"}

ADDED = (AS_TRAINED, "stored", "test_images_sha256")
"""What a package's result may have besides that of its run."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of a model with batch norm: its package in fp16 is in it, that in bf16 beside it."""
    folder = tmp_path_factory.mktemp("stored")
    with own_caches(folder):
        settings = ("lr=0.01", "batch_size=32")
        train_in(folder / "run", resolve(Request(model=MODEL, epochs=1, settings=settings, **FEW)), Watch())
        zoo.package(folder / "run", precision="fp16")
        zoo.package(folder / "run", folder / "bf16", precision="bf16")
    return folder / "run"


def package_of(run: Path, stored: str) -> Path:
    return run / "package" if stored == "fp16" else run.parent / stored


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The package in fp16."""
    shutil.copytree(run / "package", tmp_path / "copy")
    return tmp_path / "copy"


def changed(run: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """The run with other weights, whose numbers are measured."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("package", "checkpoints"))
    weights = load_file(to / WEIGHTS)
    change(weights)
    (to / WEIGHTS).write_bytes(to_bytes(weights, {"format": "pt"}))
    write_result(to, read_result(to) | {"test": open_run(to).measure().as_dict()})
    return to


@pytest.mark.parametrize("stored", SIXTEEN)
def test_half_the_bytes_with_the_numbers_of_what_is_stored(stored: str, run: Path) -> None:
    folder = package_of(run, stored)
    assert (folder / WEIGHTS).stat().st_size < 0.53 * (run / WEIGHTS).stat().st_size
    assert json.loads((folder / CONFIG).read_text())["zoo"]["stored"] == stored
    of_run, result = read_result(run), read_result(folder)
    parts = ("test", "validation")
    assert result[AS_TRAINED] == {"precision": "fp32", **{part: of_run[part] for part in parts}}
    for split, part in zip(("test", "val"), parts, strict=True):
        evaluation = zoo.evaluate(folder, split=split, device="cpu")  # type: ignore[arg-type]
        assert evaluation.same_as_recorded
        assert result[part]["loss"] == evaluation.loss != of_run[part]["loss"]
    assert zoo.verify(folder).holds
    assert {k: v for k, v in result.items() if k not in (*parts, *ADDED)} == {
        k: v for k, v in of_run.items() if k not in parts
    }


def test_weights_that_lose_too_many_images_are_not_packaged(run: Path, tmp_path: Path) -> None:
    """The last layer's weights are moved so far from 0 that their own digits do not fit."""

    def move(weights: dict[str, torch.Tensor]) -> None:
        weights[LAST] += 40

    moved = changed(run, tmp_path / "run", move)
    with pytest.raises(
        PackageError, match=r"in bf16, \d+ of 360 test images .* than the \d+ in fp32; 0 may be lost"
    ) as caught:
        zoo.package(moved, precision="bf16")
    assert "use --precision fp16 or --precision fp32" in str(caught.value)
    assert not (moved / "package").exists()


def test_every_number_is_that_of_the_stored_weights_and_the_card_has_the_former_too(run: Path, tmp_path: Path) -> None:
    """A bias that favours one class in fp32, and is rounded away in 16 bits."""

    def favour_one(weights: dict[str, torch.Tensor]) -> None:
        weights[BIAS] += 32_768
        weights[BIAS][0] += 15

    changed(run, tmp_path / "run", favour_one)
    folder = zoo.package(tmp_path / "run", precision="fp16")
    result, text = read_result(folder), (folder / CARD).read_text("utf-8")
    test, before = result["test"], read_result(tmp_path / "run")["test"]
    assert test["correct"] > before["correct"]
    assert ModelCard(text).data.eval_results[0].metric_value == test["top1"]  # type: ignore[index]
    assert f"Test top-1 **{test['top1']:.2%}** ({test['correct']} of 360)" in text
    assert f"before they were rounded, {before['correct']} test images were correct ({before['top1']:.2%})" in text
    assert f"| this package, stored in fp16 | {test['top1']:.2%} |" in text
    assert f"| as trained, in fp32 | {before['top1']:.2%} |" in text
    classes = re.findall(r"^\| \d \| (\d+) \| ([\d.]+)% \|", text, re.MULTILINE)
    assert sum(round(int(support) * float(recall) / 100) for support, recall in classes) == test["correct"]
    assert zoo.verify(folder).holds


@pytest.mark.parametrize(("count", "allowed"), [(360, 0), (1_999, 0), (2_000, 1), (10_000, 5), (26_032, 13)])
def test_five_of_ten_thousand_may_be_lost(count: int, allowed: int) -> None:
    assert allowed_loss(count) == allowed


@pytest.mark.parametrize("stored", SIXTEEN)
def test_parameters_are_rounded_and_buffers_are_not(stored: str, run: Path) -> None:
    folder = package_of(run, stored)
    trained, small = load_file(run / WEIGHTS), load_file(folder / WEIGHTS)
    module = zoo.load(folder).module
    parameters = {name for name, _ in module.named_parameters()}
    assert len(parameters) < len(trained) == len(small)
    for name, tensor in module.state_dict().items():
        dtype = dict(DTYPES)[stored] if name in parameters else trained[name].dtype
        assert small[name].dtype is dtype
        assert tensor.dtype is trained[name].dtype
        assert torch.equal(tensor, trained[name].to(dtype).to(trained[name].dtype))


def test_what_is_beyond_the_range_of_fp16_is_refused(run: Path, tmp_path: Path) -> None:
    def enlarge(weights: dict[str, torch.Tensor]) -> None:
        weights[BIAS] += 1e5

    large = changed(run, tmp_path / "run", enlarge)
    with pytest.raises(PackageError, match=rf"'{BIAS}' holds 100000, beyond the largest number of fp16 \(65504\)"):
        zoo.package(large, precision="fp16")


def test_16_bits_are_measured_or_not_made(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["package", str(run), "--precision", "fp16", "--no-predictions"])
    assert isinstance(done.exception, InputError)
    assert "leave out --no-predictions" in str(done.exception)
    with pytest.raises(InputError, match="allowed: "):
        zoo.package(run, tmp_path / "out", precision="int8")  # type: ignore[arg-type]


def test_weights_of_another_type_are_stored_as_they_are_or_not_at_all() -> None:
    module = torch.nn.Linear(2, 2).double()
    with pytest.raises(PackageError, match=r"'weight' is torch\.float64; only weights of fp32 can be stored in bf16"):
        narrowed(module.state_dict(), module, "bf16", Path(WEIGHTS))
    assert narrowed(module.state_dict(), module, "fp32", Path(WEIGHTS)) is not None


def test_a_package_in_16_bits_is_packaged_again_only_as_it_is(run: Path, tmp_path: Path) -> None:
    with own_caches(tmp_path):
        again = zoo.package(run / "package", tmp_path / "again")
        assert (again / SUMS).read_bytes() == (run / "package" / SUMS).read_bytes()
        for wanted in ("fp32", "bf16"):
            with pytest.raises(InputError, match="is a package that is stored in fp16, and what was rounded cannot"):
                zoo.package(again, tmp_path / "other", precision=wanted)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"is a package already, stored in fp16.*zoo package RUN --precision bf16"):
            zoo.publish(again, "me/digits", dry_run=True, precision="bf16")
        size = {row["name"]: row["bytes"] for row in zoo.publish(again, "me/x", dry_run=True, precision="fp16").files}
        sent = zoo.publish(run, "me/x", dry_run=True, precision="bf16")
    assert size[WEIGHTS] == (again / WEIGHTS).stat().st_size
    assert "| this package, stored in bf16 |" in sent.card


def test_a_run_is_verified_by_its_package_in_16_bits(run: Path, tmp_path: Path) -> None:
    assert zoo.verify(run).holds
    shutil.copytree(run, tmp_path / "run")
    result = read_result(tmp_path / "run")
    result["test"]["loss"] += 1
    write_result(tmp_path / "run", result)
    with pytest.raises(RunError, match="was made before the run's present result"):
        zoo.verify(tmp_path / "run")


@pytest.mark.parametrize("stored", SIXTEEN)
def test_training_begins_with_stored_weights_in_fp32(stored: str, run: Path) -> None:
    folder, registry = package_of(run, stored), load_registry()
    plan = with_weights(resolve(Request(model=MODEL, epochs=1, **FEW)), find_weights(str(folder), registry))
    assert plan.messages == ()
    assert plan.weights is not None
    assert plan.weights.keys() == load_file(run / WEIGHTS).keys()
    assert {t.dtype for t in plan.weights.values()} == {torch.float32, torch.int64}
    assert read_record(folder).base_model == ""


# ---- what is refused --------------------------------------------------------------------------


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> None:
    """Change the weights or their metadata and, as an attacker would, make the hashes agree."""
    weights = load_file(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = dict(file.metadata())
    change(weights, metadata)
    save_file(weights, folder / WEIGHTS, metadata)
    write_sums(folder)


def wide(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    weights[LAST] = weights[LAST].float()


def narrow_buffer(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    name = next(name for name in weights if name.endswith("running_var"))
    weights[name] = weights[name].half()


def other_type(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    weights |= {name: t.bfloat16() for name, t in weights.items() if t.dtype is torch.float16}


def says_other(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata[STORED_KEY] = "bf16"


def says_nothing(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    del metadata[STORED_KEY]


def says_unknown(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    metadata[STORED_KEY] = "fp32"


@pytest.mark.parametrize(
    "change", [wide, narrow_buffer, other_type, says_other, says_nothing, says_unknown], ids=lambda f: f.__name__
)
def test_any_other_mixture_is_refused(change: Any, copy: Path) -> None:
    rewritten(copy, change)
    with pytest.raises(PackageError, match=r"does not fit its model|is stored in|unknown number type"):
        open_package(copy, registry=load_registry())
    with pytest.raises(PackageError):
        zoo.load(copy)
    (copy / SUMS).unlink()  # a run folder, whose config nobody reads
    if change is not says_other:
        with pytest.raises(RunError):
            zoo.load(copy)


@pytest.mark.parametrize("stored", [None, "bf16", "int8"])
def test_the_config_and_the_weights_must_say_the_same(stored: str | None, copy: Path) -> None:
    table = json.loads((copy / CONFIG).read_text())
    table["zoo"] = {k: v for k, v in (table["zoo"] | {"stored": stored}).items() if v is not None}
    (copy / CONFIG).write_text(json.dumps(table))
    write_sums(copy)
    with pytest.raises(PackageError, match=r"is stored in fp16, but config\.json says|is damaged"):
        open_package(copy, registry=load_registry())


def test_a_package_as_the_run_has_its_weights_says_nothing_of_it(run: Path, tmp_path: Path) -> None:
    """Such as those of earlier versions."""
    with own_caches(tmp_path):
        folder = zoo.package(run, tmp_path / "plain", precision="fp32")
        opened = open_package(folder, registry=load_registry())
    assert opened.config.stored is msgspec.UNSET
    assert "stored" not in (folder / CONFIG).read_text()
    assert STORED_KEY not in read_header(folder / WEIGHTS).metadata
    assert {k: v for k, v in read_result(folder).items() if k not in ADDED} == read_result(run)
