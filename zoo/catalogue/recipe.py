"""A recipe: how a model is trained, as frozen structs; `zoo.catalogue.spec` offers them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from zoo.base.structs import Count, Fraction, NonNegative, Positive, PositiveFloat, Struct
from zoo.catalogue.augmentation import Step

TestTimeViews = Literal["none", "mirror", "mirror-translate", "dihedral"]
"""What logits are averaged over when a result is measured: see `zoo.evaluate.views`."""

CompileMode = Literal["off", "graph", "default", "max"]
"""How a step is run: kernel by kernel; recorded as a CUDA graph; through torch.compile, with graphs on a GPU;
the same with kernels tuned by trying."""

Sampler = Literal["shuffled", "balanced", "sqrt"]
"""How often an epoch shows the images of each class: see `zoo.data.batches.sampler`."""

SELECTED_BY = MappingProxyType(
    {"top1": "top1", "balanced-top1": "balanced_accuracy", "macro-f1": "macro_f1", "map": "map", "loss": "loss"}
)
"""The metric of an epoch that each rule `select` looks at; "last" looks at none. Of a loss, less is better."""


Normalize = Literal["dataset", "imagenet", "none"] | bool
"""What a recipe's images are normalised by; `true` is "dataset", and `false` is "none"."""


class Group(Struct, frozen=True):
    """A rule of a recipe for parameters that are trained otherwise; the first rule that fits one counts.

    Attributes:
        match: "vectors" (norms, biases, and what a module wants no decay for), "matrices" (the rest),
            "first" or "last" (that layer's own), or a pattern of names: "stem.*.bias".
        optimizer: Optimizer of these parameters. Not set: the recipe's.
        lr: Peak learning rate of these parameters. Not set: the recipe's.
        momentum: Momentum of these parameters. Not set: the recipe's.
        weight_decay: Weight decay of these parameters. Not set: the recipe's.
        epochs: Epoch at which their schedule ends; from then on they stay as they are. Not set: the last.
    """

    match: str
    optimizer: str | None = None
    lr: PositiveFloat | None = None
    momentum: Fraction | None = None
    weight_decay: NonNegative | None = None
    epochs: PositiveFloat | None = None


class Lookahead(Struct, frozen=True):
    """Slow weights that follow the fast ones every few steps, and that the fast ones then go back to.

    Attributes:
        every: Steps after which the slow weights move and the fast ones go back to them.
        alpha: Share of the way to the fast weights that the slow ones move.
        power: How alpha falls from 1 to its value: as 1 - (1 - alpha) * progress**power. 0: it is constant.
    """

    every: Positive = 5
    alpha: Fraction = 0.5
    power: NonNegative = 0.0


class Distill(Struct, frozen=True):
    """How a model learns from its recipe's `teacher`: the loss is (1 - weight) * its own + weight * the distance.

    Attributes:
        kind: What the distance is taken of. "logits": of the probabilities of the classes at a `temperature`
            (Kullback-Leibler divergence, times the square of the temperature). "hard": the cross entropy to the class
            that the teacher predicts. "token": the same of a vision transformer's distillation token, whose head
            learns from the teacher alone, while the labels teach the class token (DeiT). "features": 1 - cosine of
            what the last layer reads, after a linear map of the model's to the size of the teacher's; the classes may
            be others.
        weight: Share of the distance in the loss. 1: labels do not count.
        temperature: What logits are divided by, for "logits".
    """

    kind: Literal["logits", "hard", "token", "features"] = "logits"
    weight: Fraction = 0.5
    temperature: PositiveFloat = 2.0


class Mask(Struct, frozen=True):
    """What the objective "masked" hides of each image.

    Attributes:
        patch: Side of the squares that are hidden, in pixels.
        share: Share of the squares that are hidden, at least one and not all.
    """

    patch: Positive = 4
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.6


class Recipe(Struct, frozen=True):
    """How a model is trained. Every field can be overridden by `--set recipe.<field>=<value>`.

    Attributes:
        summary: What the recipe is, in one line.
        source: Key of the paper or report whose recipe this is, if any.
        epochs: Passes over the training split.
        batch_size: Images per step, over all processes.
        optimizer: "adam", "adamw", "sgd", "nesterov", "muon", "muon-sphere" (see `zoo.train.optim.muon`),
            "torch:NAME" or "timm:NAME".
        groups: Rules for parameters that are trained otherwise; the first rule that fits a parameter counts.
        lr: Peak learning rate.
        layer_decay: Each layer's learning rate as a share of the next layer's; the head has `lr`. 1: all the same.
            See `zoo.train.optim.layerwise`.
        freeze: What is not trained: "backbone" (all but the head), "all-but-last" (all but the layer that
            gives the logits), or a list of patterns of parameter names. Frozen batch norms keep their statistics.
        momentum: Momentum, for optimizers that have one (sgd, nesterov, muon).
        betas: Decay rates of the means of gradient and squared gradient, for optimizers like adam.
        eps: Added to the denominator of the update, for optimizers like adam.
        weight_decay: Weight decay: coupled (L2) for adam and sgd, decoupled for adamw and muon, as in torch.
        decay: Which parameters decay: "all", or "matrices" (not norms, biases, position embeddings, tokens).
        schedule: Shape of the learning rate over the run.
        warmup_epochs: Epochs at the start in which the learning rate rises linearly from 0.
        final_lr: Last learning rate as a fraction of the peak.
        dropout: Probability of every dropout of the model. Not set: the model's own.
        label_smoothing: Share of each label that is spread evenly over all classes.
        objective: What is learnt: the classes of the images ("labels"), or, without labels, the pixels of squares that
            are hidden from the model ("masked"). See `zoo.train.masked_images`.
        mask: What "masked" hides. Not set: 0.6 of the squares of 4x4 pixels.
        loss: What is minimised: "cross-entropy"; "focal" (cross entropy that counts images less which the model is
            sure of); or "bce" (each class against all others, averaged over the classes). See `zoo.train.loss`.
        focal_gamma: How much less "focal" counts them: by (1 - probability)**gamma. 0: not at all.
        class_weights: What images of each class count in the loss: all the same ("none"), by the inverse of
            their number ("balanced"), or a table of weights by class name or number; classes that it leaves out
            count 1.
        sampler: How often an epoch shows each image: once ("shuffled"), or drawn with replacement so that all classes
            are shown equally often ("balanced"), or in proportion to the square root of their size ("sqrt").
        teacher: A trained model to learn from beside the labels: a run, NAME@DATASET, hf://OWNER/NAME or timm/NAME.TAG.
            Not set: none.
        distill: How the model learns from the teacher. Not set: as `logits`.
        clip_grad_norm: Largest norm of the gradient; a longer one is scaled down to it. 0: off.
        accumulate: Micro-batches that a step's batch is split into, to save memory.
        checkpointing: Whether the blocks of the model keep their input only, and are computed a second time in the
            backward pass: less memory, the same gradients. See `zoo.train.speed.recomputed`.
        ema: Decay per step of the averaged weights, which are evaluated and kept; less in a run's first steps.
            0: off.
        precise_bn: Training images from which batch norm's statistics are computed before each evaluation.
            0: the running statistics are used.
        lookahead: Slow weights that the trained ones go back to. Not set: none.
        augment: Augmentation steps in their order, each a table with `op`.
        normalize: Mean and std that pixel values in 0..1 are normalised by. "dataset" (or true): those of the dataset,
            or of the weights that the run begins with; where neither names them, they are measured on the training
            images. "imagenet": those of ImageNet. "none" (or false): none, values stay in 0..1.
        image_size: Side that images are resized to, in pixels. Not set: the dataset's own size.
        precision: Number format of the computation; "auto" is bf16 where the hardware has it.
        channels_last: Whether images lie in memory with the channels last. Not set: decided by the device.
        compile: How a step is run: "off" (kernel by kernel), "graph" (recorded as a CUDA graph), "default"
            (torch.compile), "max" (the same with tuned kernels); "auto" times a step, and weighs the
            compiler's warm-up against the length of the run.
        sync_batch_norm: With several processes: whether batch norms see the rows of all of them, as one process
            does. false: each sees its own rows, which is faster and not the same.
        tta: Views that a recorded result averages logits over: the image ("none"), its mirror image too
            ("mirror"), both moved by a pixel either way as well ("mirror-translate"), or a square image turned
            by quarters, and its mirror image likewise ("dihedral": eight views).
        tta_margin: Images are seen over these views only if their two largest probabilities differ by less than this
            in the image itself; others by themselves. Not set: all images are seen over all views.
        select: Which epoch's weights are kept: of the best top-1 ("top1"), of the best mean accuracy ("balanced-top1")
            or F1 ("macro-f1") of the classes, of the best mean average precision ("map", of images with several
            labels), of the lowest loss ("loss"), or of the last epoch ("last").
        patience: Epochs without a better one after which training stops. 0: never.
        on_nan: At a step whose loss or gradients are not finite: "stop" before it, or "skip" it.
    """

    summary: str = ""
    source: str | None = None
    epochs: Positive = 50
    batch_size: Positive = 64
    optimizer: str = "adam"
    groups: tuple[Group, ...] = ()
    lr: PositiveFloat = 1e-3
    layer_decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    freeze: Literal["none", "backbone", "all-but-last"] | tuple[str, ...] = "none"
    momentum: Fraction = 0.9
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegative = 0.0
    decay: Literal["all", "matrices"] = "all"
    schedule: Literal["constant", "cosine", "linear", "onecycle"] = "constant"
    warmup_epochs: NonNegative = 0.0
    final_lr: Fraction = 0.0
    dropout: Fraction | None = None
    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    objective: Literal["labels", "masked"] = "labels"
    mask: Mask | None = None
    loss: Literal["cross-entropy", "focal", "bce"] = "cross-entropy"
    focal_gamma: NonNegative = 2.0
    class_weights: Literal["none", "balanced"] | dict[str, NonNegative] = "none"
    sampler: Sampler = "shuffled"
    teacher: str | None = None
    distill: Distill | None = None
    clip_grad_norm: NonNegative = 0.0
    accumulate: Positive = 1
    checkpointing: bool = False
    ema: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    precise_bn: Count = 0
    lookahead: Lookahead | None = None
    augment: tuple[Step, ...] = ()
    normalize: Normalize = "dataset"
    image_size: Positive | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool | None = None
    compile: Literal["auto", "off", "graph", "default", "max"] = "auto"
    sync_batch_norm: bool = True
    tta: TestTimeViews = "none"
    tta_margin: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    select: Literal["top1", "balanced-top1", "macro-f1", "map", "loss", "last"] = "top1"
    patience: Count = 0
    on_nan: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        """Write `normalize` as records always have: their hashes stay, and both words of each pair are one."""
        if self.normalize in ("dataset", "none"):
            msgspec.structs.force_setattr(self, "normalize", self.normalize == "dataset")
