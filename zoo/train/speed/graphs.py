"""CUDA graphs: what a function of tensors does on the device, recorded once and launched as one.

A small model's step is hundreds of kernels of a few microseconds each, which a host cannot launch as fast as
a GPU runs them. A recording needs no compiler and changes no kernel, so that its numbers are those of the
plain function.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from zoo.base.text import first_line

WARM_UPS = 3
"""Calls before a recording: kernels are chosen, and workspaces made, outside of it."""


class NotRecorded(RuntimeError):
    """A function that cannot be a CUDA graph, as one that reads a value of the device on the host."""


class Recording(NamedTuple):
    """One recorded call: where its arguments are read, what it gives, and the gradients that it leaves."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Any
    gradients: list[Tensor | None]


class Recorded:
    """A function whose work on a CUDA device is recorded at its first call, and replayed at every other.

    Arguments are tensors, or tuples of them and of plain values; each combination of shapes and plain values has a
    recording of its own. What is given back is overwritten by the next call, and so are the gradients.

    Random numbers that the function draws on the device follow the seed set before each call, as they would
    without a recording; but at the call that records, other calls have drawn before.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        device: torch.device,
        parameters: Sequence[nn.Parameter] = (),
        *,
        must: bool = False,
    ) -> None:
        """Record nothing yet.

        Args:
            function: its gradients are set anew at each call, never added to.
            parameters: whose gradients it gives.
            must: raise NotRecorded where it cannot be recorded; else it is called as it is, and a warning says so.
        """
        self.function, self.device, self.parameters, self.must = function, device, parameters, must
        self.recordings: dict[Any, Recording] = {}
        self.pool: Any = None
        self.plain = False

    def __call__(self, *args: Any) -> Any:
        """What the function gives for these arguments, in memory that the next call uses again."""
        if self.plain:
            return self.function(*args)
        leaves, shape = tree_flatten(args)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (shape, *(_key(leaf) for leaf in leaves))
        recording = self.recordings.get(key)
        if recording is None:
            try:
                recording = self.recordings[key] = self._record(leaves, shape)
            except NotRecorded as error:
                if self.must:
                    raise
                logging.getLogger(__name__).warning("a step is not recorded as a CUDA graph: %s", error)
                self.plain, self.recordings = True, {}
                return self.function(*args)
        for kept, given in zip(recording.inputs, tensors, strict=True):
            kept.copy_(given, non_blocking=True)
        recording.graph.replay()
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.output

    def _record(self, leaves: list[Any], shape: Any) -> Recording:
        kept = [_copy(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args = tree_unflatten(kept, shape)
        here, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for number in range(WARM_UPS):
                self._forget_gradients()
                self._warm_up(args, last=number == WARM_UPS - 1)
        here.wait_stream(side)
        self._forget_gradients()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph, noise = torch.cuda.CUDAGraph(), torch.cuda.default_generators[_number(self.device)]
        clean = noise.clone_state().graphsafe_get_state()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=side, capture_error_mode="thread_local"):
                output = self.function(*args)
        except RuntimeError as error:  # the warm-up worked: what fails now is what a recording does not allow
            self._forget_gradients()
            noise.graphsafe_set_state(clean)  # the one that was recorded with stays closed to plain calls
            raise NotRecorded(first_line(error, None)) from error
        inputs = [leaf for leaf in kept if isinstance(leaf, Tensor)]
        return Recording(graph, inputs, output, [parameter.grad for parameter in self.parameters])

    def _warm_up(self, args: Any, *, last: bool) -> None:
        """Call the function; the last time, refuse one that waits for the device.

        Raises:
            NotRecorded: it does.
        """
        if not last:
            self.function(*args)
            return
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Synchronization debug mode")
            torch.cuda.set_sync_debug_mode("error")
        try:
            self.function(*args)
        except RuntimeError as error:
            self._forget_gradients()
            raise NotRecorded(first_line(error, None)) from error
        finally:
            torch.cuda.set_sync_debug_mode(before)

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def _copy(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own; one on the host stays as it is: nothing that is recorded may read it."""
    return tensor.clone() if tensor.is_cuda else tensor


def _number(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _key(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.stride(), leaf.device) if isinstance(leaf, Tensor) else leaf
