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
from typing import Any, Final

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


class Muon(WithoutCompiler):
    """Muon with Nesterov momentum; kernels of convolutions count as matrices (out, in * height * width).

    Attributes:
        found_inf: 0-dimensional, on the device: not 0 where the gradients must not be used, as for torch's
            fused optimizers (whose mark, `fused`, it bears for that reason).
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        sphere: bool = False,
    ) -> None:
        """Take parameters of two axes or more.

        Args:
            weight_decay: decoupled. sphere: keep each matrix's norm at the square root of its rows, so
                that lr is relative; else updates have Adam's root mean square.
        Raises:
            ValueError: a parameter of fewer axes.
        """
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "sphere": sphere}
        super().__init__(params, defaults | {"fused": True})
        for group in self.param_groups:
            if any(p.ndim < 2 for p in group["params"]):
                raise ValueError("Muon takes matrices and kernels only, not vectors")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        del closure
        for group in self.param_groups:
            kinds: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    kinds.setdefault(parameter.shape, []).append(parameter)
            for parameters in kinds.values():
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One step for parameters of one shape: their matrices go through the iteration together."""
        use = 1.0 if self.found_inf is None else (self.found_inf == 0).float()
        ahead = [self._momentum(p, group["momentum"]) for p in parameters]
        flat = torch.stack([g.flatten(1) for g in ahead])
        rows, columns = flat.shape[1:]
        updates = orthogonal(flat, SPHERE_STEPS if group["sphere"] else STEPS)
        scale = 1.0 if group["sphere"] else RMS * math.sqrt(max(rows, columns))
        for parameter, update in zip(parameters, updates, strict=True):
            if group["sphere"]:
                parameter.mul_(1 + use * (math.sqrt(rows) / parameter.norm() - 1))
            if group["weight_decay"]:
                parameter.mul_(1 - use * (group["lr"] * group["weight_decay"]))
            change = update.view(parameter.shape).to(parameter.dtype)
            parameter.sub_(change * (group["lr"] * scale * use))

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Add the gradient to the running sum; the sum as it will be one step ahead."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        if self.found_inf is None:
            buffer.mul_(momentum).add_(gradient)
        else:
            usable = self.found_inf == 0
            buffer.copy_(torch.where(usable, buffer * momentum + gradient, buffer))
            gradient = torch.where(usable, gradient, 0.0)
        return gradient.add(buffer, alpha=momentum)
