"""The header of a safetensors file, read and compared with a model before any of its memory is taken."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

from zoo.base.memory import host_memory
from zoo.base.text import first_line, plural
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node
from zoo.errors import InputError, PackageError, ZooError
from zoo.models.compose import check
from zoo.models.precision import Precision

MAX_HEADER = 25_000_000
"""Bytes; the bound of the format's own reader in the Hub's client."""

ROOM = 1 << 30
"""Bytes, beside the weights, that a stranger's model may take where it must be run on the CPU to be checked."""

DTYPES = (
    ("F64", torch.float64),
    ("F32", torch.float32),
    ("F16", torch.float16),
    ("BF16", torch.bfloat16),
    ("I64", torch.int64),
    ("I32", torch.int32),
    ("I16", torch.int16),
    ("I8", torch.int8),
    ("U8", torch.uint8),
    ("BOOL", torch.bool),
)

STORED_KEY = "zoo.stored"
"""The key in the metadata that names the number type of the stored parameters, where they are computed with in fp32."""

Sixteen = Literal["bf16", "fp16"]

STORED_TYPES: tuple[tuple[Sixteen, str], ...] = (("bf16", "BF16"), ("fp16", "F16"))
"""What it may say, and what the header then says of each parameter."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Header(NamedTuple):
    """What a safetensors file says of itself: its tensors and its metadata."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read the header alone, and check that it describes exactly the bytes that follow it.

    Raises:
        PackageError: absent, too long, no safetensors file, or offsets that leave the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise PackageError(f"{path}: not a safetensors file: its header would be {length:,} bytes long")
            raw = file.read(length)
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        table = msgspec.json.decode(raw, type=dict[str, dict[str, Any]])
        metadata = msgspec.convert(table.pop("__metadata__", {}), dict[str, str])
        tensors = msgspec.convert(table, dict[str, Entry])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise PackageError(f"{path}: its header is damaged: {first_line(error)}") from None
    _check_offsets(path, tensors, size - 8 - length)
    return Header(tensors, metadata)


def _check_offsets(path: Path, tensors: Mapping[str, Entry], total: int) -> None:
    widths = {name: dtype.itemsize for name, dtype in DTYPES}
    end = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in widths:
            raise PackageError(f"{path}: tensor {name[:80]!r} has the unknown type {entry.dtype[:20]!r}")
        if any(side < 0 or side > 1 << 40 for side in entry.shape) or len(entry.shape) > 16:
            raise PackageError(f"{path}: tensor {name[:80]!r} has an impossible shape")
        first, last = entry.data_offsets
        if first != end or last - first != math.prod(entry.shape) * widths[entry.dtype]:
            raise PackageError(f"{path}: tensor {name[:80]!r} does not lie where its header says")
        end = last
    if end != total:
        raise PackageError(f"{path}: its header describes {end:,} bytes of tensors; the file has {total:,}")


def stored_type(path: Path, header: Header) -> Precision:
    """The number type of the stored parameters; "fp32" also where each has the type that its module gives it.

    Raises:
        PackageError: the metadata names a type that none of ours are stored in.
    """
    name = header.metadata.get(STORED_KEY)
    if name is None:
        return "fp32"
    for known, _ in STORED_TYPES:
        if name == known:
            return known
    raise PackageError(f"{path}: its metadata names the unknown number type {name[:20]!r}; known: bf16, fp16")


def rounded(tensor: Tensor) -> bool:
    """Whether this tensor of a module's state is stored in 16 bits, if its parameters are.

    Buffers keep their type. The running statistics of batch norm are about 0.1% of the bytes, and a variance may lie
    outside of fp16's range. Rounding them alone to bf16 changed the class of 25 of CIFAR-10's 10,000 test images
    (`cnn-baseline-bn` after 3 epochs, 67.4%), rounding all parameters 37; to fp16 1 and 5.
    """
    return isinstance(tensor, nn.Parameter) and tensor.dtype is torch.float32


def compare(path: Path, header: Header, module: nn.Module) -> None:
    """Hold the header against a module (on any device): names, shapes, types.

    All parameters of fp32 have the type that the header's metadata names, if it names one; all else has its own.

    Raises:
        PackageError: a tensor too many, too few, or of another shape or type; names the first.
    """
    names, stored = {dtype: name for name, dtype in DTYPES}, stored_type(path, header)
    narrow = None if stored == "fp32" else dict(STORED_TYPES)[stored]
    wanted = {
        name: (
            narrow if narrow and rounded(tensor) else names.get(tensor.dtype, str(tensor.dtype)),
            tuple(tensor.shape),
        )
        for name, tensor in module.state_dict(keep_vars=True).items()
    }
    given = {name: (e.dtype, e.shape) for name, e in header.tensors.items()}
    for label, odd in (("lacks", wanted.keys() - given.keys()), ("has besides", given.keys() - wanted.keys())):
        if odd:
            raise PackageError(
                f"{path}: does not fit its model: it {label} {plural(len(odd), 'tensor')}, as {min(odd)[:80]!r}"
            )
    for name, tensor in wanted.items():
        if given[name] != tensor:
            raise PackageError(
                f"{path}: does not fit its model: {name[:80]!r} is {given[name][0]} {list(given[name][1])}, "
                f"expected {tensor[0]} {list(tensor[1])}"
            )


def non_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold an infinity or a NaN."""
    return [name for name, t in weights.items() if t.is_floating_point() and not t.isfinite().all()]


def outline(node: Node, registry: Registry, header: Header, *, where: str, **sizes: int) -> nn.Module:
    """Build a stranger's tree before its memory is taken, within what the weights of its header can need.

    A tree is small data that can ask for a billion layers: the number of tensors in the weights bounds
    how many modules, parameters and operations building and probing it may take. (Of 66 models of the
    catalogue, timm and torchvision none took more than 1.3, 2.2 and 20 for each tensor.)

    One that cannot be built on the meta device is built on the CPU, within twice the bytes of its weights
    and `ROOM` for the images on their way.

    Raises:
        PackageError: it takes more, or a component cannot take its arguments.
        ZooError: as `zoo.models.compose.check`.
    """
    try:
        size = max((entry.data_offsets[1] for entry in header.tensors.values()), default=0)
        size *= 2 if STORED_KEY in header.metadata else 1  # in 16 bits; the model is built in fp32
        with _budget(len(header.tensors), where):
            return check(node, registry, where=where, memory=min(2 * size + ROOM, host_memory() // 2), **sizes)
    except ZooError:
        raise
    except Exception as error:  # a factory met by hostile arguments may raise anything
        raise PackageError(f"{where}: cannot be built: {first_line(error)}") from None


class _Counter:
    def __init__(self, limit: int, what: str, where: str) -> None:
        self.left, self.message = (limit, f"{where}: takes more than {limit:,} {what}; its weights are of fewer")

    def __call__(self, *registered: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise InputError(self.message)


class _Operations(TorchFunctionMode):
    def __init__(self, count: _Counter) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count()
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _budget(tensors: int, where: str) -> Iterator[None]:
    weights = _Counter(2 * tensors + 50, "parameters", where)
    modules = _Counter(5 * tensors + 200, "modules", where)
    hooks = [
        registration.register_module_parameter_registration_hook(weights),
        registration.register_module_buffer_registration_hook(weights),
        registration.register_module_module_registration_hook(modules),
    ]
    try:
        with _Operations(_Counter(60 * tensors + 2000, "operations", where)):
            yield
    finally:
        for hook in hooks:
            hook.remove()
