"""What is imported up to a first step and a prediction, and that leaving torch's compiler out changes no bit."""

from __future__ import annotations

import copy
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from zoo.train.optim.muon import Muon
from zoo.train.optim.several import Several
from zoo.train.optim.without_compiler import COMPILER, OF_GRADIENTS, within, without_compiler

KINDS = ("Adam", "AdamW", "SGD", "NAdam", "RMSprop", "Adagrad")
AFRESH = """
import json, sys
import zoo
names, run, photo, output = set(sys.argv[1].split()), *sys.argv[2:]
heavy = lambda: sorted(names & set(sys.modules))
found = {"predict": (zoo.predict(run, photo), heavy())[1]}
before = []
def stop():
    before.append(heavy())
    return 0
zoo.train("vit-nano", dataset="digits", epochs=1, max_steps=2, device="cpu", output=output, stop=stop)
found["train"] = before[1]  # asked before the second step
print(json.dumps(found))
"""
HEAVY = f"{COMPILER} sympy timm torchvision sklearn scipy matplotlib pandas onnx pyarrow huggingface_hub"


def test_a_first_step_and_a_prediction_import_no_library_that_they_do_not_need(tmp_path: Path) -> None:
    """In a fresh process, once another one has decoded the images and tried the model out.

    This one would not keep what it found: it may have imported modules that tests wrote after it began.
    """
    run, photo = tmp_path / "run", tmp_path / "photo.png"
    asked = ("--dataset", "digits", "--epochs", "1", "--max-steps", "1", "--device", "cpu", "--output", str(run))
    _succeeded("-m", "zoo", "train", "vit-nano", *asked)
    Image.new("L", (8, 8), 128).save(photo)
    found = _succeeded("-c", AFRESH, HEAVY, str(run), str(photo), str(tmp_path / "again"))
    assert json.loads(found) == {"predict": [], "train": []}


def _succeeded(*words: str) -> str:
    """What Python printed on stdout."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- optimizers ---------------------------------------------------------------------------------------


class _Refusing:
    def find_spec(self, name: str, *_: Any) -> None:
        if name == COMPILER:
            raise ImportError("the compiler is not needed here")


@contextmanager
def no_compiler() -> Iterator[None]:
    """As in a process that has not imported the compiler, and must not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, COMPILER, raising=False)
        patch.setattr(sys, "meta_path", [_Refusing(), *sys.meta_path])
        for kind in (getattr(torch.optim, name) for name in KINDS):
            if getattr(kind.step, "hooked", False):  # torch's own optimizer was made in this process
                patch.setattr(kind, "step", kind.step.__wrapped__)
        yield


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5))


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> list[torch.Tensor]:
    for seed in seeds:
        module(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in module.parameters()]


def resumed(kind: Any, **how: Any) -> list[torch.Tensor]:
    """The weights of a training that is saved, loaded and goes on with one parameter group more."""
    module = network()
    first = kind([module[0].weight, module[2].weight], lr=0.1, **how)
    trained(module, first, range(3))
    state = copy.deepcopy(first.state_dict())
    again = kind([module[0].weight, module[2].weight], lr=0.5, **how)
    again.load_state_dict(state)
    again.add_param_group({"params": [module[0].bias], "lr": 0.2})
    return trained(module, again, range(3, 6))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("how", [{}, {"weight_decay": 0.1}, {"foreach": True}], ids=str)
def test_an_optimizer_without_the_compiler_is_torchs_to_the_bit(name: str, how: dict[str, Any]) -> None:
    kind = getattr(torch.optim, name)
    expected = resumed(kind, **how)
    assert COMPILER in sys.modules  # torch's own brought it
    beside = resumed(without_compiler(kind), **how)
    with no_compiler():
        alone = resumed(without_compiler(kind), **how)
        assert COMPILER not in sys.modules
    for found in (beside, alone):
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_it_is_still_an_optimizer_of_torch_by_type_name_and_settings() -> None:
    module = network()
    mine = without_compiler(torch.optim.AdamW)(module.parameters(), lr=0.1, fused=True)
    theirs = torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    assert isinstance(mine, torch.optim.AdamW)
    assert repr(mine) == repr(theirs)
    assert mine.defaults == theirs.defaults
    assert mine._step_supports_amp_scaling  # GradScaler asks for it


def test_a_step_records_no_gradients_and_leaves_their_mode() -> None:
    module = network()
    optimizer = without_compiler(torch.optim.SGD)(module.parameters(), lr=0.1)
    with no_compiler():
        assert torch.is_grad_enabled()
        trained(module, optimizer, range(1))
        assert torch.is_grad_enabled()
    assert all(p.grad_fn is None and p.is_leaf for p in module.parameters())


def test_hooks_of_users_run_once_a_step_also_where_torchs_own_optimizer_was_made() -> None:
    module, ran = network(), list[str]()
    torch.optim.SGD(module.parameters(), lr=0.1)  # torch wraps the hooks around the step of its class now
    optimizer = without_compiler(torch.optim.SGD)(module.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: ran.append("before"))
    optimizer.register_step_post_hook(lambda *_: ran.append("after"))
    trained(module, optimizer, range(2))
    assert ran == ["before", "after"] * 2


def test_our_own_optimizers_leave_the_compiler_alone() -> None:
    module = network()
    with no_compiler():
        muon = Muon([module[0].weight, module[2].weight], lr=0.01)
        several = Several([muon, without_compiler(torch.optim.SGD)([module[0].bias], lr=0.1)])
        trained(module, several, range(2))
        several.load_state_dict(several.state_dict())


# ---- what is left out ---------------------------------------------------------------------------------


def wrapper_that(does: str) -> Any:
    """A wrapper as torch's, whose code does something else besides."""

    def inner(self: object) -> str:
        return "inner"

    names: dict[str, Any] = {"functools": functools, "inner": inner, "done": []}
    source = f"""
@functools.wraps(inner)
def outer(self):
    import torch._dynamo
    {does}
    return torch._dynamo.disable(inner)(self)
"""
    exec(source, names)
    return names["outer"]


def test_a_wrapper_that_only_speaks_to_the_compiler_is_left_out_where_that_is_not_imported() -> None:
    outer = wrapper_that("pass")
    with no_compiler():
        assert within(outer, "inner") is outer.__wrapped__
    assert COMPILER in sys.modules
    assert within(outer, "inner") is outer


@pytest.mark.parametrize("does", ["done.append(1)", "self.steps = 1", "torch.manual_seed(0)"])
def test_a_wrapper_that_does_anything_else_is_called_whole(does: str) -> None:
    outer = wrapper_that(does)
    with no_compiler():
        assert within(outer, "inner") is outer


def test_what_is_no_wrapper_of_the_compiler_is_called_as_it_is() -> None:
    plain = functools.wraps(wrapper_that)(lambda: None)
    with no_compiler():
        assert within(plain, *OF_GRADIENTS) is plain
        assert within(torch.optim.Optimizer.__repr__) is torch.optim.Optimizer.__repr__
        assert within(torch.optim.Adam.step) is torch.optim.Adam.step  # it also sets whether gradients are recorded
