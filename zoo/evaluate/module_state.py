"""A module around another one: the other one's names in its state, and eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

INNER = "module."
"""Where torch sees the tensors of the module that is wrapped."""


def own_names(outer: nn.Module) -> None:
    """Let the state of `outer` have the names of `outer.module`, which it wraps, also inside of other modules.

    The names are those of a run's `model.safetensors`; it can be loaded into either.
    """
    outer.register_state_dict_post_hook(_without_inner)
    outer.register_load_state_dict_pre_hook(_with_inner)
    outer.register_load_state_dict_post_hook(_said_without_inner)


def _without_inner(outer: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """What `outer` put into a state, renamed in its place."""
    del outer, metadata
    start = prefix + INNER
    for key in [key for key in state if key.startswith(start)]:
        state[prefix + key.removeprefix(start)] = state.pop(key)
    versions = getattr(state, "_metadata", {})
    for key in [key for key in versions if f"{key}.".startswith(start)]:  # both: whoever loads looks by its own names
        versions.setdefault(f"{prefix}{f'{key}.'.removeprefix(start)}".removesuffix("."), versions[key])


def _with_inner(outer: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The same names as torch looks for them; the state is a copy that torch made for this."""
    vars(outer)["_loading"] = prefix
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + INNER + key.removeprefix(prefix)] = state.pop(key)


def _said_without_inner(outer: nn.Module, keys: Any) -> None:
    """What is missing or too much, by the names of the file."""
    prefix = vars(outer).pop("_loading", "")
    for names in keys:
        names[:] = [
            prefix + name.removeprefix(prefix + INNER) if name.startswith(prefix + INNER) else name for name in names
        ]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards whatever each part was in before.

    Where neither the module nor a child of it trains, nothing is touched: a part further down that does was set so.
    """
    trains = module.training or any(child.training for child in module.children())
    training = [part for part in module.modules() if part.training] if trains else []
    if training:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
