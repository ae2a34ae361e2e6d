"""A recipe: how a model is trained, as frozen structs; `zoo.catalogue.spec` offers them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from zoo.base.structs import Count, Fraction, NonNegative, Positive, PositiveFloat, Struct
from zoo.catalogue.augmentation import Step

TestTimeViews = Literal["none", "mirror", "mirror-translate", "dihedral"]
"""What logits are averaged over when a result is measured: see `zoo.evaluate.views`."""

CompileMode = Literal["off", "graph", "default", "max"]
"""How a step is run: kernel by kernel; recorded as a CUDA graph; through torch.compile, with graphs on a GPU;
the same with kernels tuned by trying."""


class Group(Struct, frozen=True):
    """A rule of a recipe for parameters that are trained otherwise; the first rule that fits one counts.

    Attributes:
        match: "vectors" (norms, biases, and what a module wants no decay for), "matrices" (the rest),
            "first" or "last" (that layer's own), or a pattern of names: "stem.*.bias".
        optimizer, lr, momentum, weight_decay: as in the recipe; None: the recipe's own.
        epochs: the schedule ends after so many epochs, and the parameters then stay as they are.
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
        every: steps between two meetings. alpha: the share of the way that the slow ones go.
        power: alpha falls to its value from 1 as 1 - (1 - alpha) * progress**power; 0: it stays.
    """

    every: Positive = 5
    alpha: Fraction = 0.5
    power: NonNegative = 0.0


class Recipe(Struct, frozen=True):
    """How a model is trained. Every field can be overridden by `--set recipe.<field>=<value>`.

    Attributes:
        summary: one line. source: key of the paper whose recipe this is, if any.
        epochs: passes over the training split. batch_size: images per step, over all processes.
        optimizer: "adam", "adamw", "sgd", "nesterov", "muon", "muon-sphere" (see `zoo.train.optim.muon`),
            "torch:NAME" or "timm:NAME".
        groups: rules for parameters that are trained otherwise.
        lr: peak learning rate. momentum, betas, eps: the optimizer's own.
        layer_decay: each layer's lr is this share of the next one's, the head's being `lr` (see
            `zoo.train.optim.layerwise`); 1: all the same.
        freeze: what is not trained: "backbone": all but the head; "all-but-last": all but the layer that
            gives the logits; or patterns of parameters' names. Batch norms in it keep their statistics.
        weight_decay: coupled (L2) for adam and sgd, decoupled for adamw and muon, as in torch.
        decay: "all" parameters, or "matrices": none for norms, biases, position embeddings, tokens.
        schedule: shape of lr over the run; warmup_epochs: linear from 0 before it;
        final_lr: last lr as a fraction of the peak.
        dropout: probability of every dropout of the model; None: the model's own.
        label_smoothing, clip_grad_norm (0: off), accumulate (micro-batches per step),
        ema (decay of the averaged weights per step, less in a run's first steps; 0: off). lookahead: slow
            weights, if any.
        precise_bn: training images that batch norm's statistics are computed anew from, before each evaluation; 0: the
            running ones are used.
        augment: steps in order. normalize: subtract the dataset's mean, divide by its std;
        else pixel values in 0..1. image_size: side to resize to; None keeps the dataset's.
        precision: "auto" is bf16 where the hardware has it. channels_last: None decides by device.
        compile: "auto" times a step, and weighs the compiler's warm-up against the length of the run; "graph"
            records a step as a CUDA graph.
        sync_batch_norm: with several processes, batch norms see the rows of all of them, as one
        process does; false: each its own rows, which is faster and not the same.
        tta: what a recorded result averages logits over: the image; its mirror image too; both, moved by a pixel
            either way as well; or a square image turned by quarters, and its mirror image likewise (eight views).
        select: which epoch's weights are kept. patience: stop after so many epochs without a better
        one (0: never). on_nan: stop before a step whose loss or gradients are not finite, or skip it.
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
    clip_grad_norm: NonNegative = 0.0
    accumulate: Positive = 1
    ema: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    precise_bn: Count = 0
    lookahead: Lookahead | None = None
    augment: tuple[Step, ...] = ()
    normalize: bool = True
    image_size: Positive | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool | None = None
    compile: Literal["auto", "off", "graph", "default", "max"] = "auto"
    sync_batch_norm: bool = True
    tta: TestTimeViews = "none"
    select: Literal["top1", "loss", "last"] = "top1"
    patience: Count = 0
    on_nan: Literal["stop", "skip"] = "stop"
