"""Gradient checkpointing: the same gradients, statistics and weights to the bit, from less memory."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import node_from_table
from zoo.errors import InputError, SpecError
from zoo.models.compose import compose
from zoo.plugin.layers import Dropout
from zoo.runs.record import write_record
from zoo.train.loop import Trainer
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request
from zoo.train.speed.recomputed import recomputed, segments


class Block(nn.Module):
    """A residual block that writes to its input, with batch norm and dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.ReLU(inplace=True)
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(0.9) + self.drop(self.norm(self.linear(self.first(x))))


def stack(depth: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Sequential(*(Block(16) for _ in range(depth))), nn.Linear(16, 2))


def stepped(module: nn.Module) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Gradients of three steps, and the state after them."""
    module.train()
    torch.manual_seed(1)
    for _ in range(3):
        module(torch.randn(8, 6)).square().mean().backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None], dict(module.state_dict())


def test_gradients_and_running_statistics_are_the_same_to_the_bit() -> None:
    plain, again = stepped(stack()), stepped(recomputed(stack()))
    assert len(plain[0]) == len(again[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(plain[0], again[0], strict=True))
    assert list(plain[1]) == list(again[1])
    assert all(torch.equal(plain[1][name], again[1][name]) for name in plain[1])


def test_a_block_keeps_less_for_the_backward_pass() -> None:
    def kept(module: nn.Module) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        x = torch.randn(64, 6)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module.train()(x)
        return sum(sizes)

    assert kept(recomputed(stack(8))) < kept(stack(8)) / 2


def test_a_copy_computes_with_its_own_weights() -> None:
    module = recomputed(stack())
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert float(other.train()(torch.randn(4, 6)).detach().abs().max()) == 0


def test_blocks_are_what_stands_in_the_deepest_lists() -> None:
    tree = node_from_table(
        {
            "use": "hybrid.classifier",
            "body": {"use": "hybrid.alternate", "of": [{"use": "cnn.residual", "widths": [8, 8]}] * 2},
        },
        "build",
    )
    module = compose(tree, load_registry(), in_channels=3, height=8, width=8, num_classes=10)
    found = segments(module)
    assert len(found) >= 2
    assert not any(a is not b and b in list(a.modules()) for a in found for b in found)
    with pytest.raises(SpecError, match="no list of blocks"):
        recomputed(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


def plan_of(*settings: str, **asked: object) -> Plan:
    few = {"device": "cpu", "epochs": 1, "batch_size": 50, "limit_train": 112, "limit_test": 50}
    settings = ("recipe.dropout=0.2", "recipe.ema=0.9", *settings)
    return resolve(Request(model="hybrid-alt-1", dataset="digits", settings=settings, **few, **asked))


def test_a_run_with_checkpointing_has_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    found = []
    for name, settings in (("plain", ()), ("again", ("recipe.checkpointing=true",))):
        plan = plan_of(*settings)
        (tmp_path / name).mkdir()
        write_record(tmp_path / name, plan.record)
        Trainer(plan, tmp_path / name).fit()
        found.append((tmp_path / name / "model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_a_compiled_step_with_checkpointing_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be used with --compile default"):
        plan_of("recipe.checkpointing=true", compile="default")
