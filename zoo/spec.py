"""What a catalogue holds, as frozen structs: components, models, recipes, datasets, results.

Everything here is data. Nothing imports torch, and nothing imports a plugin. Tables from TOML are
decoded by `decode`, whose errors name the file, the key and the allowed values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, dataclass_transform

import msgspec

from zoo.errors import SpecError

T = TypeVar("T")
Positive = Annotated[int, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Probability = Fraction
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]

Kind = Literal["classifier", "part", "combinator", "stem", "head", "dataset", "listener"]


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every struct here: frozen, no unknown fields (and keyword-only, which is not inherited)."""


# ---- components -----------------------------------------------------------------------------


class Component(Struct, frozen=True):
    """A named builder that a plugin offers.

    Attributes:
        name: the name inside its plugin ("residual"); the catalogue shows "<plugin>.<name>".
        kind: what the factory receives, keyword-only, besides its own arguments, and returns:
            classifier: in_channels, height, width, num_classes -> (B, C, H, W) to (B, num_classes);
            part: channels, height, width -> (B, C, H, W) to (B, C, H, W);
            combinator: parts (callables that build fresh parts), channels, height, width -> a part;
            stem: in_channels, height, width -> (B, C, H, W) to (B, C', H', W');
            head: in_channels, height, width, num_classes -> (B, C, H, W) to (B, num_classes);
            dataset: data_dir (a Path, for downloads) -> ImageSplits; the catalogue's datasets name it
            as source = "plugin:<plugin>.<name>";
            listener: folder (a Path, the run folder) -> an object with any of the methods
            start(record, parameters), epoch(row, best) and end(result), all plain data;
            `zoo train --log <name>` attaches it.
        factory: "module:attribute", imported only when something is built.
        summary: one line.
        namespace: where set, "<namespace>/NAME" is a model for every NAME that the factory's
            argument `name` takes, without an entry of its own.
        names: "module:attribute" of a function that returns those names, for listing on request.
    """

    name: str
    kind: Kind
    factory: str
    summary: str = ""
    namespace: str | None = None
    names: str | None = None


class ImageSplits(NamedTuple):
    """What the factory of a dataset returns.

    Attributes:
        train, test: (images, labels). images: a uint8 array (N, H, W), (N, H, W, 1 or 3) or
            (N, 1 or 3, H, W), or a sequence of encoded files' bytes or paths; labels: N integers.
        classes: the names of labels 0, 1, ...; empty where there are none.
    """

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    classes: Sequence[str] = ()


class Node(Struct, frozen=True):
    """One node of a model's tree: a component, its arguments, and its children.

    Attributes:
        use: full component name, "plugin.component".
        args: the factory's own arguments. A value that is itself a `Node` (or a list of them)
            reaches the factory as a builder (or a list of builders).
        of: the children of a combinator; they reach the factory as `parts`.
    """

    use: str
    args: dict[str, Any] = {}
    of: tuple[Node, ...] = ()

    def children(self) -> list[tuple[str, Node]]:
        """All direct children, each with the key (as in TOML) that leads to it."""
        found = [(f"of[{i}]", child) for i, child in enumerate(self.of)]
        for key, value in self.args.items():
            if isinstance(value, Node):
                found.append((key, value))
            elif isinstance(value, list):
                found += [(f"{key}[{i}]", v) for i, v in enumerate(value) if isinstance(v, Node)]
        return found

    def to_table(self) -> dict[str, Any]:
        """The node as it stands in TOML; `node_from_table` reads it back."""

        def plain(value: Any) -> Any:
            if isinstance(value, Node):
                return value.to_table()
            return [plain(v) for v in value] if isinstance(value, list | tuple) else value

        table: dict[str, Any] = {"use": self.use}
        table |= {key: plain(value) for key, value in self.args.items()}
        return table | ({"of": [child.to_table() for child in self.of]} if self.of else {})


MAX_DEPTH = 32
"""How deep a model's tree may nest; deeper ones are refused with a clear line."""


def node_from_table(table: Any, where: str, depth: int = 0) -> Node:
    """Read one node of a model's tree from its TOML table.

    Raises:
        SpecError: not a table, no `use`, `of` is no list of tables, or nested too deeply.
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"{where}: expected a table with `use`, got {_shown(table)}")
    if depth > MAX_DEPTH:
        raise SpecError(f"{where}: nested more than {MAX_DEPTH} components deep")
    use = table.get("use")
    if not isinstance(use, str) or "." not in use:
        raise SpecError(f'{where}.use: expected "plugin.component", got {_shown(use)}')
    of = table.get("of", [])
    if not isinstance(of, list):
        raise SpecError(f"{where}.of: expected a list of tables, got {_shown(of)}")
    children = tuple(node_from_table(t, f"{where}.of[{i}]", depth + 1) for i, t in enumerate(of))
    args = {k: _argument(v, f"{where}.{k}", depth) for k, v in table.items() if k not in ("use", "of")}
    return Node(use=use, args=args, of=children)


def _argument(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, Mapping) and "use" in value:
        return node_from_table(value, where, depth + 1)
    if isinstance(value, list):
        if depth > MAX_DEPTH:
            raise SpecError(f"{where}: nested more than {MAX_DEPTH} lists deep")
        return [_argument(v, f"{where}[{i}]", depth + 1) for i, v in enumerate(value)]
    return value


# ---- augmentation ---------------------------------------------------------------------------


class Augmentation(Struct, frozen=True, tag_field="op"):
    """Base of the augmentation steps of a recipe; `op` in TOML names the step."""


class Flip(Augmentation, frozen=True, tag="flip"):
    """Mirror left-right with probability `p`; `alternate` flips every image every second epoch."""

    p: Probability = 0.5
    alternate: bool = False


class VerticalFlip(Augmentation, frozen=True, tag="vertical-flip"):
    """Mirror top-bottom with probability `p`."""

    p: Probability = 0.5


class Transpose(Augmentation, frozen=True, tag="transpose"):
    """Exchange rows and columns with probability `p` (square images)."""

    p: Probability = 0.5


class Crop(Augmentation, frozen=True, tag="crop"):
    """Pad by `padding` pixels on each side, then cut the original size at a random place."""

    padding: Positive = 4
    mode: Literal["zero", "reflect"] = "zero"


class Jitter(Augmentation, frozen=True, tag="jitter"):
    """Colour jitter as torchvision's ColorJitter defines it: factors drawn per image."""

    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0


class Brightness(Augmentation, frozen=True, tag="brightness"):
    """Multiply pixel values by `factor` with probability `p`, clamped to the value range."""

    factor: NonNegative
    p: Probability = 1.0


class Grayscale(Augmentation, frozen=True, tag="grayscale"):
    """Luma (ITU-R 601) in all three channels with probability `p`."""

    p: Probability = 1.0


class Cutout(Augmentation, frozen=True, tag="cutout"):
    """Zero (after normalisation: the mean) one square of side `size` at a random place."""

    size: Positive


class RandAugment(Augmentation, frozen=True, tag="randaugment"):
    """`n` random operations of torchvision's RandAugment at magnitude `magnitude` (of 0..30)."""

    n: Positive = 2
    magnitude: Count = 9


class Mixup(Augmentation, frozen=True, tag="mixup"):
    """Blend each image and its label with another of the batch, weight from Beta(alpha, alpha)."""

    alpha: PositiveFloat = 0.2
    p: Probability = 1.0


class CutMix(Augmentation, frozen=True, tag="cutmix"):
    """Paste a box of another image of the batch, labels mixed by area, from Beta(alpha, alpha)."""

    alpha: PositiveFloat = 1.0
    p: Probability = 1.0


Step = (
    Flip
    | VerticalFlip
    | Transpose
    | Crop
    | Jitter
    | Brightness
    | Grayscale
    | Cutout
    | RandAugment
    | Mixup
    | CutMix
)


# ---- recipes --------------------------------------------------------------------------------


class Recipe(Struct, frozen=True):
    """How a model is trained. Every field can be overridden by `--set recipe.<field>=<value>`.

    Attributes:
        summary: one line. source: key of the paper whose recipe this is, if any.
        epochs: passes over the training split. batch_size: images per step, over all processes.
        optimizer: "adam", "adamw", "sgd", "nesterov", "muon", or "timm:NAME".
        lr: peak learning rate. momentum, betas, eps: the optimizer's own.
        weight_decay: coupled (L2) for adam and sgd, decoupled for adamw and muon, as in torch.
        decay: "all" parameters, or "matrices": none for norms, biases, position embeddings, tokens.
        schedule: shape of lr over the run; warmup_epochs: linear from 0 before it;
        final_lr: last lr as a fraction of the peak.
        label_smoothing, clip_grad_norm (0: off), accumulate (micro-batches per step),
        ema (decay of the averaged weights per step; 0: off).
        augment: steps in order. normalize: subtract the dataset's mean, divide by its std;
        else pixel values in 0..1. image_size: side to resize to; None keeps the dataset's.
        precision: "auto" is bf16 where the hardware has it. channels_last: None decides by device.
        select: which epoch's weights are kept. patience: stop after so many epochs without a better
        one (0: never). on_nan: stop before a step whose loss or gradients are not finite, or skip it.
    """

    summary: str = ""
    source: str | None = None
    epochs: Positive = 50
    batch_size: Positive = 64
    optimizer: str = "adam"
    lr: PositiveFloat = 1e-3
    momentum: Fraction = 0.9
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegative = 0.0
    decay: Literal["all", "matrices"] = "all"
    schedule: Literal["constant", "cosine", "linear", "onecycle"] = "constant"
    warmup_epochs: NonNegative = 0.0
    final_lr: Fraction = 0.0
    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    clip_grad_norm: NonNegative = 0.0
    accumulate: Positive = 1
    ema: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    augment: tuple[Step, ...] = ()
    normalize: bool = True
    image_size: Positive | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool | None = None
    select: Literal["top1", "loss", "last"] = "top1"
    patience: Count = 0
    on_nan: Literal["stop", "skip"] = "stop"


# ---- sources, datasets, models ---------------------------------------------------------------


class Source(Struct, frozen=True):
    """A paper or report: what models and recipes refer to by its key."""

    title: str
    authors: str = ""
    code: str = ""
    url: str = ""
    protocol: str = ""
    selection: str = ""


class Dataset(Struct, frozen=True):
    """A named dataset.

    Attributes:
        source: "<scheme>:<rest>", read by `zoo.data`: "sklearn:digits", "torchvision:CIFAR10",
            "hf:uoft-cs/cifar10", "parquet:PATH", "folder:PATH", "plugin:PLUGIN.COMPONENT".
        size: (height, width) of its images, or that they are resized to (`resize = true`).
        mean, std: per channel, of pixel values in 0..1.
        adapt: fields that this dataset replaces in a model's own recipes (digits must not be
            mirrored); a recipe that the user names is taken as it is.
    """

    source: str
    summary: str = ""
    classes: tuple[str, ...] = ()
    num_classes: Positive | None = None
    size: tuple[Positive, Positive] | None = None
    resize: bool = False
    channels: Positive = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[PositiveFloat, ...] = (0.5, 0.5, 0.5)
    train: Count | None = None
    test: Count | None = None
    licence: str = ""
    homepage: str = ""
    options: dict[str, Any] = {}
    adapt: dict[str, Any] = {}


class Published(Struct, frozen=True):
    """One result that a source prints. `top1` is a fraction; `params` the count it prints.

    `params_classes` is the class count behind `params` where it is not the dataset's;
    `params_difference` is ours minus theirs where a known convention differs (see `note`).
    """

    dataset: str
    top1: Fraction | None = None
    params: Positive | None = None
    params_classes: Positive | None = None
    params_difference: int = 0
    minutes: float | None = None
    minutes_per_epoch: float | None = None
    epochs: Positive | None = None
    top1_after_5_epochs: Fraction | None = None
    pretrained: str | None = None
    published_as: str = ""
    source: str | None = None
    note: str = ""


class Measured(Struct, frozen=True):
    """One result of ours: what it is, and where its record stands."""

    dataset: str
    top1: Fraction
    spread: NonNegative | None = None
    seeds: Positive = 1
    protocol: Literal["clean", "paper"] = "clean"
    recipe: str = ""
    device: str = ""
    record: str = ""
    note: str = ""


class Model(Struct, frozen=True):
    """A model as data: its tree, its recipes, and what was published for it.

    Attributes:
        recipe: its default recipe (the source's, for a published model). best: ours, if better.
        dataset: what it is built for by default: gives image size and class count.
        parameters: count at that dataset's size and classes (held by a test).
    """

    summary: str
    family: str
    build: Node
    recipe: str
    best: str | None = None
    dataset: str = "cifar10"
    tags: tuple[str, ...] = ()
    source: str | None = None
    parameters: Positive | None = None
    published: tuple[Published, ...] = ()
    measured: tuple[Measured, ...] = ()
    note: str = ""


# ---- decoding --------------------------------------------------------------------------------


def decode(kind: type[T], table: Any, where: str) -> T:
    """Read a table (from TOML) as the struct `kind`.

    Args:
        where: file and key, for the message: "registry.toml: recipes.mixture-vit".
    Raises:
        SpecError: an unknown key, a wrong type or value; says what is allowed.
    """
    try:
        return msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        from zoo.explain import explain  # only what is wrong needs it

        raise SpecError(explain(error, kind, table, where)) from None


def decode_model(table: Any, where: str) -> Model:
    """`decode` for a model, whose tree has a grammar of its own."""
    if not isinstance(table, Mapping) or "build" not in table:
        raise SpecError(f"{where}: a model needs a `build` table with `use`, its component")
    build = node_from_table(table["build"], f"{where}.build")
    stub = {"use": build.use}
    return msgspec.structs.replace(decode(Model, {**table, "build": stub}, where), build=build)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _steps(path: str) -> list[str]:
    return [s for s in path.replace("[", ".[").split(".") if s]
