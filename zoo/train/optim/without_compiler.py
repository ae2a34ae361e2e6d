"""Torch's optimizers, without its compiler where nothing is compiled.

Half of the methods of an optimizer import `torch._dynamo` at their first call, only to tell the compiler to leave the
method alone, or to end its graph there. That takes a second of CPU time: as much as two thirds of torch itself. Where
the compiler was not imported nothing is being compiled, and the method within does all that the whole one does.

What is left out is decided by what a wrapper's code speaks of. One that speaks of anything but the compiler and whether
gradients are recorded (another version of torch may have such ones) is called as it is, and imports what it imports.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

Kind = TypeVar("Kind", bound=type[Optimizer])

COMPILER = "torch._dynamo"
OF_THE_COMPILER = frozenset({COMPILER, "_dynamo", "disable", "__dynamo_disable", "graph_break", "getattr", "setattr"})
OF_GRADIENTS = frozenset({"cast", "Optimizer", "is_grad_enabled", "set_grad_enabled", "defaults"})
"""Names in the code of the two wrappers: one for any method, and one for `step`."""


def within(method: Callable[..., Any], *known: str) -> Callable[..., Any]:
    """The method within a wrapper that only speaks to the compiler, which is not imported; else the method itself.

    Args:
        known: other names that the wrapper's code may have, since the caller does what it does with them.
    """
    inside: Callable[..., Any] | None = getattr(method, "__wrapped__", None)
    code = getattr(method, "__code__", None)
    if COMPILER in sys.modules or inside is None or code is None:
        return method
    names = set(code.co_names)
    return inside if COMPILER in names and names <= OF_THE_COMPILER.union(known) else method


class WithoutCompiler(Optimizer):
    """An optimizer, or a base of one beside torch's class (see `without_compiler`), that leaves the compiler alone."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's."""
        within(Optimizer.add_param_group)(self, param_group)

    def state_dict(self) -> dict[str, Any]:
        """As torch's."""
        state: dict[str, Any] = within(Optimizer.state_dict)(self)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's."""
        within(Optimizer.load_state_dict)(self, state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's."""
        within(Optimizer.zero_grad)(self, set_to_none)


def _unhooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step of torch's class, without the hooks of users that torch wraps around it when it makes the first one.

    It wraps them around the step of our class too, and they must run once.
    """
    return getattr(step, "__wrapped__", step) if getattr(step, "hooked", False) else step


def without_compiler(kind: Kind) -> Kind:
    """A class of torch's optimizers as it is, but that the compiler is imported only where it is used."""

    def step(self: Optimizer, closure: Callable[[], float] | None = None) -> float | None:
        loss: float | None
        whole = _unhooked(kind.step)
        inside = within(whole, *OF_GRADIENTS)
        if inside is whole:
            loss = inside(self, closure)
        else:
            with torch.set_grad_enabled(self.defaults["differentiable"]):
                loss = inside(self, closure)
        return loss

    return type(kind.__name__, (kind, WithoutCompiler), {"step": step, "__doc__": kind.__doc__})  # type: ignore[return-value]
