"""A model of the user's own in whatever form: "FILE.py:NAME", a class, a function, or a module that is ready."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from zoo.base.text import first_line
from zoo.catalogue.own_code import OwnCode, of_object
from zoo.catalogue.own_model import OwnModel, model_of, own_model
from zoo.errors import InputError
from zoo.models.tensors import to_bytes

Own = str | Callable[..., Any] | nn.Module
"""What `own_of` takes."""


def own_of(model: Own) -> OwnModel:
    """The component and the model that code of the user's own makes.

    A module that is ready is copied whenever a model is built, with its present weights: the one that was given is
    never trained itself.

    Raises:
        InputError: it is nothing of these, or its signature says no kind.
    """
    if isinstance(model, nn.Module):
        return _ready(model)
    if isinstance(model, str) or callable(model):
        return own_model(model)
    raise InputError(
        f"a model of type {type(model).__name__} cannot be trained; give a name, FILE.py:NAME, a class, a function or "
        "a torch module"
    )


def _ready(module: nn.Module) -> OwnModel:
    _refuse_untrainable(module)
    source = of_object(type(module))
    code = OwnCode.made(
        source.attribute,
        source.file,
        source.text,
        beside=source.beside,
        target=_copies(module),
        script=source.script,
        ready=True,
    )
    return model_of(code, "classifier")


def _refuse_untrainable(module: nn.Module) -> None:
    """Refuse modules with which no training can begin, before torch does so in the middle of it.

    Raises:
        InputError: says what to do.
    """
    name = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(f"{name}: is compiled by torch.jit and cannot be trained; give the module that it was made of")
    for key, value in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(value):
            raise InputError(f"{name}: {key} has no shape yet; call the module once with a batch of images before")
    for key, value in module.named_parameters():
        if value.is_floating_point() and value.dtype != torch.float32:
            raise InputError(
                f"{name}: {key} is of {value.dtype}; give the module in float32, module.float(): the precision of its "
                "training is chosen by precision="
            )


def _copies(module: nn.Module) -> Callable[..., nn.Module]:
    kept = _copied(module)  # what its owner does to it later is not this run's

    def build(**sizes: int) -> nn.Module:
        del sizes
        return _copied(kept).to(torch.get_default_device()).train()

    return build


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except (Exception, RecursionError) as error:
        name = type(module).__name__
        raise InputError(
            f"{name}: the module cannot be copied, which training it needs: {first_line(error)}"
        ) from error


def state_hash(module: nn.Module) -> str:
    """sha256 over names, types, shapes and bytes of a module's state, in the order of names."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        hasher.update(to_bytes({name: tensor.detach()}, {}))
    return hasher.hexdigest()
