"""Refuse models that depend on more than a weights file can keep: their runs could not be opened again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from zoo.errors import InputError


def refuse_extra_state(module: nn.Module, name: str) -> None:
    """Refuse a model whose state dict has values that are no dense tensors.

    Raises:
        InputError: names the value.
    """
    for key, value in module.state_dict().items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            what = str(value.layout) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"{name}: the state {key} is a {what}, and a weights file keeps dense tensors only; keep numbers in "
                "buffers (register_buffer) in place of get_extra_state"
            )


def refuse_random_buffers(outline: nn.Module, build: Callable[[], nn.Module], name: str) -> None:
    """Refuse a model that draws a buffer at random and leaves it out of its state dict.

    Args:
        outline: the model without memory. build: makes the model itself, on the CPU; only called where the outline
            has such buffers.
    Raises:
        InputError: names the buffer.
    """
    if not dict(_left_out(outline)):
        return
    one, other = _drawn(build, 1), _drawn(build, 2)
    for key in one.keys() & other.keys():
        if not torch.equal(one[key], other[key]):
            raise InputError(
                f"{name}: the buffer {key} is drawn at random and not kept (persistent=False), so the model would be "
                "another one each time it is loaded; register it with persistent=True"
            )


def refuse_lost_buffers(
    outline: nn.Module, build: Callable[[], nn.Module], shape: tuple[int, int, int], name: str
) -> None:
    """Refuse a model whose answers depend on a buffer that training changes and its state dict leaves out.

    Args:
        outline: as for `refuse_random_buffers`. build: as there; only called in earnest where a buffer may be changed.
        shape: (C, H, W) of an image.
    Raises:
        InputError: names the buffer.
    """
    if not dict(_left_out(outline)) or _are_only_read(build, shape):
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        trained, images = build(), torch.randn(2, *shape)
        before = {key: buffer.clone() for key, buffer in _left_out(trained)}
        with contextlib.suppress(Exception):  # what cannot be trained is said by the first step
            trained.train()(images)
        changed = sorted(key for key, buffer in _left_out(trained) if not _same(before.get(key), buffer))
        if not changed:
            return
        try:
            loaded = build()
            loaded.load_state_dict(trained.state_dict())
            measured, again = _answers(trained, images), _answers(loaded, images)
        except Exception:  # as above: it is said by what needs it
            return
    if not torch.allclose(measured, again, equal_nan=True):
        raise InputError(
            f"{name}: training changes the buffer {changed[0]}, which is not kept (persistent=False), so the run's "
            "weights would not give the answers that were measured; register it with persistent=True"
        )


def _answers(module: nn.Module, images: Tensor) -> Tensor:
    torch.manual_seed(0)  # a model may draw numbers in evaluation mode, too
    answers: Tensor = module.eval()(images)
    return answers


def _are_only_read(build: Callable[[], nn.Module], shape: tuple[int, int, int]) -> bool:
    """Whether a step changes none of the left-out buffers, found without memory; False where that cannot be told.

    Most models have such buffers for tables of positions, and a large one takes a minute to be built and run.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        try:
            module = build().train()
            before = {key: (buffer, buffer.untyped_storage()) for key, buffer in _left_out(module)}
            writes = _Writes({_key(buffer) for buffer, _ in before.values()})
            with writes:
                module(torch.empty(2, *shape))
        except Exception:  # it looks at values, or cannot be trained
            return False
    after = dict(_left_out(module))
    if writes.found or after.keys() != before.keys():
        return False
    kept = {key: (buffer is before[key][0], _key(buffer)) for key, buffer in after.items()}
    return kept == {key: (True, int(storage._cdata)) for key, (_, storage) in before.items()}


class _Writes(TorchDispatchMode):
    """Finds operations that write into one of some storages."""

    def __init__(self, storages: set[int]) -> None:
        super().__init__()
        self.storages, self.found = storages, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, after a look at what it writes into; batch norm does not say what it writes into."""
        kwargs, schema = kwargs or {}, func._schema
        named = [(one, kwargs[one.name]) for one in schema.arguments if one.name in kwargs]
        for one, value in (*zip(schema.arguments, args, strict=False), *named):
            if (one.alias_info is not None and one.alias_info.is_write) or "batch_norm" in schema.name:
                tensors = (tensor for tensor in tree_flatten(value)[0] if isinstance(tensor, Tensor))
                self.found |= any(_key(tensor) in self.storages for tensor in tensors)
        return func(*args, **kwargs)


def _key(tensor: Tensor) -> int:
    """What tells the storage of a tensor from others that live, also where it has no memory."""
    return int(tensor.untyped_storage()._cdata)


def _same(before: Tensor | None, now: Tensor) -> bool:
    return before is not None and before.shape == now.shape and torch.equal(before, now)


def _left_out(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The buffers that the module's state dict leaves out, by name."""
    for place, part in module.named_modules():
        for key in part._non_persistent_buffers_set:
            if isinstance(buffer := part._buffers.get(key), Tensor):
                yield f"{place}.{key}" if place else key, buffer


def _drawn(build: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    """The left-out buffers of a model that is built from this seed; the generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(_left_out(build()))
