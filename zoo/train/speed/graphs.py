"""CUDA graphs: the kernels of a function, recorded once and then launched together.

A step of a small model consists of hundreds of kernels of a few microseconds each, which a host cannot launch
as fast as a GPU runs them. Recording needs no compiler and changes no kernel, so the results are those of the
original function.
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
"""Calls before a recording, in which kernels are selected and workspaces allocated."""


class NotRecorded(RuntimeError):
    """A function that cannot be recorded, for example because the host reads a value from the device."""


class Recording(NamedTuple):
    """One recorded call: the memory of its inputs, its output, and the gradients that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Any
    gradients: list[Tensor | None]


class Recorded:
    """A function whose kernels on a CUDA device are recorded at the first call and replayed at later ones.

    Arguments are tensors, or tuples of tensors and plain values; each combination of shapes and plain values has
    its own recording. The output and the gradients are overwritten by the next call.

    Random numbers that the function draws on the device follow the seed that is set before each call, as without a
    recording; only at the recording call have the warm-up calls drawn before.
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
            function: its gradients are overwritten at each call, never accumulated.
            parameters: the parameters whose gradients it computes.
            must: raise NotRecorded if it cannot be recorded; else it is called directly, with a warning.
        """
        self.function, self.device, self.parameters, self.must = function, device, parameters, must
        self.recordings: dict[Any, Recording] = {}
        self.pool: Any = None
        self.plain = False

    def __call__(self, *args: Any) -> Any:
        """Call the function; its result is in memory that the next call reuses."""
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
        for buffer, given in zip(recording.inputs, tensors, strict=True):
            buffer.copy_(given, non_blocking=True)
        recording.graph.replay()
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.output

    def _record(self, leaves: list[Any], shape: Any) -> Recording:
        copies = [_copy(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args = tree_unflatten(copies, shape)
        main, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for number in range(WARM_UPS):
                self._forget_gradients()
                self._warm_up(args, last=number == WARM_UPS - 1)
        main.wait_stream(side)
        self._forget_gradients()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph, noise = torch.cuda.CUDAGraph(), torch.cuda.default_generators[_number(self.device)]
        clean = noise.clone_state().graphsafe_get_state()
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=side, capture_error_mode="thread_local"):
                output = self.function(*args)
        except RuntimeError as error:  # the warm-up worked, so the recording itself is not possible
            self._forget_gradients()
            noise.graphsafe_set_state(clean)  # the generator state of a failed recording cannot be used by plain calls
            raise NotRecorded(first_line(error, None)) from error
        inputs = [leaf for leaf in copies if isinstance(leaf, Tensor)]
        return Recording(graph, inputs, output, [parameter.grad for parameter in self.parameters])

    def _warm_up(self, args: Any, *, last: bool) -> None:
        """Call the function; at the last call, check that it does not wait for the device.

        Raises:
            NotRecorded: it waits.
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
    """A copy of a CUDA tensor; a tensor on the host is returned as it is, as recorded kernels never read it."""
    return tensor.clone() if tensor.is_cuda else tensor


def _number(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _key(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.stride(), leaf.device) if isinstance(leaf, Tensor) else leaf
