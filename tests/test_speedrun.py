"""The model and the recipe of the speedrun: whitening, identity, size, and that it learns at once."""

from __future__ import annotations

import ast
import copy
import os
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from run_modules import load_run
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.catalogue.registry import load_registry
from zoo.data.batches.resident import Resident
from zoo.errors import InputError, ShapeError
from zoo.models import compose
from zoo.runs.record import CHECKPOINTS, read_record, write_record
from zoo.train import checkpoint
from zoo.train.loop import Stop, Trainer
from zoo.train.optim.optimizers import make_optimizer
from zoo.train.optim.schedule import lr_at
from zoo.train.plan import replan, resolve
from zoo.train.run_options import Request
from zoo_cnn.speedrun import IdentityConv, Whiten, scaled_head, stages, whiten

SMALL = """
[models.small]
summary = "the speedrun's network for images of 8"
family = "test"
recipe = "quick"
dataset = "digits"
[models.small.build]
use = "hybrid.classifier"
stem = { use = "cnn.whiten", then = { use = "cnn.stages", widths = [16, 32] } }
head = { use = "cnn.scaled-head", scale = 0.004 }

[recipes.quick]
extends = "speedrun"
epochs = 4
batch_size = 128
tta = "none"
augment = [{ op = "crop", padding = 1, mode = "reflect" }]
precision = "fp32"
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "registry.toml").write_text(SMALL)
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(tmp_path / "user"))
    return "small"


def trainer_of(folder: Path, base_model: str = "", **more: Any) -> Trainer:
    plan = resolve(Request(model="small", recipe="quick", device="cpu"))
    record = msgspec.structs.replace(plan.record, base_model=base_model)
    folder.mkdir()
    write_record(folder, record)
    return Trainer(
        type(plan)(record, *(getattr(plan, n) for n in plan.__dataclass_fields__ if n != "record")), folder, **more
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Whiten, dict[str, Any]]:
    """A whole run, its first layer as it was before, and what came out."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "registry.toml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CONFIG", "CACHE", "DATA"):
            patch.setenv(f"ZOO_{name}_DIR", str(folder))
        trainer = trainer_of(folder / "run")
        before = copy.deepcopy(trainer.module.stem.whiten)
        return trainer, before, trainer.fit()


def photographs(count: int = 64) -> Tensor:
    """Images whose neighbouring pixels and channels are alike."""
    noise = torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    tint = 0.3 * torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return F.avg_pool2d(2 * noise + tint, 3, 1)


def moments(layer: Whiten, images: Tensor) -> Tensor:
    """Second moments of what the convolution gives, without its bias; of the first of each pair of signs."""
    with torch.no_grad():
        out = F.conv2d(images, layer.conv.weight).transpose(0, 1).flatten(1)
    half = out[: len(out) // 2]
    return half @ half.T / half.shape[1]


# ---- whitening ------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_whitened_patches_are_uncorrelated_and_of_variance_one(kernel: int) -> None:
    layer, images = Whiten(3, kernel, eps=1e-7), photographs()
    before = moments(layer, images)
    layer.fit_to_images(images)
    after = moments(layer, images)
    assert (before - torch.eye(len(before))).abs().max() > 0.3
    assert (after - torch.eye(len(after))).abs().max() < 0.01


def test_directions_that_the_images_do_not_have_are_not_blown_up() -> None:
    layer, gray = Whiten(3, 2, eps=5e-4), photographs()[:, :1].repeat(1, 3, 1, 1)
    layer.fit_to_images(gray)
    spread = moments(layer, gray).diagonal()
    assert (spread > 0.9).sum() == 4  # one channel's four pixels
    assert (spread < 1e-3).sum() == 8
    assert layer.conv.weight.isfinite().all()


def test_each_direction_stands_with_both_signs_and_the_fit_repeats_to_the_bit() -> None:
    first, second = Whiten(3, 2, eps=5e-4), Whiten(3, 2, eps=5e-4)
    for layer in (first, second.to(memory_format=torch.channels_last)):
        layer.fit_to_images(photographs())
    plus, minus = first.conv.weight.chunk(2)
    assert torch.equal(plus, -minus)
    assert torch.equal(first.conv.weight, second.conv.weight)
    assert (plus.flatten(1).gather(1, plus.flatten(1).abs().argmax(1, keepdim=True)) > 0).all()


def test_the_patches_of_all_parts_are_decomposed_once() -> None:
    counts = {"decompositions": 0, "copies to the host": 0}

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            counts["decompositions"] += "eigh" in func._schema.name
            copied = isinstance((kwargs or {}).get("device"), torch.device) and func._schema.name == "aten::_to_copy"
            counts["copies to the host"] += copied and kwargs["device"].type == "cpu"
            return func(*args, **(kwargs or {}))

    layer, images = Whiten(3, 2, eps=5e-4), photographs(600)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer.to(device)
    with Counting():
        layer.fit_to_images(images.to(device))
    assert counts["decompositions"] == 1
    assert counts["copies to the host"] <= 1 + (device == "cuda")
    patches = F.unfold(images, 2).transpose(0, 1).flatten(1).double()  # of all images at once
    values, vectors = torch.linalg.eigh(patches @ patches.T / patches.shape[1])
    rows = vectors.T / (values[:, None] + 5e-4).sqrt()
    found = layer.conv.weight[:12].flatten(1).cpu().double()
    torch.testing.assert_close(found.abs(), rows.abs(), rtol=1e-4, atol=1e-5)


def test_the_trainer_shows_the_first_training_images_once_and_the_kernel_stays(
    finished: tuple[Trainer, Whiten, dict[str, Any]],
) -> None:
    trainer, before, _ = finished
    layer = trainer.module.stem.whiten
    images, _ = Resident(trainer.plan.train, "cpu").take(torch.arange(len(trainer.plan.train)))
    expected = Whiten(3, 2, eps=5e-4)
    expected.fit_to_images(trainer.augment.prepare(images))
    assert not torch.equal(layer.conv.weight, before.conv.weight)
    torch.testing.assert_close(layer.conv.weight, expected.conv.weight)
    assert not torch.equal(layer.conv.bias, before.conv.bias)
    assert torch.equal(load_run(trainer.folder).stem.whiten.conv.weight, layer.conv.weight)


def test_weights_that_a_run_begins_with_are_not_fitted_again(small: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", base_model="hf://me/other@0")
    before = trainer.module.stem.whiten.conv.weight.clone()
    trainer._begin()
    assert torch.equal(trainer.module.stem.whiten.conv.weight, before)


def test_a_stopped_speedrun_ends_as_the_whole_one(
    finished: tuple[Trainer, Whiten, dict[str, Any]], small: str, tmp_path: Path
) -> None:
    asked = iter([0] * 14 + [15] * 9)
    with pytest.raises(Stop):
        trainer_of(tmp_path / "run", stop=lambda: next(asked)).fit()
    again = Trainer(replan(read_record(tmp_path / "run")), tmp_path / "run")
    found = checkpoint.newest(tmp_path / "run" / CHECKPOINTS)
    assert found is not None
    again.restore(found.state)
    again.fit()
    a, b = (load_run(folder).state_dict() for folder in (finished[0].folder, tmp_path / "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)


# ---- the network ----------------------------------------------------------------------------


def test_a_convolution_begins_as_the_identity_on_the_channels_that_it_has() -> None:
    images = torch.randn(2, 4, 6, 6)
    for wide in (IdentityConv(4, 7), IdentityConv(4, 4), IdentityConv(4, 3)):
        kept = min(4, wide.out_channels)
        torch.testing.assert_close(wide(images)[:, :kept], images[:, :kept])


def test_the_model_has_the_shapes_of_airbench94() -> None:
    """Counted by hand: the airbench94 network's layers, frozen weights included."""
    registry = load_registry()
    model = registry.model("speedrun-94")
    with torch.device("meta"):
        module = compose.compose(model.build, registry, height=32, width=32, num_classes=10)
    pairs = [(24, 64), (64, 64), (64, 256), (256, 256), (256, 256), (256, 256)]
    count = 24 * 3 * 2 * 2 + 24 + sum(9 * a * b + 2 * b for a, b in pairs) + 10 * 256
    frozen = 24 * 3 * 2 * 2 + sum(b for _, b in pairs)
    assert sum(p.numel() for p in module.parameters()) == count == 1_972_792 == model.parameters
    assert sum(p.numel() for p in module.parameters() if not p.requires_grad) == frozen
    assert tuple(module.stem.out_shape) == (256, 3, 3)


def airbench() -> dict[str, Any]:
    """The peer's network and optimizer, from its file, in float32; what it does on a GPU is left out."""
    file = os.environ.get("ZOO_TEST_AIRBENCH")
    if not file:
        pytest.skip("needs airbench94_muon.py of KellerJordan/cifar10-airbench; ZOO_TEST_AIRBENCH names the file")
    tree = ast.parse(Path(file).read_text("utf-8"))
    wanted = ("zeropower_via_newtonschulz5", "Muon", "BatchNorm", "Conv", "ConvGroup", "CifarNet")
    tree.body = [node for node in tree.body if getattr(node, "name", None) in wanted]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
        elif isinstance(node, ast.Attribute) and node.attr in ("half", "bfloat16"):
            node.attr = "float"
    found: dict[str, Any] = {"torch": torch, "nn": nn, "F": F}
    exec(compile(tree, file, "exec"), found)
    return found


def test_the_first_steps_are_those_of_airbench94() -> None:
    theirs_, steps, batch = airbench(), 200, 2000
    torch.manual_seed(0)
    images, labels = 3 * F.avg_pool2d(torch.randn(100, 3, 34, 34), 3, 1), torch.randint(10, (100,))
    registry = load_registry()
    build, recipe = registry.model("speedrun-94").build, registry.recipe("speedrun")
    ours = compose.compose(build, registry, height=32, width=32, num_classes=10)
    ours.stem.whiten.fit_to_images(images)
    peer = theirs_["CifarNet"]().float()
    peer.reset()
    pairs = list(zip(peer.parameters(), ours.parameters(), strict=True))
    with torch.no_grad():
        for to, of in pairs:
            to.copy_(of)
    for norm in (m for m in peer.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eps = 1e-5
    peer_groups = [  # the numbers of its `main`
        {"params": [peer.whiten.bias], "lr": 0.053, "weight_decay": 2e-6 * batch / 0.053, "end": 75},
        {"params": [p for n, p in peer.named_parameters() if "norm" in n and p.requires_grad], "lr": 0.053,
         "weight_decay": 2e-6 * batch / 0.053, "end": steps},
        {"params": [peer.head.weight], "lr": 0.67, "weight_decay": 2e-6 * batch / 0.67, "end": steps},
    ]  # fmt: skip
    kernels = [{"params": [p for p in peer.parameters() if p.ndim == 4 and p.requires_grad], "end": steps}]
    both = (
        torch.optim.SGD(peer_groups, momentum=0.85, nesterov=True),
        theirs_["Muon"](kernels, lr=0.24, momentum=0.6, nesterov=True),
    )
    mine = make_optimizer(ours, recipe, torch.device("cpu"))
    for step in range(3):
        for group in mine.param_groups:
            group["lr"] = lr_at(recipe, step, steps, 25, group)
        loss = F.cross_entropy(ours(images), labels, label_smoothing=0.2)
        other = F.cross_entropy(peer(images), labels, label_smoothing=0.2)
        assert loss.item() == pytest.approx(other.item(), rel=1e-4)
        loss.backward()
        (other * batch).backward()  # it sums over its batch
        for optimizer in both:
            for group in optimizer.param_groups:
                first = group.setdefault("first", group["lr"])
                group["lr"] = first * (1 - step / group["end"])
        for optimizer in (mine, *both):
            optimizer.step()
            optimizer.zero_grad()
        gap = max(((a - b).norm() / b.norm()).item() for a, b in pairs)
        assert gap < (1e-4, 1e-3, 0.1)[step]


def test_logits_are_scaled_and_weights_begin_with_variance_one() -> None:
    torch.manual_seed(0)
    head = scaled_head(in_channels=64, height=3, width=3, num_classes=1000, pool=3, scale=0.5)
    maps = torch.randn(2, 64, 3, 3)
    expected = maps.flatten(2).max(2).values @ head.linear.weight.T / 2
    torch.testing.assert_close(head(maps), expected)
    wide = scaled_head(in_channels=2, height=2, width=7, num_classes=3, pool=3)
    assert wide(torch.randn(2, 2, 2, 7)).shape == (2, 3)
    assert (wide.linear.in_features, wide.linear.scale) == (4, 0.5)
    assert head.linear.weight.std().item() == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(head(maps[..., :2]), maps[..., :2].flatten(2).max(2).values @ head.linear.weight.T / 2)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (partial(whiten, in_channels=3, height=4, width=9, kernel=5), ShapeError, "patch of side 5 fits into 4x9"),
        (partial(whiten, in_channels=3, height=4, width=9, kernel=0), ShapeError, "patch of side 0"),
        (partial(stages, in_channels=3, height=7, width=9), ShapeError, "7x9 is too small for 3 stages.*8x8"),
        (partial(scaled_head, in_channels=3, height=9, width=9, num_classes=2, pool=0), InputError, "given 0"),
        (partial(stages, in_channels=3, height=9, width=9, keep=1.0), InputError, "keep must be .*given 1.0"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_the_trainer_gives_each_group_its_own_rate(finished: tuple[Trainer, Whiten, dict[str, Any]]) -> None:
    trainer = finished[0]
    last = 0.24 / trainer.total
    kernels, first, head, vectors = (
        next(g["lr"] for g in trainer.optimizer.param_groups if any(p is wanted for p in g["params"]))
        for wanted in (
            trainer.module.stem.then[0].conv1.weight,
            trainer.module.stem.whiten.conv.bias,
            trainer.module.head.linear.weight,
            trainer.module.stem.then[0].norm1.bias,
        )
    )
    assert kernels == pytest.approx(last)
    assert (head / kernels, vectors / kernels) == pytest.approx((1340 / 0.24, 106 / 0.24))
    assert first == 0


def test_a_first_layer_that_is_trained_no_more_gets_no_gradients_and_the_weights_are_the_same(
    finished: tuple[Trainer, Whiten, dict[str, Any]], small: str, tmp_path: Path
) -> None:
    other = trainer_of(tmp_path / "run")
    other.rests = False
    other.fit()
    assert other.module.stem.whiten.conv.bias.requires_grad
    assert not finished[0].module.stem.whiten.conv.bias.requires_grad
    weights = finished[0].module.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in other.module.state_dict().items())


def test_it_learns_at_once(finished: tuple[Trainer, Whiten, dict[str, Any]]) -> None:
    """In four epochs of 11 steps."""
    assert finished[2]["train"]["steps"] <= 44
    assert finished[2]["test"]["top1"] > 0.88
