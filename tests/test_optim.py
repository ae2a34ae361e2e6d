"""Optimizers by name and by rule, and schedules against torch's own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from zoo.catalogue.recipe import Group, Recipe
from zoo.catalogue.spec import decode
from zoo.errors import SpecError
from zoo.train import checkpoint
from zoo.train.optim.groups import parameter_groups
from zoo.train.optim.muon import Muon, orthogonal
from zoo.train.optim.optimizers import make_optimizer
from zoo.train.optim.schedule import lr_at
from zoo.train.optim.several import Several

CPU = torch.device("cpu")
TOTAL, EPOCH = 40, 10


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6, 8), nn.Linear(8, 5)
    )


def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 1) -> None:
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    module(images).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def names(module: nn.Module, groups: list[dict[str, Any]]) -> list[set[str]]:
    known = {id(p): name for name, p in module.named_parameters()}
    return [{known[id(p)] for p in group["params"]} for group in groups]


# ---- schedules ------------------------------------------------------------------------------


def theirs(make: Any, lr: float) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, found = make(optimizer), []
    for _ in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def after_warmup(optimizer: Any, then: Any) -> Any:
    rise = schedulers.LinearLR(optimizer, 1 / EPOCH, 1.0, EPOCH - 1)
    return schedulers.SequentialLR(optimizer, [rise, then], [EPOCH])


SCHEDULES: dict[str, tuple[dict[str, Any], Any]] = {
    "constant": ({}, lambda o: schedulers.ConstantLR(o, 1.0)),
    "cosine": ({}, lambda o: schedulers.CosineAnnealingLR(o, TOTAL)),
    "cosine to a tenth": ({"final_lr": 0.1}, lambda o: schedulers.CosineAnnealingLR(o, TOTAL, 0.05)),
    "linear": ({}, lambda o: schedulers.LinearLR(o, 1.0, 0.0, TOTAL)),
    "linear to a fifth": ({"final_lr": 0.2}, lambda o: schedulers.LinearLR(o, 1.0, 0.2, TOTAL)),
    "cosine after warm-up": (
        {"warmup_epochs": 1},
        lambda o: after_warmup(o, schedulers.CosineAnnealingLR(o, TOTAL - EPOCH)),
    ),
    "linear after warm-up": (
        {"warmup_epochs": 1},
        lambda o: after_warmup(o, schedulers.LinearLR(o, 1.0, 0.0, TOTAL - EPOCH)),
    ),
    # torch's peak lies one step before 30% of the run, ours at it
    "onecycle": (
        {"final_lr": 0.01},
        lambda o: schedulers.OneCycleLR(
            o, 0.5, TOTAL + 1, pct_start=13 / (TOTAL + 1), final_div_factor=4, cycle_momentum=False
        ),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_torchs(name: str) -> None:
    settings, make = SCHEDULES[name]
    recipe = Recipe(schedule=name.split()[0], lr=0.5, **settings)
    total = TOTAL + 1 if name == "onecycle" else TOTAL
    ours = [lr_at(recipe, at, total, EPOCH) for at in range(TOTAL)]
    assert ours == pytest.approx(theirs(make, 0.5), rel=1e-6, abs=1e-9)


def test_a_rules_schedule_ends_after_its_epochs_and_its_parameters_stay() -> None:
    recipe = Recipe(
        schedule="linear", final_lr=0.5, lr=0.5, groups=(Group(match="0.bias", lr=2.0, epochs=2),), optimizer="sgd"
    )
    module = network()
    optimizer = make_optimizer(module, recipe, CPU)
    ruled, rest = optimizer.param_groups
    seen = []
    for at in range(TOTAL):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(recipe, at, TOTAL, EPOCH, group)
        seen.append((ruled["lr"], rest["lr"]))
        step(module, optimizer, at)
        if at == 2 * EPOCH - 1:
            last = module[0].bias.clone()
    assert [r for r, _ in seen[: 2 * EPOCH]] == pytest.approx([2 * (1 - at / 40) for at in range(20)])
    assert not any(r for r, _ in seen[2 * EPOCH :])
    assert [r for _, r in seen] == pytest.approx([0.5 * (1 - at / 80) for at in range(TOTAL)])
    assert torch.equal(module[0].bias, last)


# ---- rules ----------------------------------------------------------------------------------


def test_the_first_rule_that_fits_counts() -> None:
    rules = (
        Group(match="last", lr=1.0),
        Group(match="vectors", optimizer="adamw", weight_decay=0.0),
        Group(match="2.*", lr=3.0),
    )
    module = network()
    groups = parameter_groups(module, Recipe(optimizer="sgd", lr=0.5, weight_decay=0.1, groups=rules))
    assert list(groups) == ["sgd", "adamw"]
    assert names(module, groups["sgd"]) == [{"5.weight", "5.bias"}, {"2.weight"}, {"0.weight", "4.weight"}]
    assert names(module, groups["adamw"]) == [{"0.bias", "1.weight", "1.bias", "2.bias", "4.bias"}]
    assert [g.get("lr_share") for g in groups["sgd"]] == [2.0, 6.0, None]
    assert [g["weight_decay"] for g in (*groups["sgd"], *groups["adamw"])] == [0.1, 0.1, 0.1, 0.0]


def test_without_rules_the_groups_are_those_of_weight_decay_alone() -> None:
    module = network()
    one = parameter_groups(module, Recipe(weight_decay=0.1))["adam"]
    two = parameter_groups(module, Recipe(weight_decay=0.1, decay="matrices"))["adam"]
    assert [list(g) for g in one] == [["params", "weight_decay"]]
    assert names(module, two)[0] == {"0.weight", "2.weight", "4.weight", "5.weight"}
    assert [g["weight_decay"] for g in two] == [0.1, 0.0]


def test_frozen_parameters_are_in_no_group() -> None:
    module = network()
    module[0].weight.requires_grad_(False)
    groups = parameter_groups(module, Recipe())["adam"]
    assert "0.weight" not in set.union(*names(module, groups))


def test_muon_leaves_vectors_and_the_first_and_last_layer_to_adamw() -> None:
    module = network()
    groups = parameter_groups(module, Recipe(optimizer="muon"))
    assert names(module, groups["muon"]) == [{"2.weight", "4.weight"}]
    left = set.union(*names(module, groups["adamw"]))
    assert left == {n for n, _ in module.named_parameters()} - {"2.weight", "4.weight"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": [{"match": "stm.*"}]}, r"groups\[0\].match: 'stm.\*' matches no trained parameter; allowed: vec"),
        ({"groups": [{"match": "vector"}]}, "allowed: vectors, matrices, first, last"),
        ({"optimizer": "muon-sphere"}, "0.bias is not a matrix, .*add a rule"),
        ({"groups": [{"match": "first", "momentum": 0.5}]}, "momentum: adam has no momentum"),
        ({"groups": [{"match": "first", "optimizer": "sdg"}]}, "no optimizer named 'sdg'; allowed: adam"),
        ({"optimizer": "torch:LBFGS"}, "no optimizer named 'torch:LBFGS'.*torch has: ASGD, Adadelta"),
        ({"optimizer": "torch:Muon"}, "torch:Muon cannot take these parameters: Muon only supports 2D"),
        ({"optimizer": "timm:lionn"}, "no optimizer named 'timm:lionn'"),
        ({"optimizer": "timm:adahessian"}, "timm:adahessian needs gradients of gradients"),
        ({"optimizer": "nesterov", "momentum": 0.0}, "momentum is 0, and nesterov looks ahead by it"),
        ({"optimizer": "torch:Rprop", "weight_decay": 0.1}, "torch:Rprop has no weight decay; set recipe.weight_decay"),
        ({"groups": [{"match": "first", "lrr": 1}]}, "unknown field `lrr`; allowed: epochs, lr, match, mom"),
    ],
)
def test_a_rule_that_does_not_suit_is_one_clear_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        make_optimizer(network(), decode(Recipe, settings, "recipe"), CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torch:RAdam", "torch:Adafactor", "torch:RMSprop", "timm:lamb", "timm:muon"])
def test_the_libraries_optimizers_step(name: str) -> None:
    module = network()
    before = copy.deepcopy(module.state_dict())
    recipe = Recipe(optimizer=name, lr=0.01, momentum=0.7, betas=(0.8, 0.9), weight_decay=0.01)
    optimizer = make_optimizer(module, recipe, CPU)
    step(module, optimizer)
    assert not torch.equal(before["0.weight"], module[0].weight)
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.01
    assert group["weight_decay"] == 0.01
    if name in ("torch:RAdam", "timm:lamb", "timm:muon"):
        assert group["betas"] == (0.8, 0.9)
    if name == "torch:RMSprop":
        assert group["momentum"] == 0.7


def test_betas_and_eps_of_timms_optimizers_are_their_own_where_the_recipe_sets_none() -> None:
    groups = [
        make_optimizer(network(), Recipe(optimizer=name, **more), CPU).param_groups[0]
        for name, more in (
            ("timm:lion", {}),
            ("timm:lamb", {}),
            ("timm:lamb", {"eps": 1e-3}),
            ("timm:adan", {"betas": (0.8, 0.9)}),
        )
    ]
    assert [g["betas"] for g in groups] == [(0.9, 0.99), (0.9, 0.999), (0.9, 0.999), (0.98, 0.92, 0.99)]
    assert [g["eps"] for g in groups[1:]] == [1e-6, 1e-3, 1e-8]


def test_a_checkpoint_holds_the_state_of_an_optimizer_that_keeps_a_dtype(tmp_path: Path) -> None:
    module = network()
    optimizer = make_optimizer(module, Recipe(optimizer="timm:adafactorbv"), CPU)
    step(module, optimizer)
    checkpoint.save(tmp_path, 1, {"optimizer": optimizer.state_dict()})
    found = checkpoint.newest(tmp_path)
    assert found is not None
    kept = found.state["optimizer"]["param_groups"][0]
    assert kept["momentum_dtype"] == optimizer.param_groups[0]["momentum_dtype"] == torch.bfloat16
    optimizer.load_state_dict(found.state["optimizer"])
    step(module, optimizer)


# ---- Muon -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_orthogonal_matrices_have_singular_values_near_one_and_the_same_axes(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    out = orthogonal(matrices, 5)
    assert (torch.linalg.svdvals(out) - 1).abs().max() < 0.35
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ out @ v.mT
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


def test_muon_on_matrices_is_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs_ = (nn.Parameter(torch.randn(8, 12)) for _ in range(2))
    theirs_.data.copy_(ours.data)
    pair = (
        Muon([ours], lr=0.02, momentum=0.9, weight_decay=0.1),
        torch.optim.Muon([theirs_], 0.02, 0.1, 0.9, adjust_lr_fn="match_rms_adamw"),
    )
    first = ours.detach().clone()
    for _ in range(4):
        ours.grad = torch.randn(8, 12)
        theirs_.grad = ours.grad.clone()
        for optimizer in pair:
            optimizer.step()
    moved = (ours - first).norm()
    assert (ours - theirs_).norm() < 0.05 * moved  # theirs iterates in bfloat16


def test_a_kernel_is_trained_as_the_matrix_that_it_is_in_either_memory_format() -> None:
    torch.manual_seed(0)
    flat = nn.Parameter(torch.randn(6, 4 * 9))
    kernel = nn.Parameter(flat.detach().view(6, 4, 3, 3).clone())
    last = nn.Parameter(kernel.detach().clone(memory_format=torch.channels_last))
    optimizer = Muon([{"params": [flat]}, {"params": [kernel, last]}], lr=0.1)
    gradient = torch.randn(6, 4 * 9)
    flat.grad, kernel.grad = gradient, gradient.view(6, 4, 3, 3)
    last.grad = kernel.grad.contiguous(memory_format=torch.channels_last)
    optimizer.step()
    torch.testing.assert_close(kernel.flatten(1), flat)
    torch.testing.assert_close(last, kernel)


def test_on_the_sphere_every_matrix_keeps_its_norm_and_lr_is_relative() -> None:
    torch.manual_seed(0)
    small = nn.Parameter(torch.randn(16, 4, 3, 3) * 1e-3)
    large = nn.Parameter(small.detach() * 1e6)
    optimizer = Muon([small, large], lr=0.1, sphere=True)
    for _ in range(3):
        small.grad = torch.randn(16, 4, 3, 3)
        large.grad = small.grad * 1e4
        optimizer.step()
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-4)
    assert small.norm().item() == pytest.approx(4.0, rel=0.1)  # the root of 16 rows, but for the last step


def test_a_step_that_is_not_to_be_used_leaves_weights_and_momentum() -> None:
    torch.manual_seed(0)
    for sphere in (False, True):
        parameter = nn.Parameter(torch.randn(5, 7))
        optimizer = Muon([parameter], lr=0.1, weight_decay=0.1, sphere=sphere)
        for gradient, bad in ((torch.randn(5, 7), 0.0), (torch.full((5, 7), float("nan")), 1.0)):
            before = parameter.detach().clone()
            momentum = optimizer.state[parameter].get("momentum_buffer", torch.zeros(5, 7)).clone()
            parameter.grad, optimizer.found_inf = gradient, torch.tensor(bad)
            optimizer.step()
            same = (
                torch.equal(before, parameter),
                torch.equal(momentum, optimizer.state[parameter]["momentum_buffer"]),
            )
            assert same == ((True, True) if bad else (False, False))


# ---- several optimizers as one --------------------------------------------------------------


def mixed(module: nn.Module) -> Several:
    rules = (Group(match="last", optimizer="nesterov", lr=0.3), Group(match="vectors", optimizer="adamw"))
    optimizer = make_optimizer(module, Recipe(optimizer="muon", lr=0.02, groups=rules), CPU)
    assert isinstance(optimizer, Several)
    return optimizer


def test_several_optimizers_go_on_from_their_state_to_the_bit() -> None:
    whole = network()
    optimizer = mixed(whole)
    for seed in range(3):
        step(whole, optimizer, seed)
    resumed = network()
    resumed.load_state_dict(whole.state_dict())
    again = mixed(resumed)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [len(p.state) for p in again.parts] == [len(p.state) for p in optimizer.parts]
    for seed in range(3, 6):
        for group in (*optimizer.param_groups, *again.param_groups):
            group["lr"] = 0.01 * seed  # reaches the parts after loading, too
        step(whole, optimizer, seed)
        step(resumed, again, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_forgetting_the_state_of_one_part_is_seen() -> None:
    whole, resumed = network(), network()
    first, second = mixed(whole), mixed(resumed)
    for seed in range(3):
        step(whole, first, seed)
        step(resumed, second, seed)
    second.parts[0].state.clear()
    step(whole, first, 3)
    step(resumed, second, 3)
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_part_cannot_share_a_parameter_and_flags_reach_all_parts() -> None:
    module = network()
    optimizer = mixed(module)
    assert optimizer.defaults["fused"] is True
    assert len({id(p) for g in optimizer.param_groups for p in g["params"]}) == len(list(module.parameters()))
    flag = torch.tensor(1.0)
    optimizer.found_inf = flag
    assert all(part.found_inf is flag for part in optimizer.parts)
    before = copy.deepcopy(module.state_dict())
    module(torch.randn(4, 3, 5, 5)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(before[n], p) for n, p in module.named_parameters())
    with pytest.raises(ValueError, match="more than one parameter group"):
        Several([torch.optim.SGD([module[0].weight], 0.1), torch.optim.SGD([module[0].weight], 0.1)])
