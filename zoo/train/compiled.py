"""torch.compile: whether it pays for a run, and what of a step goes through it."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.errors import DeviceError
from zoo.spec import CompileMode
from zoo.train.device import Hardware

WARM_UP_SECONDS = 60.0
"""What compiling a model for training and for evaluation is taken to cost on a GPU: an assumption too."""

GAIN = 0.25
"""The share of an eager step on a GPU that compiling is taken to save: an assumption, not yet measured."""

MARGIN = 2.0
"""How many times its cost compiling must save before it is chosen."""


class Choice(NamedTuple):
    """How a run is compiled, and the reason in words."""

    mode: CompileMode
    why: str


def choose(wanted: str, device: torch.device, steps: int, step_seconds: Callable[[], float]) -> Choice:
    """Weigh the warm-up against the length of the run.

    Args:
        wanted: the recipe's `compile`; anything but "auto" is taken as it is.
        steps: of the whole run. step_seconds: measures an eager step; called on a GPU only.
    """
    if wanted == "off":
        return Choice("off", "off, as asked")
    if wanted == "default":
        return Choice("default", "default, as asked")
    if wanted == "max":
        return Choice("max", "max, as asked")
    if device.type != "cuda":
        return Choice(
            "off", f"off: on a {device.type.upper()} it is not known to pay; --compile default forces it"
        )
    eager = steps * step_seconds()
    saved = GAIN * eager
    sums = f"{saved:.0f} s of about {eager:.0f} s saved, {WARM_UP_SECONDS:.0f} s of compiling"
    if saved > MARGIN * WARM_UP_SECONDS:
        return Choice("default", f"default: {sums}")
    return Choice("off", f"off: {sums}")


def step_seconds(module: nn.Module, shape: tuple[int, ...], hardware: Hardware) -> float:
    """Seconds of one forward and backward pass over random images of `shape` (B, C, H, W): a median of 9."""
    images = torch.rand(shape, device=hardware.device).to(memory_format=hardware.memory_format)
    took = []
    for _ in range(12):
        torch.cuda.synchronize(hardware.device)
        start = time.perf_counter()
        with hardware.autocast():
            loss = module(images).float().square().mean()
        loss.backward()
        torch.cuda.synchronize(hardware.device)
        took.append(time.perf_counter() - start)
    return statistics.median(took[3:])


class Compiler:
    """Compiles what it is called with; gives it back unchanged where the mode is "off"."""

    def __init__(self, mode: CompileMode, device: torch.device) -> None:
        self.on, self.mode, self.device = mode != "off", mode, device
        if self.on:  # it says at every start that a CPU is no GPU
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

    def __call__(self, function: Callable[..., Any], *, graphs: bool = False) -> Callable[..., Any]:
        """The function through torch.compile, with static shapes.

        Args:
            graphs: record CUDA graphs (on a GPU), so that a step is launched as one.
        """
        if not self.on:
            return function
        if self.mode == "max":
            mode = "max-autotune" if graphs or self.device.type != "cuda" else "max-autotune-no-cudagraphs"
        else:
            mode = "reduce-overhead" if graphs and self.device.type == "cuda" else "default"
        compiled = torch.compile(function, mode=mode, dynamic=False)
        return lambda *args: _call(compiled, args)

    def whole(self, function: Callable[..., Any], batch: int) -> Callable[[Tensor], Tensor]:
        """The function compiled for batches of one size: a smaller one is filled up, and cut afterwards."""
        compiled = self(function, graphs=True)
        if not self.on:
            return compiled
        return lambda images: compiled(_filled(images, batch))[: len(images)].clone()

    def next_step(self) -> None:
        """Tell recorded graphs that what the last step gave is no longer needed."""
        if self.on and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()


def _filled(images: Tensor, batch: int) -> Tensor:
    missing = batch - len(images)
    return images if missing <= 0 else torch.cat((images, images[:1].expand(missing, *images.shape[1:])))


def _call(compiled: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return compiled(*args)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise DeviceError(
            f"the model could not be compiled ({reason}); train it with --compile off"
        ) from error
