"""Number types of training: which precision a device gets, and computing in it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from zoo.base.structs import Precision as Precision
from zoo.errors import DeviceError

DTYPES = (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """torch's autocast; for fp32, products in full precision."""
    if precision == "fp32":
        return tf32(device, False)
    return torch.autocast(device.type, dtype=dict(DTYPES)[precision])


@contextlib.contextmanager
def usual_torch() -> Iterator[None]:
    """Inside, torch is as a process has it at its start, as a command has it; a program may have set it otherwise.

    That is: floats are float32 and lie on the CPU by default, gradients are recorded, nothing is cast by itself, and a
    CPU multiplies float32 as it is, also after `torch.set_float32_matmul_precision("medium")`.
    """
    dtype = torch.get_default_dtype()
    with contextlib.ExitStack() as usual:
        usual.enter_context(_exact_on_a_cpu())
        usual.enter_context(torch.inference_mode(False))
        usual.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                usual.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            usual.enter_context(torch.device("cpu"))
        if dtype is not torch.float32:
            torch.set_default_dtype(torch.float32)
            usual.callback(torch.set_default_dtype, dtype)
        yield


@contextlib.contextmanager
def _exact_on_a_cpu() -> Iterator[None]:
    """Inside, fp32 products, convolutions and recurrent layers on a CPU do not round their inputs to fewer bits."""
    library = torch.backends.mkldnn
    rounding = [
        (place, place.fp32_precision)
        for place in (library.matmul, library.conv, library.rnn)  # type: ignore[attr-defined]
        if place.fp32_precision not in ("none", "ieee")
    ]
    for place, _ in rounding:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for place, before in rounding:
            place.fp32_precision = "none"  # again that of `torch.backends.fp32_precision`
            if place.fp32_precision != before:
                place.fp32_precision = before


@contextlib.contextmanager
def tf32(device: torch.device, allowed: bool) -> Iterator[None]:
    """Inside, fp32 products and convolutions on CUDA may round their inputs to TF32, or may not."""
    if device.type != "cuda":
        yield
        return
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def pick_precision(name: str, device: torch.device) -> Precision:
    """ "auto": bf16 where the hardware computes in it, else fp32.

    Raises:
        DeviceError: fp16 on a CPU, where torch has no useful gradient scaling.
    """
    if name == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("precision fp16 works on GPUs only; on a CPU use bf16, fp32 or auto")
    for known, _ in DTYPES:
        if name == known:
            return known  # type: ignore[return-value]
    raise DeviceError(f"no precision named {name!r}; allowed: auto, fp32, bf16, fp16")


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return False


@functools.cache
def has_amx() -> bool:
    """Whether the CPU has AMX, units that multiply tiles of matrices in bf16."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


def why_precision(precision: Precision, wanted: str) -> str:
    """The chosen precision with its reason.

    Args:
        wanted: the recipe's `precision`.
    """
    reason = "the hardware supports it" if precision == "bf16" else "the hardware has no bf16"
    return f"{precision}{f': {reason}' if wanted == 'auto' else ', as requested'}"
