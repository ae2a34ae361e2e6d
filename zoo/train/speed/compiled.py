"""torch.compile and CUDA graphs: deciding whether they pay for a run, and applying them."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from zoo.base.text import first_line
from zoo.catalogue.recipe import CompileMode, Recipe
from zoo.errors import DeviceError
from zoo.models.device import Hardware, mean_seconds
from zoo.train.speed.graphs import NotRecorded, Recorded

ASSUMED_SECONDS = 60.0
"""Seconds that a model's first compilation takes on a GPU, as long as none was timed on this machine.

It decides only whether it is tried.
"""

WORTH = 8.0
"""Compiling is tried if the run takes this many times as long as the trial."""

MARGIN = 2.0
"""Compiling is chosen if it saves this many times what a trial took: evaluation and augmentation are compiled too."""


class Choice(NamedTuple):
    """The compile mode of a run, and the reason for it."""

    mode: CompileMode
    why: str


class Pace(NamedTuple):
    """Seconds per step, without and with a CUDA graph, or why there is no graph."""

    plain: float
    recorded: float | None = None
    why_not: str = ""


class Measured(Protocol):
    """What compiling took, and how long a compiled step takes, in seconds."""

    @property
    def seconds(self) -> float:
        """Until the first step was done."""

    @property
    def step(self) -> float:
        """Each step after it."""


class Known(Protocol):
    """What this machine knows of compiling a model: see `zoo.train.speed.compile_trials`."""

    failed: str

    def known(self) -> Measured | None:
        """An earlier trial of the same model and batch."""

    def expected(self) -> float:
        """Seconds that a trial will take."""

    def made(self) -> Measured | None:
        """A trial, made now; None where the compiler fails (`failed` says why)."""


def choose(wanted: str, device: torch.device, steps: int, pace: Callable[[], Pace], trials: Known) -> Choice:
    """Choose the compile mode by weighing its cost against the length of the run.

    Args:
        wanted: the recipe's `compile`; anything but "auto" is taken as it is.
        steps: number of steps of the whole run. pace: measures a step; called on a GPU only.
        trials: what compiling takes and saves; a long run without a trial makes one.
    Raises:
        DeviceError: "graph" was requested and is not possible.
    """
    if wanted == "off":
        return Choice("off", "off, as requested")
    if wanted == "graph":
        if device.type != "cuda":
            raise DeviceError(f"--compile graph needs a CUDA GPU, but this run uses {device.type}; leave it out")
        if (measured := pace()).recorded is None:
            raise DeviceError(
                f"a step cannot be recorded as a CUDA graph ({measured.why_not}); leave out --compile graph"
            )
        return Choice("graph", "graph, as requested")
    if wanted == "default":
        return Choice("default", "default, as requested")
    if wanted == "max":
        return Choice("max", "max, as requested")
    if device.type != "cuda":
        return Choice("off", f"off: compiling rarely helps on a {device.type.upper()}; --compile default forces it")
    plain, recorded, why_not = pace()
    took = steps * min(plain, recorded or plain)
    trial = trials.known()
    if trial is None and took >= WORTH * trials.expected():
        trial = trials.made()
    if trial is None:
        sums = f"the run takes about {took:.0f} s, and trying the compiler about {trials.expected():.0f} s"
        sums = trials.failed or sums
    else:
        saved = took - steps * trial.step
        sums = f"compiling took {trial.seconds:.0f} s in a trial and saves {saved:.0f} s of about {took:.0f} s"
        if saved > MARGIN * trial.seconds:
            return Choice("default", f"default: {sums}")
    if recorded is not None and recorded < plain:
        return Choice("graph", f"graph: a step takes {1e3 * recorded:.2f} ms, {1e3 * plain:.2f} ms without; {sums}")
    return Choice("off", f"off: {sums}{f'; no CUDA graph: {why_not}' if why_not else ''}")


def why_no_graph(recipe: Recipe, hardware: Hardware) -> str:
    """Why a step cannot be recorded as a CUDA graph; "" if it can."""
    if recipe.accumulate > 1:
        return "it adds the gradients of several micro-batches"
    return "fp16 changes the scale of the loss between steps" if hardware.precision == "fp16" else ""


def measure_pace(module: nn.Module, shape: tuple[int, ...], hardware: Hardware, *, why_not: str = "") -> Pace:
    """Seconds of one forward and backward pass over random images of `shape` (B, C, H, W): medians of 9.

    Args:
        module: in training mode, on the device; its gradients and running statistics change.
        why_not: why a step cannot be recorded; "" if it can.
    """
    images = torch.rand(shape, device=hardware.device).to(memory_format=hardware.memory_format)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]

    def step(images: Tensor) -> Tensor:
        with hardware.autocast():
            loss = module(images).float().square().mean()
        loss.backward()
        return loss.detach()

    def plain(images: Tensor) -> None:
        step(images)
        for parameter in trained:
            parameter.grad = None

    seconds = _median_seconds(plain, images, hardware.device)
    if why_not:
        return Pace(seconds, None, why_not)
    recorded = Recorded(step, hardware.device, trained, must=True)
    try:
        return Pace(seconds, _median_seconds(recorded, images, hardware.device))
    except NotRecorded as error:
        return Pace(seconds, None, str(error))


def _median_seconds(step: Callable[[Tensor], object], images: Tensor, device: torch.device) -> float:
    took = [mean_seconds(lambda: step(images), 1, device) for _ in range(12)]
    return statistics.median(took[3:])


class Compiler:
    """Compiles and records functions; returns them unchanged if the mode is "off"."""

    def __init__(self, mode: CompileMode, device: torch.device) -> None:
        self.on, self.mode, self.device = mode in ("default", "max"), mode, device
        if self.on:  # it would warn at every start that there is no GPU
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

    def __call__(self, function: Callable[..., Any], *, graphs: bool = False) -> Callable[..., Any]:
        """Compile the function with torch.compile and static shapes.

        Args:
            graphs: let the compiler record CUDA graphs (on a GPU), so that a step is launched as one.
        """
        if not self.on:
            return function
        if self.mode == "max":
            mode = "max-autotune" if graphs or self.device.type != "cuda" else "max-autotune-no-cudagraphs"
        else:
            mode = "reduce-overhead" if graphs and self.device.type == "cuda" else "default"
        compiled = torch.compile(function, mode=mode, dynamic=False)
        return lambda *args: _call(compiled, args)

    def recorded(self, function: Callable[..., Any], parameters: Sequence[nn.Parameter] = ()) -> Callable[..., Any]:
        """Record the function as CUDA graphs, in the mode "graph".

        Args:
            parameters: the parameters whose gradients it computes.
        """
        return Recorded(function, self.device, parameters) if self.mode == "graph" else function

    def whole(self, function: Callable[..., Any], batch: int) -> Callable[[Tensor], Tensor]:
        """Compile the function for batches of one size; a smaller batch is padded, and the result is cut."""
        compiled = self(function, graphs=True)
        if not self.on:
            return compiled
        return lambda images: compiled(_filled(images, batch))[: len(images)].clone()

    def next_step(self) -> None:
        """Tell recorded graphs that the outputs of the last step are no longer needed."""
        if self.on and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()


def _filled(images: Tensor, batch: int) -> Tensor:
    missing = batch - len(images)
    return images if missing <= 0 else torch.cat((images, images[:1].expand(missing, *images.shape[1:])))


def _call(compiled: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return compiled(*args)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = first_line(error, None)
        raise DeviceError(f"the model could not be compiled ({reason}); train it with --compile off") from error
