"""The plugin contract as data: components, pretrained weights, datasets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from zoo.base.structs import Positive, Struct

Kind = Literal["classifier", "part", "combinator", "stem", "head", "dataset", "listener", "exporter"]
Rounding = Literal["nearest", "torchvision"]

GIVEN = MappingProxyType(
    {
        "classifier": ("in_channels", "height", "width", "num_classes"),
        "head": ("in_channels", "height", "width", "num_classes"),
        "part": ("channels", "height", "width"),
        "combinator": ("parts", "channels", "height", "width"),
        "stem": ("in_channels", "height", "width"),
    }
)
"""The kinds that a model's tree is made of, and what a factory of each is given besides the arguments in the tree."""


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
            `zoo train --log <name>` attaches it;
            exporter: nothing, or options of its own -> a `zoo.plugin.Exporter`, which writes a model to a file and
            runs the file; `zoo export --format <name>` uses it.
            in_channels or channels, height and width are the channels, rows and columns of the image or
            feature map that comes in; num_classes is the number of logits.
        factory: "module:attribute", imported only when something is built.
        summary: one line.
        namespace: if set, "<namespace>/NAME" is a model for every NAME that the factory's
            argument `name` accepts, without a catalogue entry.
        names: "module:attribute" of a function that returns those names, for `zoo list '<namespace>/*'`.
        branches: for a combinator: whether its parts all take the same input (else each takes the output of
            the one before it); pictures draw them side by side.
        pretrained: its pretrained weights, if it has any: a package "hf://OWNER/NAME[@REVISION]", or
            "module:attribute" of a function that gets the arguments of the tree and returns
            `Pretrained`. Only used for classifiers: by `zoo train MODEL --pretrained`, and, of a component with a
            namespace, wherever `zoo predict`, `serve`, `eval` and `export` are given "<namespace>/NAME".
        suffix: of an exporter: how the names of its files end, ".pte".
    """

    name: str
    kind: Kind
    factory: str
    summary: str = ""
    namespace: str | None = None
    names: str | None = None
    branches: bool = False
    pretrained: str | None = None
    suffix: str = ""


class Transform(Struct, frozen=True, kw_only=True):
    """How images are resized to the size that the weights were trained on.

    Attributes:
        size: (height, width) of the result.
        resize: the shorter side is scaled to this, then the centre is cropped to `size`; None: the whole
            image is scaled to `size`.
        squash: both sides are scaled to `resize`, in the place of the shorter one alone.
        interpolation: name of Pillow's filter.
        rounding: where the longer side and the corner of the crop fall between two pixels: "nearest" takes the
            nearest whole length, and the corner above and to the left; "torchvision" does what torchvision and timm
            do: it takes the whole length below, and the nearest corner (of two, the one with an even number).
        scaled: False: nothing is scaled, and a square of `size` is cut out of the centre of the image.
    """

    size: tuple[Positive, Positive]
    resize: Positive | None = None
    squash: bool = False
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    rounding: Rounding = "nearest"
    scaled: bool = True

    def at(self, side: int) -> Transform:
        """The same transform for square images of another side, with the cropped margin in proportion."""
        scaled = None if self.resize is None else max(side, round(self.resize * side / min(self.size)))
        return msgspec.structs.replace(self, size=(side, side), resize=scaled)


class Pretrained(NamedTuple):
    """The return value of a component's `pretrained` function; nothing is downloaded before `load` is called.

    Attributes:
        origin: a permanent reference to exactly these weights: "timm/resnet18.a1_in1k".
        load: called with in_channels, height and width; returns tensors by the names of the module's
            state dict. Tensors that do not fit the module (a head for other classes) are ignored.
        transform: how images were resized. mean, std: of pixel values in 0..1.
        where: where `load` downloads from, for messages: "timm/resnet18.a1_in1k on the Hub".
        base_model: the repository of the weights on the Hub ("timm/resnet18.a1_in1k"); "" if there is none.
        num_classes: how many logits the head of these weights gives; 0: they have no head; None: as many as there are
            `classes`. `zoo predict` and the like use weights with a head, a transform and images of three channels.
        classes: the names of these logits, in their order; empty: they have none, and are numbered.
        other_names: called without arguments where images are sorted by other names than `classes`; returns more lists
            of names, each complete and in the same order: of ImageNet's classes the numbers in WordNet, for example.
    """

    origin: str
    load: Any
    transform: Transform | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    where: str = ""
    base_model: str = ""
    num_classes: int | None = None
    classes: Sequence[str] = ()
    other_names: Callable[[], Sequence[Sequence[str]]] | None = None


class ImageSplits(NamedTuple):
    """The return value of a dataset's factory.

    Attributes:
        train, test: (images, labels). images: a uint8 array (N, H, W), (N, H, W, 1 or 3) or
            (N, 1 or 3, H, W), or a sequence of encoded files' bytes or paths; labels: N integers.
        classes: the names of labels 0, 1, ...; empty if they have no names.
    """

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    classes: Sequence[str] = ()
