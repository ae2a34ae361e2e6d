"""A trained model with all that its images need: size, normalisation, views, names of the classes."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.base.text import plural, printable
from zoo.catalogue.recipe import Normalize, TestTimeViews
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Model
from zoo.catalogue.tree import tree_lines
from zoo.data.augment.pipeline import Augment
from zoo.data.files.decode import image_array, without_warnings
from zoo.data.normalization import IMAGENET
from zoo.data.types import Images, Item
from zoo.errors import InputError, RunError
from zoo.evaluate.module_state import evaluating, own_names
from zoo.evaluate.multi_label import predicted
from zoo.evaluate.preparing import CPU, ImageTransform, Picture, Preprocessing, numbered
from zoo.evaluate.timm_words import timm_config
from zoo.evaluate.views import Forward, cooled, views
from zoo.models.backbones import with_preprocessing
from zoo.models.compose import compose, place, sizes_for
from zoo.models.device import pick_device, placed, quick_layers
from zoo.models.precision import autocast, usual_torch
from zoo.runs.folder import temperature_of, thresholds_of
from zoo.runs.images import dataset_rule, rule_of
from zoo.runs.load import load as load_module
from zoo.runs.record import RunRecord, Sizes, read_record, tree_of
from zoo.runs.without_labels import refuse_without_labels

BATCH = 64
"""Images that `Classifier.predict` decodes and classifies at once."""

SHOWN = 20
"""Classes whose names a notebook shows."""


class Score(NamedTuple):
    """A class and how probable it is, 0..1."""

    name: str
    probability: float


class Ranking(NamedTuple):
    """The classes of one image in the order of their probabilities, the most probable first.

    Attributes:
        rows: int64 (K,), their numbers. probabilities: float32 (K,), in the same order.
        finite: whether all of them are numbers.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    finite: bool


class Classifier(nn.Module):
    """A trained model that knows its images; `zoo.load` returns one.

    It is a `torch.nn.Module` around the model's own one (`module`): a call takes prepared floats and gives logits, with
    gradients, as that module does. Its `state_dict` has the names of `model.safetensors`. `predict` takes image files
    and gives classes, computed as the test split was measured: in fp32, in eval mode, over the views of an image that
    the recipe tests with.

    Attributes:
        name: of the model. module: the model itself: float (B, C, H, W) to logits (B, K).
        sizes: channels, height, width and number of classes.
        preprocessing: how an image is brought to what the module takes; `transform` does it.
        classes: the K names in the order of the logits; empty where they are not known.
        tta: the views of an image that are averaged; tta_margin: of which images; see `zoo.evaluate.views`.
        dataset: the SPEC of what the model was trained on; "" for initial weights.
        channels_last: the layout in which it was trained.
        record: `run.toml` of its run; None for initial weights.
        thresholds: of a model for images with several labels, from which probability on each class is one of them;
            empty where an image has one class.
        temperature: what `logits` divides by, and so what `predict` says: see `zoo.calibrate`; 1 where nothing was
            fitted. A call of the classifier and `averaged` give the logits before it.

    Example:
        >>> model = zoo.load("last")  # doctest: +SKIP
        >>> model.predict("cat.jpg", top=1)  # doctest: +SKIP
        [[Score(name='cat', probability=0.93)]]
        >>> logits = model(model.transform("cat.jpg")[None])  # float32 (1, 3, H, W) in  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        name: str,
        module: nn.Module,
        sizes: Sizes,
        preprocessing: Preprocessing,
        classes: tuple[str, ...] = (),
        tta: TestTimeViews = "none",
        tta_margin: float | None = None,
        dataset: str = "",
        channels_last: bool = False,
        record: RunRecord | None = None,
        thresholds: tuple[float, ...] = (),
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.name, self.sizes, self.preprocessing, self.classes = name, sizes, preprocessing, classes
        self.tta, self.tta_margin = tta, tta_margin
        self.dataset, self.channels_last, self.record = dataset, channels_last, record
        self.thresholds, self.temperature = thresholds, temperature
        self.module = module
        self.training = module.training
        self._placed: torch.device | None = None
        self._is_quick = False
        self._floats: tuple[torch.device, Augment] | None = None
        own_names(self)
        with_preprocessing(module, timm_config(sizes, preprocessing))

    # ---- as torch knows a module ---------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Call the module: gradients flow, and no views are averaged.

        Args:
            images: (B, C, H, W) floats on the module's device, as `transform`, `read` and `prepare` give them.
        Returns:
            Logits (B, K).
        """
        logits: Tensor = self.module(images)
        return logits

    @property
    def device(self) -> torch.device:
        """Where the module lies."""
        tensor = next(chain(self.module.parameters(), self.module.buffers()), None)
        where, asked = CPU if tensor is None else tensor.device, self._placed
        named = asked is not None and asked.type == where.type and asked.index in (None, where.index)
        return asked if named and asked is not None else where

    @property
    def parameter_count(self) -> int:
        """How many parameters the module has."""
        return sum(p.numel() for p in self.module.parameters())

    def to(self, *args: Any, **options: Any) -> Self:
        """As torch's own `to`, in place; of a device alone, layout and convolutions are chosen for speed there.

        Args:
            args: a device, also by name: "auto", "cpu", "cuda", "cuda:N" or "mps"; or what torch takes.
        Returns:
            The classifier itself.
        Raises:
            InputError: not a device's name. DeviceError: this machine or this torch does not have it.
        """
        given = (*args, *options.values())
        device = given[0] if len(given) == 1 and set(options) <= {"device"} else None
        if not isinstance(device, str | torch.device):
            return super().to(*args, **options)
        where = pick_device(device) if isinstance(device, str) else device
        placed(self.module, where, self.channels_last)
        self._placed = where
        return self

    # ---- images --------------------------------------------------------------------------------------

    @property
    def transform(self) -> ImageTransform:
        """One picture to float32 (3, H, W), exactly as an evaluation feeds it; for datasets and their workers."""
        return ImageTransform(self.preprocessing, self._size)

    def predict(self, images: Picture | Iterable[Picture], top: int = 5) -> list[list[Score]]:
        """Classify images of any size.

        Args:
            images: one or more files, encoded images, PIL images or uint8 arrays (H, W, 3).
            top: classes that are given for each.
        Returns:
            For each image its most probable classes, the most probable one first; of a model for images with several
            labels, all classes that reach their thresholds, however many.
        Raises:
            DataError: an image cannot be read; names it. InputError: it is none, or `top` is below 1.
        """
        if top < 1:
            raise InputError(f"top {top}: allowed: at least 1")
        batches = (self.probabilities(batch) for batch in self._batches(numbered(images)))
        if self.thresholds:
            return [self.labels(row) for batch in batches for row in batch]
        return [self.scores(ranking, top) for batch in batches for ranking in self.rankings(batch)]

    def _batches(self, pictures: Iterator[tuple[Item, str]]) -> Iterator[Images]:
        while batch := list(islice(pictures, BATCH)):
            with without_warnings():
                decoded = [self.decode(*picture) for picture in batch]
            yield np.stack(decoded)

    def decode(self, item: Item, where: str) -> Images:
        """Decode one image: uint8 (3, H, W) of the model's size.

        Raises:
            DataError: it cannot be read; names `where`.
        """
        return image_array(item, self.preprocessing.rule, where)

    def read(self, images: Picture | Iterable[Picture]) -> Tensor:
        """Images of any size as the module takes them: scaled, and normalised if the recipe normalises.

        Args:
            images: one or more files, encoded images, PIL images or uint8 arrays (H, W, 3).
        Returns:
            float32 (B, 3, H, W) on the module's device.
        Raises:
            DataError: an image cannot be read; names it. InputError: it is none.
        """
        decoded = [self.decode(*picture) for picture in numbered(images)]
        return self.prepare(np.stack(decoded) if decoded else np.empty((0, 3, *self._size), np.uint8))

    def prepare(self, pixels: Images | Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to floats of the same shape on the module's device, of its type, as it takes them."""
        images = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
        device = self.device
        if self._floats is None or self._floats[0] != device:
            with usual_torch():
                self._floats = device, self.preprocessing.floats(self._size, self.sizes.num_classes, device)
        floats = self._floats[1].prepare(images.to(device))
        return floats.to(next((p.dtype for p in self.module.parameters() if p.is_floating_point()), floats.dtype))

    # ---- classes -------------------------------------------------------------------------------------

    @contextmanager
    def as_tested(self) -> Iterator[None]:
        """Compute as the test split was measured: in eval mode and fp32, on a CPU by the layers that `to` chooses.

        They stay: between two calls another thread may be in the middle of one.
        """
        if not self._is_quick and self.device.type == "cpu":
            quick_layers(self.module)
            self._is_quick = True
        with usual_torch(), evaluating(self), autocast(self.device, "fp32"):
            yield

    def logits(self, pixels: Images | Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, K) on the module's device, over the test-time views, in eval mode.

        They are divided by `temperature`.

        Raises:
            RunError: the run was trained without labels. InputError: the module has another head than for `classes`.
        """
        refuse_without_labels(self.record, self.name)
        with self.as_tested(), torch.inference_mode():
            logits = cooled(self.averaged(self.prepare(pixels)).float(), self.temperature)
        if self.classes and logits.shape[-1] != len(self.classes):
            raise InputError(
                f"{self.name}: its module gives {plural(logits.shape[-1], 'logit')} for an image, and `classes` has "
                f"{plural(len(self.classes), 'name')}; after another head was put on it, set `model.classes` too"
            )
        return logits

    def probabilities(self, pixels: Images | Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, K) on the CPU; each row sums to 1, unless images have several labels."""
        with torch.inference_mode():
            logits = self.logits(pixels)
            return (logits.sigmoid() if self.thresholds else logits.softmax(1)).cpu()

    def best(self, probabilities: Tensor, top: int) -> list[Score]:
        """The `top` most probable classes of one row (K,), the most probable first.

        Raises:
            RunError: the probabilities are not numbers.
        """
        return self.scores(self.rankings(probabilities[None])[0], top)

    def rankings(self, probabilities: Tensor) -> list[Ranking]:
        """The classes of each image of a batch (B, K) in order, sorted at once; see `scores`."""
        values, rows = probabilities.sort(dim=1, descending=True, stable=True)  # of equal ones the first class
        finite = probabilities.isfinite().all(1).tolist()
        values = values.detach().float() if values.dtype is torch.bfloat16 else values.detach()  # numpy has no bf16
        return [Ranking(*one) for one in zip(rows.cpu().numpy(), values.cpu().numpy(), finite, strict=True)]

    def scores(self, ranking: Ranking, top: int) -> list[Score]:
        """The `top` most probable classes of an image, the most probable first.

        Raises:
            RunError: the probabilities are not numbers.
        """
        if not ranking.finite:
            raise RunError(
                f"{self.name}: the model's outputs are not finite numbers (NaN): "
                "its weights are damaged, or its training diverged"
            )
        first = zip(ranking.rows[:top].tolist(), ranking.probabilities[:top].tolist(), strict=True)
        return [Score(self._class_name(row), p) for row, p in first]

    def labels(self, probabilities: Tensor) -> list[Score]:
        """The classes of one row (K,) that reach their thresholds, the most probable first; see `thresholds`.

        Raises:
            RunError: the probabilities are not numbers.
        """
        thresholds = torch.tensor(self.thresholds, dtype=torch.float64, device=probabilities.device)
        reached = predicted(probabilities, thresholds).nonzero()[:, 0]
        ranking = self.rankings(probabilities[reached][None])[0]
        ranking = ranking._replace(rows=reached.numpy()[ranking.rows], finite=bool(probabilities.isfinite().all()))
        return self.scores(ranking, len(reached))

    def _class_name(self, row: int) -> str:
        return self.classes[row] if self.classes else str(row)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K names in the order of the logits; their numbers where the names are not known."""
        return self.classes or tuple(map(str, range(self.sizes.num_classes)))

    @property
    def averaged(self) -> Forward:
        """The module over the test-time views of each image: prepared floats (B, C, H, W) to logits (B, K)."""
        return views(self, self.tta, self.tta_margin)

    @property
    def _size(self) -> tuple[int, int]:
        return self.sizes.height, self.sizes.width

    # ---- how it is shown -----------------------------------------------------------------------------

    def __repr__(self) -> str:
        """One line; `module` shows the layers."""
        return printable(f"Classifier({self.name}: {self._facts()})")

    def _facts(self) -> str:
        height, width = self._size
        facts = [
            plural(self.parameter_count, "parameter"),
            plural(self.sizes.num_classes, "class"),
            f"{height}x{width}",
        ]
        return ", ".join([*facts, *([f"trained on {self.dataset}"] if self.dataset else []), str(self.device)])

    def _repr_html_(self) -> str:
        """The same with the names of the classes, and the picture of the model's tree."""
        shown = ", ".join(self.class_names[:SHOWN]) + (", ..." if len(self.class_names) > SHOWN else "")
        head = f"<b>{html.escape(self.name)}</b>: {html.escape(self._facts())}<br>classes: {html.escape(shown)}"
        return f"<div>{head}{'' if self.record is None else _tree(self.record)}</div>"


def _tree(record: RunRecord) -> str:
    """A record's tree as notebooks show it."""
    node = tree_of(record)
    draw = getattr(node, "_repr_html_", None)
    if draw is not None:
        return str(draw())
    lines = "\n".join(line for line, _ in tree_lines(node, load_registry()))
    return f"<pre>{html.escape(lines)}</pre>"


def open_classifier(
    folder: Path, registry: Registry, *, record: RunRecord | None = None, device: str | torch.device | None = None
) -> Classifier:
    """The model of a run folder or package, with the weights that the run selected.

    Args:
        record: the run's, if it was read already.
        device: where to bring it, see `Classifier.to`; None: the module stays on the CPU as it was built.
    Raises:
        RunError: see `zoo.runs.load.load`. InputError, DeviceError: as `Classifier.to`.
    """
    where = pick_device(device) if isinstance(device, str) else device  # before weights are read
    with usual_torch():
        return _opened(folder, registry, record or read_record(folder), where)


def _opened(folder: Path, registry: Registry, record: RunRecord, where: torch.device | None) -> Classifier:
    data = record.data
    classifier = Classifier(
        name=record.model,
        module=load_module(folder, registry),
        sizes=record.sizes,
        preprocessing=Preprocessing(rule_of(record, registry), data.mean, data.std, bool(record.settings.normalize)),
        classes=data.classes,
        tta=record.settings.tta,
        tta_margin=record.settings.tta_margin,
        dataset=data.spec,
        channels_last=record.channels_last,
        record=record,
        thresholds=thresholds_of(folder, record),
        temperature=temperature_of(folder),
    )
    return classifier if where is None else classifier.to(where)


def untrained_classifier(
    registry: Registry,
    name: str,
    model: Model,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> Classifier:
    """A model of the catalogue with its initial weights, on the CPU; how images are prepared comes from its dataset.

    Args:
        registry, name, model: as `zoo.catalogue.registry.find_model` gives them.
        num_classes, image_size: its dataset's, if not given. seed: of the weights.
    Raises:
        ShapeError: the model cannot take the size.
    """
    sizes = Sizes(**sizes_for(model, registry, num_classes=num_classes, image_size=image_size))
    dataset, recipe = registry.datasets.get(model.dataset), registry.recipes.get(model.recipe)
    with usual_torch(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        where = place(registry, name)
        module = compose(model.build, registry, where=where, **msgspec.structs.asdict(sizes))
    wanted: Normalize = recipe.normalize if recipe else True
    named = (dataset.mean, dataset.std) if dataset is not None else ((), ())
    mean, std = IMAGENET if wanted == "imagenet" else named
    known = len(mean) in (1, sizes.in_channels)
    classes = dataset.classes if dataset is not None else ()
    return Classifier(
        name=name,
        module=module.eval(),
        sizes=sizes,
        preprocessing=Preprocessing(
            rule=dataset_rule(model.dataset, registry, (sizes.height, sizes.width)),
            mean=mean if known else (0.5,) * sizes.in_channels,
            std=std if known else (0.5,) * sizes.in_channels,
            normalize=bool(wanted),
        ),
        classes=classes if len(classes) == sizes.num_classes else (),
    )
