"""Distillation: a student learns from what its teacher makes of the same augmented images, beside the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.data.augment.pipeline import Augment
from zoo.data.seeds import INIT, mix_seed
from zoo.errors import InputError
from zoo.evaluate.one_pass import Batches, Figures
from zoo.models.device import placed
from zoo.runs.images import make_augment
from zoo.train.loss import Loss
from zoo.train.optim.several import Several
from zoo.train.optim.without_compiler import without_compiler
from zoo.train.processes.world import Share, World
from zoo.train.set_loss import hits_of
from zoo.train.speed.compiled import Compiler
from zoo.train.student import Features, Heads
from zoo.train.teacher import distill_of

if TYPE_CHECKING:
    from zoo.train.plan import Plan
    from zoo.train.teacher import Teacher

PROJECTION = 1
"""Seed tag of the projection's initial weights."""

PROJECTION_LR = 1e-3
"""Peak learning rate of the projection, which AdamW trains whatever trains the model."""


def soft_distance(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's, times the squared temperature.

    Args:
        student, teacher: logits, float32 (B, K). temperature: what both are divided by.
    Returns:
        float32 (B,).
    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", section 2.
    """
    ours, theirs = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1) * temperature**2


def hard_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross entropy to the class that the teacher predicts, float32 (B,), of logits (B, K).

    Source: Touvron et al., "Training data-efficient image transformers", equation 3.
    """
    return F.cross_entropy(student, teacher.argmax(1), reduction="none")


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of the angle between two features, float32 (B,), of (B, D)."""
    return 1 - F.cosine_similarity(student, teacher, dim=1)


def trained_beside(optimizer: Optimizer, parameters: Iterable[nn.Parameter], lr: float, recipe_lr: float) -> Optimizer:
    """The optimizer of a model, and AdamW with it, which follows the same schedule for parameters beside the model.

    Args:
        lr: peak learning rate of these parameters. recipe_lr: that of the recipe.
    """
    parts = optimizer.parts if isinstance(optimizer, Several) else (optimizer,)
    fused = bool(optimizer.defaults.get("fused"))
    groups = [{"params": list(parameters), "lr_share": lr / recipe_lr}]
    beside = without_compiler(torch.optim.AdamW)(groups, lr=lr, weight_decay=0.0, fused=fused)
    return Several([*parts, beside])


class Lesson:
    """What the teacher of a run adds to its loss; without a teacher, every method returns what it was given.

    The teacher is in eval mode and gets no gradients. It sees the student's images as they were augmented, normalised
    and scaled as its own were.

    Attributes:
        whole: the module that is called at each step.
    """

    def __init__(self, plan: Plan, module: nn.Module, world: World, compiler: Compiler) -> None:
        """Bring the teacher to the device.

        Args:
            module: the student, in training.
        Raises:
            InputError: the features of either are not known, or would be divided among processes.
        """
        self.teacher, self.how, self.lr = plan.teacher, distill_of(plan.recipe), plan.recipe.lr
        self.whole = module
        self.projection: nn.Linear | None = None
        self.heads: Heads | None = None
        if plan.teacher is None:
            return
        where = plan.hardware.device
        self.module = placed(plan.teacher.classifier.module, where, plan.hardware.channels_last)
        self.module.eval().requires_grad_(False)
        self.prepare = _preparing(plan.teacher, make_augment(plan.record, where), where)
        self.columns = torch.tensor(plan.teacher.columns, device=where)
        self.taught = compiler(self._taught)
        if self.how.kind == "features":
            self._listen(plan, module, world)
        elif self.how.kind == "token":
            self.heads = Heads(module, plan.record.model)

    def _listen(self, plan: Plan, module: nn.Module, world: World) -> None:
        assert plan.teacher is not None
        if world.sharded:
            raise InputError("distill.kind features cannot be combined with --shard; set it to logits or hard")
        classes = plan.record.sizes.num_classes, plan.teacher.classifier.sizes.num_classes
        self.ours = Features(module, classes[0], plan.record.model)
        self.theirs = Features(self.module, classes[1], f"teacher {plan.recipe.teacher}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seed(plan.record.seed, INIT, PROJECTION))
            made = nn.Linear(self.ours.size, self.theirs.size)
        self.projection = made.to(plan.hardware.device)

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained beside the student."""
        return iter(()) if self.projection is None else self.projection.parameters()

    def optimizer(self, student: Optimizer) -> Optimizer:
        """The student's optimizer, and that of the projection with it."""
        if self.projection is None:
            return student
        return trained_beside(student, self.parameters(), PROJECTION_LR, self.lr)

    def targets(self, targets: Tensor, share: Share, count: int, drawn: torch.Generator) -> Tensor:
        """What is learnt of this process's images: their labels or class shares, as they are given."""
        del share, count, drawn
        return targets

    def judge(
        self,
        forward: Callable[[Tensor], Tensor],
        own: Loss,
        images: Tensor,
        targets: Tensor,
        labels: Tensor,
        count: float | Tensor,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """One forward pass: the mean loss of the images, and how many were classified rightly, scalars.

        Args:
            own: the loss of the labels. targets: labels (B,) or class shares (B, K). labels: those that are counted.
            count: what the images count together. weights: what each counts by itself, float32 (B,).
        """
        logits = self.labelled(forward(images))
        loss = own(logits.float(), targets, count, weights)
        loss = self(loss, images, logits, own.importance(targets, weights), count)
        return loss, hits_of(logits.detach(), labels)

    def measured(self, module: nn.Module, batches: Batches, *, first: int, **how: Any) -> Figures | None:
        """Another figure than the labels' of images that are held out: there is none."""
        del module, batches, first, how
        return None

    def labelled(self, logits: Tensor) -> Tensor:
        """The logits (B, K) that the labels are compared with: of two heads, those of the class token."""
        return logits if self.heads is None else self.heads.take(0)

    def __call__(
        self, loss: Tensor, images: Tensor, logits: Tensor, importance: Tensor | None, count: float | Tensor
    ) -> Tensor:
        """The loss of a batch with the teacher's share in it, a scalar.

        Args:
            loss: that of the labels. images: as the student saw them. logits: the student's, (B, K).
            importance: what each image counts, float32 (B,); None: all the same. count: what they count together.
        """
        if self.teacher is None:
            return loss
        with torch.no_grad():
            wanted = self.taught(images).float()
        each = self._distance(logits, wanted)
        distance = each.mean() if importance is None else (each * importance).sum() / count
        return torch.lerp(loss, distance, self.how.weight)

    def _taught(self, images: Tensor) -> Tensor:
        """What the teacher says of images that are prepared for the student: logits (B, K), or features (B, D)."""
        logits: Tensor = self.module(self.prepare(images))
        return self.theirs.take() if self.how.kind == "features" else logits[:, self.columns]

    def _distance(self, logits: Tensor, wanted: Tensor) -> Tensor:
        if self.projection is not None:
            return feature_distance(self.projection(self.ours.take()).float(), wanted)
        if self.heads is not None:
            return hard_distance(self.heads.take(1).float(), wanted)
        if self.how.kind == "hard":
            return hard_distance(logits.float(), wanted)
        return soft_distance(logits.float(), wanted, self.how.temperature)

    def exchange(self, world: World) -> None:
        """Average the projection's gradients over the processes, as those of the student are."""
        for parameter in self.parameters() if world.size > 1 else ():
            if parameter.grad is not None:
                world.sum(parameter.grad).div_(world.size)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it: the projection, and nothing of the teacher."""
        return {} if self.projection is None else {"projection": dict(self.projection.state_dict())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        if self.projection is not None:
            self.projection.load_state_dict(state["projection"])


class _Preparing:
    """Images that are prepared for a student, as its teacher takes them: other mean and std, another size."""

    def __init__(self, scale: Tensor, shift: Tensor, size: tuple[int, int]) -> None:
        self.scale, self.shift, self.size = scale, shift, size
        self.same = bool((scale == 1).all() and (shift == 0).all())

    def __call__(self, images: Tensor) -> Tensor:
        """Float (B, C, H, W) to float (B, C, H', W')."""
        images = images if self.same else images * self.scale + self.shift
        if images.shape[-2:] == self.size:
            return images
        return F.interpolate(images, self.size, mode="bilinear", antialias=True)


def _preparing(teacher: Teacher, student: Augment, device: torch.device) -> _Preparing:
    """From (x - mean)/std of the student to that of the teacher."""
    sizes = teacher.classifier.sizes
    size = (sizes.height, sizes.width)
    own = teacher.classifier.preprocessing.floats(size, sizes.num_classes, device)
    scale = own.scale / student.scale
    return _Preparing(scale, own.shift - student.shift * scale, size)
