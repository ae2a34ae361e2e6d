"""Muon: momentum whose direction is made orthogonal, matrix by matrix.

Sources:
    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the update.
    Liu et al., "Muon is Scalable for LLM Training" (2025), equation 4: the scale of `muon`.
    Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024) and its successors: weights of
    constant norm, `muon-sphere`.

`torch.optim.Muon` (2.14) does not fit: it refuses kernels of convolutions, has neither `found_inf` nor weights of
constant norm, and iterates in bfloat16 on a CPU too, matrix by matrix; after five steps of 36 matrices, which moved
their weights by 5e-4, the two differed by up to 3e-5. On a CPU its steps took half the time of ours for that
(159 and 348 ms, one thread). In bfloat16 both iterations give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from zoo.train.optim.without_compiler import WithoutCompiler

COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
"""Of the odd quintic a x + b x^3 + c x^5 that brings singular values near 1, quickly rather than exactly."""

STEPS, SPHERE_STEPS = 5, 3
RMS = 0.2
"""Root mean square of an update of Adam's, which `muon`'s are scaled to: one lr then suits both."""


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """Bring the singular values of each matrix near 1 (0.7..1.2) by Newton-Schulz steps.

    Args:
        matrices: float (N, R, C). steps: 5, or 3 where rougher is good enough.
    Returns:
        (N, R, C), bfloat16 on a GPU, else as given.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.device.type == "cuda" else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _is_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _matrices(tensors: Iterable[Tensor], last: bool) -> Tensor:
    """Tensors of one shape as matrices, (N, R, C).

    Args:
        last: the columns of a kernel stay in the order of channels-last memory, which saves a copy of each one. Their
            order changes nothing but rounding: the iteration turns with it.
    """
    return torch.stack([(tensor.permute(0, 2, 3, 1) if last else tensor).flatten(1) for tensor in tensors])


def _shaped(matrices: Tensor, like: Tensor, last: bool) -> list[Tensor]:
    """`_matrices` back as tensors of the shape of `like`, without a copy."""
    if not last:
        return [matrix.view(like.shape) for matrix in matrices.unbind()]
    rows, columns, height, width = like.shape
    return [matrix.view(rows, height, width, columns).permute(0, 3, 1, 2) for matrix in matrices.unbind()]


class _Layers(NamedTuple):
    """Parameters of one shape and one group.

    Attributes:
        last: whether they lie channels-last. ahead: their momentum as it will be one step ahead.
    """

    group: dict[str, Any]
    last: bool
    parameters: list[Tensor]
    ahead: list[Tensor]

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of each one as a matrix."""
        first = self.parameters[0]
        return len(first), first.numel() // len(first)


class Muon(WithoutCompiler):
    """Muon with Nesterov momentum; kernels of convolutions count as matrices (out, in * height * width).

    Layers of one shape are iterated in one batch, and sums over lists of layers are made at once, so that a GPU gets
    a few dozen kernels for each shape rather than for each layer.

    Attributes:
        found_inf: 0-dimensional, on the device: not 0 where the gradients must not be used, as for torch's
            fused optimizers (whose mark, `fused`, it bears for that reason).
        together: whether the batches cross groups, and hold matrices with their transposes.
    """

    found_inf: Tensor | None = None
    together = False

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        sphere: bool = False,
        together: bool | None = None,
    ) -> None:
        """Take parameters of two axes or more.

        Args:
            weight_decay: decoupled. sphere: keep each matrix's norm at the square root of its rows, so
                that lr is relative; else updates have Adam's root mean square.
            together: None: on a GPU only, as it changes rounding, and a run on a CPU repeats to the bit.
        Raises:
            ValueError: a parameter of fewer axes.
        """
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "sphere": sphere}
        super().__init__(params, defaults | {"fused": True})
        parameters = [p for group in self.param_groups for p in group["params"]]
        if any(p.ndim < 2 for p in parameters):
            raise ValueError("Muon takes matrices and kernels only, not vectors")
        self.together = any(p.is_cuda for p in parameters) if together is None else together

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        del closure
        usable = None if self.found_inf is None else self.found_inf == 0
        use = 1.0 if usable is None else usable.float()
        batches: dict[Any, list[_Layers]] = {}
        for number, group in enumerate(self.param_groups):
            for layers in self._momenta(group, usable):
                own = (number, layers.parameters[0].shape, layers.last)
                key = (*sorted(layers.sides), group["sphere"]) if self.together else own
                batches.setdefault(key, []).append(layers)
        for batch in batches.values():
            self._update(batch, use)

    def _momenta(self, group: dict[str, Any], usable: Tensor | None) -> list[_Layers]:
        """Add the gradients to their running sums; the layers of the group by their shapes, and those sums."""
        kinds: dict[Any, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                kinds.setdefault((parameter.shape, _is_last(parameter)), []).append(parameter)
        momentum, parameters = group["momentum"], [p for alike in kinds.values() for p in alike]
        gradients = [g for (_, last), alike in kinds.items() for g in _gradients(alike, usable, last)]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        if not parameters:
            return []
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        # Gradients that are not usable are zeros here, and times 1 a sum stays as it is.
        torch._foreach_mul_(buffers, momentum if usable is None else torch.where(usable, momentum, 1.0))
        torch._foreach_add_(buffers, gradients)
        ahead = iter(torch._foreach_add(gradients, buffers, alpha=momentum))
        return [_Layers(group, last, alike, list(islice(ahead, len(alike)))) for (_, last), alike in kinds.items()]

    def _update(self, batch: list[_Layers], use: float | Tensor) -> None:
        """Change the parameters of layers that are iterated together.

        Args:
            use: 0: their gradients must not be used, else 1.
        """
        matrices = [_matrices(layers.ahead, layers.last) for layers in batch]
        if self.together:  # all of them lying
            matrices = [m.mT if m.shape[1] > m.shape[2] else m for m in matrices]
        steps = SPHERE_STEPS if batch[0].group["sphere"] else STEPS
        found = orthogonal(torch.cat(matrices) if len(matrices) > 1 else matrices[0], steps)
        for layers, update in zip(batch, found.split([len(m) for m in matrices]), strict=True):
            (group, last, parameters, _), (rows, columns) = layers, layers.sides
            scale = 1.0 if group["sphere"] else RMS * math.sqrt(max(rows, columns))
            update = update.mT if self.together and rows > columns else update
            changes = update.to(parameters[0].dtype) * (group["lr"] * scale * use)
            if group["sphere"]:
                norms = torch.stack(torch._foreach_norm(parameters))
                torch._foreach_mul_(parameters, (1 + use * (math.sqrt(rows) / norms - 1)).unbind())
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - use * (group["lr"] * group["weight_decay"]))
            torch._foreach_sub_(parameters, _shaped(changes.contiguous(), parameters[0], last))


def _gradients(parameters: list[Tensor], usable: Tensor | None, last: bool) -> list[Tensor]:
    """The gradients of parameters of one shape; zeros if they are not usable."""
    given = [p.grad for p in parameters if p.grad is not None]
    if usable is None:
        return given
    return _shaped(torch.where(usable, _matrices(given, last), 0.0), parameters[0], last)
