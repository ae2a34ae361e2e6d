"""A guard that keeps losses and gradients that are not finite from changing the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.catalogue.recipe import Recipe
from zoo.errors import TrainingError
from zoo.train.sharded import is_divided, whole

NEVER = 2**62


class Guard:
    """Checks the loss and the gradients of each step before the optimizer uses them.

    On a CPU, and if broken steps are skipped, the check is immediate. On a GPU, a flag on the device tells a
    fused optimizer not to use the gradients, and `check` reads later which step it was, so that the host does
    not wait for the device within an epoch.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer, recipe: Recipe, device: torch.device) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.buffers = [b for b in module.buffers() if b.is_floating_point()]
        self.optimizer, self.recipe = optimizer, recipe
        fused = bool(optimizer.defaults.get("fused"))
        self.waits = device.type == "cpu" or recipe.on_nan == "skip" or not fused
        self.first_bad = torch.full((), NEVER, dtype=torch.int64, device=device)
        self.statistics: list[Tensor] = []
        self.all, self.kept = list(module.buffers()), list[Tensor]()
        self.open = False  # whether a step's passes are under way
        self.skipped = 0

    def before(self) -> None:
        """Copy the running statistics, which the forward pass changes."""
        self.open = True
        if self.kept:
            torch._foreach_copy_(self.kept, self.all)
        elif self.all:
            self.kept = [buffer.clone() for buffer in self.all]
        if self.recipe.on_nan == "skip":
            self.statistics = [b.clone() for b in self.buffers]

    @torch.no_grad()
    def undo(self) -> None:
        """Take back what the passes of a step that did not end have changed."""
        for buffer, before in zip(self.all, self.kept, strict=True):
            buffer.copy_(before)
        for parameter in self.parameters:
            parameter.grad = None
        self.open = False

    def judged(self, loss: Tensor) -> Tensor:
        """Clip the gradients; returns whether they and the loss are finite, bool, on the device.

        It reads nothing on the host and keeps nothing, so that a CUDA graph can record it behind the backward pass.

        Args:
            loss: the step's summed loss, on the device.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = self._size(gradients)
        if self.recipe.clip_grad_norm:
            nn.utils.clip_grads_with_norm_(self.parameters, self.recipe.clip_grad_norm, norm)
        return norm.isfinite() & loss.isfinite()

    def allows(self, finite: Tensor, loss: Tensor, step: int, lr: float, rows: Tensor) -> bool:
        """Return whether the optimizer may use the gradients.

        Args:
            finite: what `judged` returned. loss: the step's summed loss, on the device. step: total steps before this
                one. rows: int64, the images of the batch, for the message.
        Raises:
            TrainingError: not finite, with `on_nan = "stop"` and an immediate check.
        """
        if not self.waits:
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        return self.passes(finite, loss, step, lr, rows)

    def passes(self, finite: Tensor, loss: Tensor, step: int, lr: float, rows: Tensor) -> bool:
        """The second half of `allows`: act on whether the step is finite.

        With fp16 only this half is needed, because the gradient scaler checks the gradients itself and skips a
        step in which they overflow.

        Args:
            finite: bool, on the device.
        """
        self.open = False
        if not self.waits:
            now = torch.full_like(self.first_bad, step)
            self.first_bad = torch.where(finite, self.first_bad, torch.minimum(self.first_bad, now))
            return True
        if finite.item():
            return True
        if self.recipe.on_nan == "stop":
            raise TrainingError(_message(loss.isfinite().item() is True, step, lr, rows.tolist()))
        for buffer, before in zip(self.buffers, self.statistics, strict=True):
            buffer.copy_(before)
        self.skipped += 1
        return False

    def _size(self, gradients: list[Tensor]) -> Tensor:
        """The norm of all gradients; without clipping, any number that is finite if and only if they are."""
        if self.recipe.clip_grad_norm or gradients[0].device.type != "cpu" or is_divided(gradients[0]):
            return whole(nn.utils.get_total_norm(gradients))
        flat = [gradient.flatten() for gradient in gradients]  # a dot product reads memory fastest
        return torch.stack([one.dot(one) for one in flat]).sum()

    def check(self, lr: float) -> None:
        """Check whether any step since the start was not finite; waits for the device.

        Raises:
            TrainingError: one was not; it did not change the weights.
        """
        if not self.waits and (step := int(self.first_bad.item())) < NEVER:
            raise TrainingError(_message(False, step, lr, []))


def _message(loss_is_finite: bool, step: int, lr: float, rows: list[int]) -> str:
    what = "the gradients are" if loss_is_finite else "the loss is"
    shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
    images = f", training images {shown}" if rows else ""
    return (
        f"{what} not finite in step {step + 1} (lr {lr:.3g}{images}); the step did not change the weights; "
        "lower --lr, set recipe.clip_grad_norm, or skip such steps with --on-nan skip"
    )
