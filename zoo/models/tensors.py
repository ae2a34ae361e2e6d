"""Tensors to bytes, the same bytes every time, and from 16 bits to the type that is computed with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

from zoo.models.precision import DTYPES


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file whose bytes are a function of its content alone.

    The library writes the metadata in the order of a hash table, which differs from one call to the
    next; here the header's keys are sorted, so that equal weights are equal files.

    Args:
        tensors: by name; stored contiguous, on the CPU.
        metadata: strings only, as the format has it.
    """
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(dict(sorted(header.items())), separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of names; hexadecimal."""
    hasher = hashlib.sha256()
    for name in sorted(tensors):
        hasher.update(to_bytes({name: tensors[name].detach()}, {}))
    return hasher.hexdigest()


def widened(tensors: Mapping[str, Tensor], stored: str) -> dict[str, Tensor]:
    """Parameters that were stored in 16 bits as float32, to the same values; all others as they are.

    Args:
        stored: "bf16" or "fp16"; "fp32": nothing is changed.
    """
    dtype = dict(DTYPES)[stored]
    return {name: tensor.float() if tensor.dtype is dtype else tensor for name, tensor in tensors.items()}
