"""Which device, precision and memory layout a run uses, and what is set on the process for it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import nn

from zoo.base import cpus
from zoo.base.heap import keeps_heap
from zoo.base.text import plural
from zoo.catalogue.recipe import CompileMode
from zoo.errors import DeviceError, InputError
from zoo.models.max_pool import use_row_pools
from zoo.models.precision import Precision, autocast, why_precision
from zoo.models.window import use_window_convolutions


class Hardware(NamedTuple):
    """What was chosen: device, number type of the forward pass, memory layout of images, compiler."""

    device: torch.device
    precision: Precision
    channels_last: bool
    compile: CompileMode = "off"

    @property
    def memory_format(self) -> torch.memory_format:
        """torch's name of the images' layout."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass in this precision; fp32 on CUDA is as `tf32` says outside of it."""
        return contextlib.nullcontext() if self.precision == "fp32" else autocast(self.device, self.precision)


def weights_format(device: torch.device, channels_last: bool) -> torch.memory_format:
    """The layout of weights: that of the images, but contiguous on a CPU.

    There the images' layout alone decides which kernel a convolution takes, and a fused optimizer copies
    every weight, gradient and moment that is not contiguous, to and fro, at each step.
    """
    channels_last = channels_last and device.type != "cpu"
    return torch.channels_last if channels_last else torch.contiguous_format


def placed(module: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """The module on a device, its weights laid out and its convolutions done as suits it; changed in place."""
    module = module.to(device).to(memory_format=weights_format(device, channels_last))
    return quick_layers(module) if device.type == "cpu" else module


def quick_layers(module: nn.Module) -> nn.Module:
    """A module on a CPU, whose pools and convolutions of some kinds are done faster from now on; changed in place."""
    return use_row_pools(use_window_convolutions(module))


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto": CUDA, else Apple's MPS, else the CPU, with no more threads than it may use.

    Raises:
        InputError: not a device's name. DeviceError: one that this machine or this torch does not have.
    """
    device = _pick(name)
    if device.type == "cpu":
        limit_threads()
    return device


def _pick(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"no device named {name!r}; allowed: auto, cpu, cuda, cuda:N, mps") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        available = ", ".join(kind for kind, is_present in present.items() if is_present)
        raise DeviceError(f"device {name!r} is not available on this machine (available: {available})")
    return device


def limit_threads() -> None:
    """Let torch use no more threads than the affinity and the quota of CPU time of this process allow.

    More threads wait for one another and for their turn, and training takes several times as long. A number in
    OMP_NUM_THREADS or MKL_NUM_THREADS is kept, and without such a limit nothing changes.
    """
    if not threads_as_asked() and cpus.usable() < torch.get_num_threads():
        torch.set_num_threads(cpus.usable())


def threads_as_asked() -> str:
    """The environment variable that sets how many threads torch uses; "" if none does."""
    return next((name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name)), "")


def threads_in_words() -> str:
    """How many threads torch uses on a CPU, and why."""
    count, limit, variable = plural(torch.get_num_threads(), "thread"), cpus.quota(), threads_as_asked()
    if variable:
        return f"{count}: {variable} is set"
    cores = plural(cpus.affinity(), "CPU")
    limited = limit is not None and limit < cpus.affinity()
    why = f"a quota of {limit:g} of {cores}" if limited else f"torch's own choice for {cores}"
    return f"{count}: {why} (OMP_NUM_THREADS sets another number)"


def pick_layout(wanted: bool | None, module: nn.Module, device: torch.device, precision: Precision) -> bool:
    """Whether to use channels-last, which makes convolutions faster on CUDA, and in bf16 on a CPU."""
    if wanted is not None:
        return wanted
    convolutional = any(isinstance(m, nn.Conv2d) for m in module.modules())
    return convolutional and device.type in ("cuda", "cpu") and precision != "fp32"


def reasons(hardware: Hardware, wanted: str) -> tuple[str, ...]:
    """The chosen device, precision and layout with their reasons, a line each.

    Args:
        wanted: the recipe's `precision`.
    """
    device = hardware.device
    kept = device.type == "cpu" and keeps_heap()
    heap = "; freed memory is kept for reuse (ZOO_KEEP_HEAP=0 turns this off)" if kept else ""
    layout = "channels-last (faster convolutions)" if hardware.channels_last else "contiguous"
    threads = (threads_in_words(),) if device.type == "cpu" else ()
    return (
        f"device {device}: {describe(device)}{heap}",
        *threads,
        f"precision {why_precision(hardware.precision, wanted)}",
        f"layout {layout}",
    )


def seed_noise(seed: int, device: torch.device) -> None:
    """As `torch.manual_seed`, for one device: asking for all that there might be costs half a millisecond."""
    signed = seed - 2**64 if seed >= 2**63 else seed  # as a generator takes it
    torch.default_generator.manual_seed(signed)
    if device.type == "cuda":
        torch.cuda.manual_seed(signed)
    elif device.type == "mps":
        torch.mps.manual_seed(signed)


def describe(device: torch.device) -> str:
    """The device in words, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    name = str(torch.cpu.get_capabilities().get("cpu_name", "")) or "CPU"
    return f"{name}, {plural(torch.get_num_threads(), 'thread')}"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def mean_seconds(call: Callable[[], object], calls: int, device: torch.device) -> float:
    """Mean seconds per call over several calls in a row, waiting for the device before and after them."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / calls


def usable_device(recorded: str) -> str:
    """The recorded device if this machine has it, else the default one."""

    try:
        return str(pick_device(recorded))
    except DeviceError:
        return str(pick_device("auto"))
