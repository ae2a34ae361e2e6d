"""What a catalogue holds, as frozen structs: components, models, recipes, datasets, results.

Everything here is data. Nothing imports torch, and nothing imports a plugin. Tables from TOML are
decoded by `decode`, whose errors name the file, the key and the allowed values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from zoo.base.explain import explain, shown
from zoo.base.structs import Count, Fraction, NonNegative, Positive, PositiveFloat, Precision, Struct
from zoo.base.text import plural
from zoo.errors import SpecError
from zoo.plugin.node import Node

T = TypeVar("T")

HubName = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*)?$")]


# ---- trees ----------------------------------------------------------------------------------


MAX_DEPTH = 32
"""How deep a model's tree may nest; deeper ones are refused with a clear line."""


Defaults = Mapping[str, dict[str, Any]]
"""Recorded defaults of arguments, by the name of the component."""


def recorded_tree(build: Any, defaults: Mapping[str, str] | msgspec.UnsetType, where: str) -> Node:
    """Read the tree of a run or package.

    Args:
        defaults: as `RunRecord.defaults`; older records have none.
    Raises:
        SpecError: as `node_from_table`, or defaults that are no JSON table.
    """
    read: dict[str, dict[str, Any]] = {}
    for use, text in ({} if isinstance(defaults, msgspec.UnsetType) else defaults).items():
        try:
            read[use] = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError):
            raise SpecError(f"{where}: the recorded defaults of {use!r} are no JSON table") from None
    return node_from_table(build, where, defaults=read)


def node_from_table(table: Any, where: str, depth: int = 0, defaults: Defaults = MappingProxyType({})) -> Node:
    """Read one node of a model's tree from its TOML table.

    Args:
        defaults: what `recorded_tree` read.
    Raises:
        SpecError: not a table, no `use`, `of` is no list of tables, or nested too deeply.
    """
    if not isinstance(table, Mapping):
        raise SpecError(f"{where}: expected a table with `use`, got {shown(table)}")
    if depth > MAX_DEPTH:
        raise SpecError(f"{where}: nested more than {MAX_DEPTH} components deep")
    use = table.get("use")
    if not isinstance(use, str) or "." not in use:
        raise SpecError(f'{where}.use: expected "plugin.component", got {shown(use)}')
    of = table.get("of", [])
    if not isinstance(of, list):
        raise SpecError(f"{where}.of: expected a list of tables, got {shown(of)}")
    children = tuple(node_from_table(t, f"{where}.of[{i}]", depth + 1, defaults) for i, t in enumerate(of))
    args = {k: _argument(v, f"{where}.{k}", depth, defaults) for k, v in table.items() if k not in ("use", "of")}
    return Node(use=use, args=args, of=children, defaults=defaults.get(use, {}))


def _argument(value: Any, where: str, depth: int, defaults: Defaults) -> Any:
    if isinstance(value, Mapping) and "use" in value:
        return node_from_table(value, where, depth + 1, defaults)
    if isinstance(value, list):
        if depth > MAX_DEPTH:
            raise SpecError(f"{where}: nested more than {MAX_DEPTH} lists deep")
        read = [_argument(v, f"{where}[{i}]", depth + 1, defaults) for i, v in enumerate(value)]
        if any(isinstance(one, Node) for inner in read if isinstance(inner, list) for one in inner):
            raise SpecError(f"{where}: a list in a list has components in it; give them one by one, or in one list")
        return read
    return value


# ---- sources, datasets, models ---------------------------------------------------------------


class Source(Struct, frozen=True):
    """A paper or report: what models and recipes refer to by its key.

    Attributes:
        title: Title of the paper or report.
        authors: Names of the authors, with their institution in parentheses.
        code: Where its code can be found.
        url: Web address of the paper.
        protocol: How it trained and measured, as far as it says so.
        selection: Which epoch it reports: "best-test-epoch", "best-validation-loss", "last-epoch".
    """

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
            "hf:uoft-cs/cifar10", "parquet:PATH", "folder:PATH", "csv:FILE", "wds:PATTERN",
            "plugin:PLUGIN.COMPONENT".
        summary: What the images show, in one line.
        classes: Names of the classes, in the order of the labels.
        num_classes: Number of classes, where their names are not given.
        size: Height and width of its images, or those that they are resized to (`resize = true`).
        resize: Whether images are resized to `size`.
        channels: Channels of an image.
        mean: Mean of each channel (or one for all), of pixel values in 0..1. Not set: it is measured on the training
            images.
        std: Standard deviation of each channel (or one for all), of pixel values in 0..1. Not set: it is measured too.
        train: Number of training images.
        test: Number of test images.
        sha256: What its images are, in any order, by split ("train", "test"): a copy of the dataset from elsewhere is
            known by them.
        licence: Licence of the images.
        homepage: Web address that describes the dataset.
        hub: Repository of the same images on the Hugging Face Hub, OWNER/NAME, whose page shows published results.
        options: Options of its source, as after `?` in `--dataset`.
        adapt: Fields that this dataset replaces in a model's own recipes (digits must not be
            mirrored); a recipe that the user names is taken as it is.
    """

    source: str
    summary: str = ""
    classes: tuple[str, ...] = ()
    num_classes: Positive | None = None
    size: tuple[Positive, Positive] | None = None
    resize: bool = False
    channels: Positive = 3
    mean: tuple[float, ...] = ()
    std: tuple[PositiveFloat, ...] = ()
    train: Count | None = None
    test: Count | None = None
    sha256: dict[Literal["train", "test"], str] = {}
    licence: str = ""
    homepage: str = ""
    hub: HubName = ""
    options: dict[str, Any] = {}
    adapt: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse a mean and a std that are of other values than 0..1, not of each channel, or one without the other."""
        if problem := wrong_normalisation(self.mean or (0.5,), self.std or (0.5,), self.channels):
            raise ValueError(problem)
        if bool(self.mean) != bool(self.std):
            raise ValueError("mean and std belong together: give both, or neither, and they are measured")
        for name in ("mean", "std"):
            if len(values := getattr(self, name)) == 1:
                msgspec.structs.force_setattr(self, name, values * self.channels)


COLOURS = 3
"""Channels of a decoded image, also of a gray one."""


def wrong_normalisation(mean: Sequence[float], std: Sequence[float], channels: int = COLOURS) -> str:
    """What is wrong with a mean and a standard deviation of pixel values in 0..1; "" where nothing is."""
    for name, values, fits in (
        ("mean", mean, lambda value: 0 <= value <= 1),
        ("std", std, lambda value: 0 < value <= 1),
    ):
        if len(values) not in (1, channels, COLOURS):
            given = f"{name} has {plural(len(values), 'value')}"
            return f"{given}; give one for each channel ({channels}), or one for all"
        if wrong := [value for value in values if not fits(value)]:
            allowed = "0 to 1" if name == "mean" else "above 0, up to 1"
            return (
                f"{name} holds {wrong[0]:g}; allowed: {allowed}, as pixel values are taken as 0..1 "
                "(divide those of 0..255 by 255)"
            )
    return ""


class Published(Struct, frozen=True):
    """One result that a source prints.

    Attributes:
        dataset: Dataset that it was measured on.
        top1: Top-1 accuracy as a fraction.
        params: Parameter count that the source prints.
        params_classes: Class count behind `params`, where it is not the dataset's.
        params_difference: Our count minus theirs, where a known convention differs (see `note`).
        minutes: Minutes of training that the source prints.
        minutes_per_epoch: Minutes per epoch that the source prints.
        epochs: Epochs of training, where they are not the recipe's.
        top1_after_5_epochs: Top-1 accuracy after 5 epochs, as a fraction.
        pretrained: What the weights began with, in the source's words.
        weights: Reference that has those weights, as `--weights` takes it.
        changes: What the row changes about the model, by key ("build.dropout").
        published_as: Name of the row in the source's table.
        source: Key of the source of this row, where it is not the model's.
        recipe: Recipe of this row, where it is not the model's.
        best: Better recipe of ours for this row, where it is not the model's.
        not_measured: Why there is no result of ours for this row, in a few words.
        note: Anything a reader of the number should know.
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
    weights: str | None = None
    changes: dict[str, Any] = {}
    published_as: str = ""
    source: str | None = None
    recipe: str | None = None
    best: str | None = None
    not_measured: str = ""
    note: str = ""


class Measured(Struct, frozen=True):
    """One result of ours: what it is, and where its record stands.

    Attributes:
        dataset: Dataset that it was measured on.
        top1: Top-1 accuracy as a fraction; the mean where there are several seeds.
        spread: Standard deviation over the seeds, as a fraction.
        seeds: Number of runs with different seeds.
        protocol: "clean" (selected on validation images) or "paper" (as the source did it).
        recipe: Recipe that it was trained by.
        device: Device that it was trained on.
        record: File with the record of the run.
        note: Anything a reader of the number should know.
    """

    dataset: str
    top1: Fraction
    spread: NonNegative | None = None
    seeds: Positive = 1
    protocol: Literal["clean", "paper"] = "clean"
    recipe: str = ""
    device: str = ""
    record: str = ""
    note: str = ""


WHEEL, HUB = "wheel:", "hf://"
"""How the place of weights begins: a folder beside the registry file, or a commit on the Hub."""

ON_THE_HUB = re.compile(r"hf://[A-Za-z0-9._-]+/[A-Za-z0-9._-]+@[0-9a-f]{40}")


class TrainedWeights(Struct, frozen=True):
    """Weights of a model that anybody can have, named by the model and the dataset wherever a run is taken.

    Attributes:
        dataset: Dataset that they were trained and measured on.
        where: Their package: "wheel:FOLDER", a folder beside this file, or "hf://OWNER/NAME@COMMIT".
        top1: Top-1 accuracy on the test images, as a fraction, of the weights as they are stored.
        interval: Wilson's 95% interval of it, as fractions.
        recipe: Recipe that they were trained by.
        protocol: "clean" (selected on validation images) or "paper" (as the source did it).
        seed: Seed of the run.
        precision: Number type that they are stored in.
        bytes: Size of the file with the weights.
        sha256: Hash of that file, hexadecimal.
        licence: Licence of the weights, as the Hub names it.
        test_images: Number of test images that `top1` was measured on. Entries of earlier versions do not say it.
        record: File with the record of the run, where it is not the one in the package.
        note: Anything a user of the weights should know.
    """

    dataset: str
    where: str
    top1: Fraction
    interval: tuple[Fraction, Fraction]
    recipe: str
    protocol: Literal["clean", "paper"]
    seed: Count
    precision: Precision
    bytes: Positive
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    licence: str
    test_images: Positive | None = None
    record: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a place that is neither beside the registry file nor a commit on the Hub."""
        folder = self.where.removeprefix(WHEEL)
        inside = folder != self.where and folder and not folder.startswith("/") and ".." not in folder.split("/")
        if "\\" in self.where or not (inside or ON_THE_HUB.fullmatch(self.where)):
            raise ValueError(
                f"where is {shown(self.where)}; write wheel:FOLDER, a folder beside this registry file, or "
                "hf://OWNER/NAME@COMMIT with all 40 digits of the commit"
            )


class Model(Struct, frozen=True):
    """A model as data: its tree, its recipes, and what was published for it.

    Attributes:
        summary: What the model is, in one line.
        family: Family that it is listed under: "cnn", "vit", "hybrid", or one of your own.
        build: Its tree of components.
        recipe: Its default recipe (the source's, for a published model).
        best: Our own recipe, where it is better.
        dataset: Dataset that it is built for by default; gives image size and class count.
        tags: Words that `zoo list --tag` finds it by.
        source: Key of the paper or report that it is from.
        parameters: Parameter count at that dataset's size and classes (held by a test).
        pretrained: Weights for `zoo train MODEL --pretrained`: a reference as `--weights` takes it.
            Not set: its component's own, if it has any.
        published: Results that sources print for it.
        measured: Results of ours.
        weights: Its trained weights, one entry a dataset; the name alone stands for the first.
        note: Anything a user of the model should know.
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
    pretrained: str | None = None
    published: tuple[Published, ...] = ()
    measured: tuple[Measured, ...] = ()
    weights: tuple[TrainedWeights, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse two entries of weights that would have one name."""
        datasets = [entry.dataset for entry in self.weights]
        if twice := [name for name in datasets if datasets.count(name) > 1]:
            raise ValueError(f"weights has {datasets.count(twice[0])} entries for {twice[0]!r}; leave one of them")

    def _repr_html_(self) -> str:
        """Its drawn tree, as notebooks show it."""
        return self.build._repr_html_()


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
        raise SpecError(explain(error, kind, table, where)) from None


def decode_model(table: Any, where: str) -> Model:
    """`decode` for a model, whose tree has a grammar of its own."""
    if not isinstance(table, Mapping) or "build" not in table:
        raise SpecError(f"{where}: a model needs a `build` table with `use`, its component")
    build = node_from_table(table["build"], f"{where}.build")
    stub = {"use": build.use}
    return msgspec.structs.replace(decode(Model, {**table, "build": stub}, where), build=build)
