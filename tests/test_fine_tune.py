"""Fine-tuning: weights by a reference, layer-wise rates, frozen parts, and what the Hub has to do with it."""

from __future__ import annotations

import io
import json
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from hub_server import HubServer
from hub_server.runs import own_caches
from hub_server.worker import Worker
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from zoo.catalogue.registry import load_registry
from zoo.errors import InputError
from zoo.models.api import create
from zoo.models.tensors import to_bytes
from zoo.plugin import Pretrained, Transform
from zoo.runs.folder import read_result, read_weights
from zoo.runs.record import CHECKPOINTS, RunRecord, read_record, write_record
from zoo.train import checkpoint
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.plan import Plan
from zoo.train.pretrained import find_weights, rows_by_name
from zoo.train.run_options import Request
from zoo.train.start import plan_of, resumed

MODEL = "timm/test_resnet"
SAME = ("augment=[]", "layer_decay=1.0", "lr=1e-3", "batch_size=32", "warmup_epochs=0.1")
STEPS = 12


def write_digits(folder: Path) -> None:
    """Two datasets of real images: the digits 0 to 5 (`low`) and 6 to 9 (`high`)."""
    digits = load_digits()
    for n, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("low" if label < 6 else "high") / ("test" if n % 5 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9375).astype(np.uint8)).save(place / f"{n}.png", compress_level=0)


def request(spec: str, recipe: str = "fine-tune", *settings: str, **more: Any) -> Request:
    return Request(
        **{"model": MODEL, "image_size": 16, "device": "cpu", **more},
        dataset=spec,
        recipe=recipe,
        settings=(*SAME, *settings),
    )


def trainer(plan: Plan, folder: Path, **more: Any) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, plan.record)
    return Trainer(plan, folder, **more)


class Runs(NamedTuple):
    """What was trained once for all tests: on the low digits, and from there on the high ones."""

    folder: Path
    results: dict[str, dict[str, Any]]

    def weights(self, name: str) -> dict[str, Tensor]:
        return read_weights(self.folder / name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("fine-tune")
    write_digits(folder)
    torch.set_num_threads(1)
    with own_caches(folder):
        low = str(folder / "base")
        high = f"folder:{folder / 'high'}"
        plans = {
            "base": lambda: plan_of(request(f"folder:{folder / 'low'}", "default", epochs=5)),
            "scratch": lambda: plan_of(request(high, max_steps=STEPS)),
            "full": lambda: plan_of(request(high, max_steps=STEPS, weights=low)),
            "head": lambda: plan_of(request(high, "head-only", "lr=2e-2", max_steps=STEPS, weights=low)),
        }
        yield Runs(folder, {name: trainer(make(), folder / name).fit() for name, make in plans.items()})


# ---- transfer -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_of_other_digits_are_better_than_none_at_equal_steps(runs: Runs) -> None:
    top1 = {name: result["test"]["top1"] for name, result in runs.results.items()}
    assert min(top1["full"], top1["head"]) > top1["scratch"] + 0.1
    assert {result["train"]["steps"] for name, result in runs.results.items() if name != "base"} == {STEPS}


def test_a_frozen_backbone_stays_as_it_was_with_its_statistics(runs: Runs) -> None:
    base, head, full = (runs.weights(name) for name in ("base", "head", "full"))
    assert {name for name in head if not torch.equal(head[name], base[name])} == {"fc.weight", "fc.bias"}
    assert head["fc.bias"].shape != base["fc.bias"].shape
    assert any(not torch.equal(full[name], base[name]) for name in full if "running_mean" in name)


def test_a_component_of_another_version_than_the_weights_were_trained_with_is_said(runs: Runs, tmp_path: Path) -> None:
    """Its code or its defaults may have changed, and the tensors fit all the same."""
    shutil.copytree(runs.folder / "base", tmp_path / "old")
    record = read_record(tmp_path / "old")
    plugins = {**record.plugins, "timm.model": "zoo-waves 1.0"}
    write_record(tmp_path / "old", msgspec.structs.replace(record, plugins=plugins))
    high = f"folder:{runs.folder / 'high'}"
    said = {
        name: plan_of(request(high, max_steps=1, weights=str(at / name))).messages
        for name, at in (("old", tmp_path), ("base", runs.folder))
    }
    assert any("timm.model: from hybrid-zoo" in line and "from zoo-waves 1.0 before" in line for line in said["old"])
    assert not any("before" in line for line in said["base"])


def test_the_run_records_what_it_began_with(runs: Runs) -> None:
    record = read_record(runs.folder / "full")
    assert record.base_model == f"sha256:{record.base_sha256}"
    assert len(record.base_sha256) == 64
    base = read_record(runs.folder / "base")
    assert (record.data.mean, record.data.std) == (base.data.mean, base.data.std)


def parquet_of(folder: Path, names: list[str]) -> str:
    """The low digits as parquet files, their classes in the order of `names`; of each class few images."""
    bytes_of = pa.struct([("bytes", pa.binary())])
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    digits = load_digits()
    for side, rows in (("train", range(120)), ("test", range(120, 180))):
        kept = [row for row in rows if digits.target[row] < 6]
        encoded = []
        for row in kept:
            stream = io.BytesIO()
            Image.fromarray((digits.images[row] * 15.9375).astype(np.uint8)).save(stream, "PNG")
            encoded.append({"bytes": stream.getvalue()})
        labels = [names.index(str(digits.target[row])) for row in kept]
        table = pa.table({"image": pa.array(encoded, bytes_of), "label": labels})
        pq.write_table(table.replace_schema_metadata(metadata), folder / f"{side}.parquet")
    return f"parquet:{folder}"


def test_a_head_follows_the_names_of_classes_in_another_order(runs: Runs, tmp_path: Path) -> None:
    names = list("304152")
    plan = plan_of(request(parquet_of(tmp_path, names), weights=str(runs.folder / "base")))
    assert "in another order: the last layer's weights follow their names" in plan.messages[-1]
    base = runs.weights("base")
    order = [int(name) for name in names]
    assert torch.equal(plan.weights["fc.weight"], base["fc.weight"][order])
    assert torch.equal(plan.weights["fc.bias"], base["fc.bias"][order])
    assert all(torch.equal(tensor, base[name]) for name, tensor in plan.weights.items() if "fc" not in name)


@pytest.mark.parametrize(
    ("before", "now", "rows", "line"),
    [
        (("a", "b"), ("a", "b"), None, ""),
        (("a", "b", "c"), ("b", "c", "d"), [1, 2, 0], "1 class of 3 had no such name in W (d)"),
        (("a", "b"), ("x", "y"), None, "2 classes of 2 had no such name in W (x, y)"),
        (("a", "b"), ("b", "a", "c"), None, "W tells 2 classes apart, this dataset has 3 (2 of the same name)"),
        (("a", "a"), ("a", "b"), None, ""),
        ((), ("a", "b"), None, ""),
    ],
)
def test_classes_begin_as_those_of_their_names(
    before: tuple[str, ...], now: tuple[str, ...], rows: list[int] | None, line: str
) -> None:
    moved, said = rows_by_name(before, now, "W")
    assert moved == rows
    assert line in said
    assert bool(line) == bool(said)


def test_optimizer_state_and_gradients_are_of_what_trains_alone(runs: Runs, tmp_path: Path) -> None:
    plan = plan_of(request(f"folder:{runs.folder / 'high'}", "head-only", weights=str(runs.folder / "base")))
    made = trainer(plan, tmp_path / "run")
    made.total = 2
    made.fit()
    assert {name for name, p in made.module.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    assert len(made.optimizer.state) == 2
    norms = [m for m in made.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(('freeze=["conv1.*", "bn1.*"]', "layer_decay=0.8", "ema=0.9"), id="patterns and rates"),
        pytest.param(("freeze=backbone",), id="head-only", marks=pytest.mark.slow),
        pytest.param(("freeze=all-but-last",), id="all-but-last", marks=pytest.mark.slow),
        pytest.param(("layer_decay=0.7", "optimizer=nesterov"), id="rates", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits_without_its_first_weights(
    settings: tuple[str, ...], runs: Runs, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    few = {"max_steps": 5, "limit_train": 100, "limit_test": 20, "weights": str(base)}
    asked = request(f"folder:{runs.folder / 'high'}", "fine-tune", *settings, **few)
    base.symlink_to(runs.folder / "base")
    whole = trainer(plan_of(asked), tmp_path / "whole")
    expected = whole.fit()
    steps = iter(range(100))
    first = trainer(plan_of(asked), tmp_path / "killed", stop=lambda: 15 * (next(steps) == 3))
    with pytest.raises(Stop):
        first.fit()
    base.unlink()  # a checkpoint holds all that is needed
    folder = tmp_path / "killed"
    again = Trainer(resumed(folder, read_record(folder)), folder)
    found = checkpoint.newest(folder / CHECKPOINTS)
    assert found is not None
    again.restore(found.state)
    assert again.fit()["test"] == expected["test"]
    for (name, one), (_, other) in zip(
        whole.module.state_dict().items(), again.module.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    assert [g.get("lr_share") for g in whole.optimizer.param_groups] == [
        g.get("lr_share") for g in again.optimizer.param_groups
    ]


def test_a_run_that_was_killed_before_a_checkpoint_wants_its_weights_again(runs: Runs, tmp_path: Path) -> None:
    plan = plan_of(request(f"folder:{runs.folder / 'high'}", weights=str(runs.folder / "base")))
    trainer(plan, tmp_path / "run", saving=Saving(0))
    with pytest.raises(InputError, match="not on the Hub"):
        resumed(tmp_path / "run", plan.record)


# ---- what a component declares ------------------------------------------------------------------


def everything_is_a_half(**args: Any) -> Pretrained:
    assert args == {"read": "patches"} or "body" not in args

    def load(*, in_channels: int, height: int, width: int) -> dict[str, Tensor]:
        module = create("hybrid-alt-1", image_size=height, num_classes=3, in_channels=in_channels)
        return {n: torch.full_like(t, 0.5) for n, t in module.state_dict().items() if t.is_floating_point()}

    return Pretrained("test:halves", load, Transform(size=(8, 8)), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "memory")


def test_a_plugins_component_declares_its_weights_and_what_they_want() -> None:
    registry = load_registry()
    component = msgspec.structs.replace(
        registry.component("hybrid.classifier"), pretrained=f"{__name__}:everything_is_a_half"
    )
    changed = msgspec.structs.replace(registry, components={**registry.components, "hybrid.classifier": component})
    asked = Request(model="hybrid-alt-1", dataset="digits", device="cpu", recipe="mixture-vit", pretrained=True)
    plan = plan_of(asked, entry=(changed, "hybrid-alt-1", changed.model("hybrid-alt-1")))
    built = plan.build().state_dict()
    fresh = {name for name, t in built.items() if t.is_floating_point() and not bool((t == 0.5).all())}
    assert fresh == {"head.linear.weight", "head.linear.bias"}
    assert plan.record.base_model == "test:halves"
    assert (plan.record.data.mean, plan.record.settings.normalize) == ((0.1, 0.2, 0.3), True)


def test_a_model_without_pretrained_weights_says_what_to_name() -> None:
    with pytest.raises(InputError, match="hybrid-alt-2 has no pretrained weights of its own; give others: --weights"):
        plan_of(Request(model="hybrid-alt-2", dataset="digits", device="cpu", pretrained=True))


def test_weights_of_another_model_are_refused(runs: Runs) -> None:
    base = str(runs.folder / "base")
    asked = Request(model="hybrid-alt-1", dataset="digits", device="cpu", weights=base)
    with pytest.raises(InputError, match="none of its weights fits"):
        plan_of(asked)


# ---- the Hub ------------------------------------------------------------------------------------

TOKEN = "hf_" + "t" * 34

REGISTRY = """
[datasets.high]
source = "folder:{folder}/high"
summary = "digits 6 to 9"
size = [16, 16]
resize = true

[models.tuned]
summary = "fine-tuned from the low digits"
family = "test"
recipe = "default"
dataset = "high"
pretrained = "hf://me/low"
build = {{ use = "timm.model", name = "test_resnet" }}
[[models.tuned.published]]
dataset = "high"
top1 = 0.9
pretrained = "low"
weights = "hf://me/low"
recipe = "head-only"
[[models.tuned.published]]
dataset = "high"
top1 = 0.8
pretrained = "nowhere"
weights = "timm/test_vit.r160_in1k"
"""


class Hub(NamedTuple):
    """A Hub that has the run on the low digits, in our layout and in timm's."""

    server: HubServer
    worker: Worker
    folder: Path


@pytest.fixture(scope="module")
def hub(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    with HubServer() as server:
        server.store.users[TOKEN] = ("me", "write")
        with Worker(server, folder, token=TOKEN) as worker:
            done = worker("publish", runs.folder / "base", "me/low", "--no-predictions")
            assert done.code == 0, done.err
            yield Hub(server, worker, folder)


def tuned(hub: Hub, runs: Runs, output: str, *words: str) -> tuple[RunRecord, dict[str, Tensor]]:
    """One step of the head, from weights that the words name."""
    few = ("--limit-train", "40", "--limit-test", "20", "--max-steps", "1", "--device", "cpu")
    spec = f"folder:{runs.folder / 'high'}"
    done = hub.worker("train", *words, "--dataset", spec, "--recipe", "head-only", *few, "--output", output)
    assert done.code == 0, done.err
    assert "tensors from" in done.err
    return read_record(hub.folder / output), read_weights(hub.folder / output)


def same_backbone(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return all(torch.equal(t, theirs[n]) for n, t in ours.items() if not n.startswith("fc."))


@pytest.mark.parametrize(
    ("reference", "origin"),
    [("hf://me/low", "hf://me/low@{commit}"), ("timm/hf-hub:me/low", "timm/hf-hub:me/low@{commit}")],
)
def test_a_published_run_is_fine_tuned_by_our_layout_and_by_timms(
    reference: str, origin: str, hub: Hub, runs: Runs
) -> None:
    output = reference.partition(":")[0].replace("/", "-")
    record, weights = tuned(hub, runs, output, MODEL, "--weights", reference, "--image-size", "16")
    assert same_backbone(weights, runs.weights("base"))
    assert record.base_model == origin.format(commit=hub.server.store.repos["me/low"].head().oid)
    assert (record.sizes.height, record.sizes.num_classes) == (16, 4)
    done = hub.worker("package", output, "--output", f"{output}-package", "--no-predictions")
    assert done.code == 0, done.err
    assert "base_model: me/low" in (hub.folder / f"{output}-package" / "README.md").read_text()


def test_timms_own_release_is_loaded_by_timm_and_seen_as_timm_says(hub: Hub, runs: Runs) -> None:
    torch.manual_seed(5)
    theirs = timm.create_model("test_resnet").state_dict()
    hub.server.store.put("timm/test_resnet.r160_in1k", {"model.safetensors": to_bytes(theirs, {"format": "pt"})})
    record, weights = tuned(hub, runs, "own", f"{MODEL}.r160_in1k", "--pretrained")
    assert same_backbone(weights, theirs)
    assert record.data.transform == Transform(
        size=(160, 160), resize=168, interpolation="bilinear", rounding="torchvision"
    )
    assert record.data.mean == (0.5, 0.5, 0.5)
    assert record.base_model == record.base_hub.replace("timm/", "timm/", 1) == "timm/test_resnet.r160_in1k"
    done = hub.worker("eval", "own", "--json")
    recorded = read_result(hub.folder / "own")["test"]
    assert json.loads(done.out)["correct"] == recorded["correct"]


def test_a_pickle_of_a_stranger_is_never_read(hub: Hub, runs: Runs) -> None:
    config = json.loads(hub.server.store.repos["me/low"].head().files["config.json"].data or b"")
    config["pretrained_cfg"] |= {"hf_hub_filename": "evil.bin", "file": "evil.bin", "custom_load": "hf"}
    files = {"config.json": json.dumps(config).encode(), "evil.bin": b"x", "pytorch_model.bin": b"x"}
    hub.server.store.put("me/evil", files)
    hub.server.log.clear()
    done = hub.worker("train", MODEL, "--weights", "timm/hf-hub:me/evil", "--dataset", "digits", "--device", "cpu")
    assert done.code == 14
    assert len(done.err.strip().splitlines()) == 1
    assert not any(r.path.endswith(".bin") for r in hub.server.log)


def test_weights_that_are_not_there_are_one_line_before_any_image_is_decoded(hub: Hub) -> None:
    done = hub.worker("train", "timm/test_vit.r160_in1k", "--pretrained", "--dataset", "digits", "--device", "cpu")
    assert done.code == 14
    (line,) = done.err.strip().splitlines()
    assert "timm/test_vit.r160_in1k" in line
    assert "tried timm/test_vit.r160_in1k on the Hub" in line
    assert "--weights hf://OWNER/NAME" in line


def test_reproduce_fine_tunes_a_row_and_says_which_weights_are_not_there(hub: Hub, runs: Runs) -> None:
    (hub.folder / "registry.toml").write_text(REGISTRY.format(folder=runs.folder))
    listed = hub.worker("reproduce", "tuned", "--list")
    assert "tuned is fine-tuned from hf://me/low; to train it alone: zoo reproduce" in listed.err
    small = ("--budget", "small", "--epochs", "1", "--limit-train", "60", "--limit-test", "40", "--device", "cpu")
    done = hub.worker("reproduce", "tuned", *small, "--json", "-q")
    assert done.code == 1
    failed = [line for line in done.err.splitlines() if line.startswith("failed:")]
    assert len(failed) == 1
    assert "test_vit.r160_in1k" in failed[0]
    rows = json.loads(done.out)
    assert [row["top1"] is not None for row in rows] == [True, False]
    (folder,) = (p.parent for p in hub.folder.glob("runs/reproduce/**/result.json"))
    record = tomllib.loads((folder / "run.toml").read_text())
    assert record["base_model"].startswith("hf://me/low@")
    assert same_backbone(read_weights(folder), runs.weights("base"))


def test_the_catalogues_mixers_take_every_tensor_of_timms_but_the_head() -> None:
    for ours, reference in (("mixer-b16", "mixer_b16_224"), ("mixer-l16", "mixer_l16_224")):
        with torch.device("meta"):
            own = create(ours).state_dict()
            theirs = timm.create_model(reference, num_classes=21843).state_dict()
        fits = {name for name in own if name in theirs and own[name].shape == theirs[name].shape}
        assert own.keys() - fits == {"head.weight", "head.bias"}
    registry = load_registry()
    rows = [row for m in ("mixer-b16", "mixer-l16") for row in registry.model(m).published if row.weights]
    assert [find_weights(str(row.weights)).hub for row in rows] == [row.weights for row in rows]
