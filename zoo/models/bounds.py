"""What a model may take while it is tried out: numbers of parameters and modules, and bytes of memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from zoo.errors import InputError

MAX_TENSORS = 20_000
MAX_PARAMETERS = 4_000_000_000
"""Larger models are refused before memory is taken, unless `limit` says otherwise."""

MAX_BYTES = 4 * MAX_PARAMETERS
"""The most that a model may take where it must be built and run once on the CPU to be checked."""

MAX_INTEGER, MAX_STRING = 1_000_000, 500
"""The largest number, and the longest text, that a package may hold as an argument of a component."""


@contextlib.contextmanager
def limited_numbers(limit: int, where: str) -> Iterator[None]:
    """Refuse a model while it is being built: too many parameters, tensors or modules.

    A depth of a billion takes no memory on the meta device, but would take for ever.
    """
    numbers = {"parameters": 0, "parameter tensors": 0, "modules": 0}
    limits = {"parameters": limit, "parameter tensors": MAX_TENSORS, "modules": MAX_TENSORS}

    def count(**more: int) -> None:
        for what, number in more.items():
            what = what.replace("_", " ")
            numbers[what] += number
            if numbers[what] > limits[what]:
                raise InputError(
                    f"{where}: has more than {limits[what]:,} {what}; this is probably a mistake in the sizes"
                )

    hooks = (
        register_module_parameter_registration_hook(
            lambda module, name, value: (
                count(parameters=value.numel(), parameter_tensors=1) if value is not None else None
            )
        ),
        register_module_module_registration_hook(lambda module, name, child: count(modules=1)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class MemoryLimitError(InputError):
    """A model takes more memory than it may while it is tried out."""


class LimitedMemory(TorchDispatchMode):
    """Refuse an operation, before it runs, whose tensors would take more memory than is left.

    What an operation makes is found by running it on the meta device first. Memory that does not belong
    to a torch tensor (a numpy array, a library's workspace) is not seen.
    """

    def __init__(self, limit: int, where: str) -> None:
        super().__init__()
        self.limit, self.where = limit, where
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.taken = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, or refuse it.

        Raises:
            MemoryLimitError: the model takes more than the limit.
        """
        kwargs = kwargs or {}
        fresh = [alias.alias_info is None for alias in func._schema.returns]
        if any(fresh):
            self._require(_bytes_of(func, args, kwargs))
        out = func(*args, **kwargs)
        for tensor in tree_flatten(out)[0]:
            if any(fresh) and isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._take(tensor)
        return out

    def _require(self, needed: int) -> None:
        if self.taken + needed > self.limit:
            self.storages = {key: kept for key, kept in self.storages.items() if not kept[0].expired()}
            self.taken = sum(size for _, size in self.storages.values())
        if self.taken + needed > self.limit:
            raise MemoryLimitError(
                f"{self.where}: takes more than {self.limit / 2**30:,.1f} GiB of memory to be built and run"
                " once on the CPU"
            )

    def _take(self, tensor: Tensor) -> None:
        try:
            storage = tensor.untyped_storage()
            reference = StorageWeakRef(storage)
        except (RuntimeError, NotImplementedError):  # a layout without one storage (sparse)
            return
        known = self.storages.get(reference.cdata)
        if known is None or known[0].expired():
            self.taken += storage.nbytes() - (known[1] if known else 0)
            self.storages[reference.cdata] = reference, storage.nbytes()


def _bytes_of(func: Any, args: Any, kwargs: Mapping[str, Any]) -> int:
    """Bytes of what an operation makes: from a run on the meta device, else what its inputs can become."""
    inputs = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    if func is torch.ops.aten._local_scalar_dense.default:
        return 0
    try:
        args, kwargs = tree_map_only(Tensor, _outline, (args, dict(kwargs)))
        if any(argument.name == "device" for argument in func._schema.arguments):
            kwargs = {**kwargs, "device": torch.device("meta")} | (
                {"pin_memory": False} if "pin_memory" in kwargs else {}
            )
        out = func(*args, **kwargs)
    except Exception:  # what it makes depends on values, as where tensors are chosen by a mask
        return sum(8 * max(1, value.ndim) * value.numel() for value in inputs)
    made = [value for value in tree_flatten(out)[0] if isinstance(value, Tensor)]
    return sum(value.element_size() * math.prod(value.shape) for value in made)


def _outline(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
