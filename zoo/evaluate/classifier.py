"""A trained model with all that its images need: size, normalisation, views, names of the classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.catalogue.recipe import TestTimeViews
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Model
from zoo.data.augment import pipeline as augment
from zoo.data.files.decode import Rule, image_array, without_warnings
from zoo.data.files.deep_colour import unread_file
from zoo.data.types import Images, Item
from zoo.errors import RunError
from zoo.evaluate.views import Forward, views
from zoo.models.compose import compose, place, sizes_for
from zoo.models.device import pick_device, placed
from zoo.models.precision import autocast
from zoo.runs.images import dataset_rule, rule_of
from zoo.runs.load import load as load_module
from zoo.runs.record import RunRecord, Sizes, read_record

CPU = torch.device("cpu")
BATCH = 64
"""Images that `Classifier.predict` decodes and classifies at once."""

Picture = Path | str | bytes | Image.Image
"""An image of any size: a file, the bytes of one, or an opened one."""


class Score(NamedTuple):
    """A class and how probable it is, 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before a model sees it.

    Attributes:
        rule: how it is brought to the model's size.
        mean, std: of each channel (or one for all), of pixel values in 0..1.
        normalize: whether the model takes (x/255 - mean)/std; else x/255.
    """

    rule: Rule
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    normalize: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Classifier:
    """A model and what its images need; `zoo.load` returns one.

    `predict` takes image files and gives classes. `module` is the torch module itself, for everything else:
    calling the classifier is calling it. What is computed otherwise is as the test split was measured: in fp32,
    over the views of an image that the recipe tests with.

    Attributes:
        name: of the model. module: float (B, C, H, W), as `prepare` gives them, to logits (B, K); in eval mode.
        sizes: channels, height, width and number of classes.
        preprocessing: how an image is brought to what the module takes.
        classes: the K names in the order of the logits; empty where they are not known.
        tta: the views of an image that are averaged; see `zoo.evaluate.views`.
        dataset: the SPEC of what the model was trained on; "" for initial weights.
        device: where the module lies. channels_last: the layout in which it was trained.
    """

    name: str
    module: nn.Module = field(repr=False)
    sizes: Sizes
    preprocessing: Preprocessing
    classes: tuple[str, ...] = field(default=(), repr=False)
    tta: TestTimeViews = "none"
    dataset: str = ""
    device: torch.device = CPU
    channels_last: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Call the module, as torch does: gradients flow, and no views are averaged.

        Args:
            images: (B, C, H, W) floats on the module's device, as `read` and `prepare` give them.
        Returns:
            Logits (B, K).
        """
        logits: Tensor = self.module(images)
        return logits

    def predict(self, images: Picture | Iterable[Picture], top: int = 5) -> list[list[Score]]:
        """Classify images of any size.

        Args:
            images: one or more files, encoded images or PIL images. top: classes that are given for each.
        Returns:
            For each image its most probable classes, the most probable one first.
        Raises:
            DataError: an image cannot be read; names it.
        """
        pictures = iter([images] if isinstance(images, Picture) else images)
        return [self.best(row, top) for batch in self._batches(pictures) for row in self.probabilities(batch)]

    def _batches(self, pictures: Iterator[Picture]) -> Iterator[Images]:
        while batch := list(islice(pictures, BATCH)):
            with without_warnings():
                decoded = [self.decode(*_item(picture)) for picture in batch]
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
            images: one or more files, encoded images or PIL images.
        Returns:
            float32 (B, 3, H, W) on the module's device.
        Raises:
            DataError: an image cannot be read; names it.
        """
        pictures = [images] if isinstance(images, Picture) else images
        return self.prepare(np.stack([self.decode(*_item(picture)) for picture in pictures]))

    def prepare(self, pixels: Images | Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to floats of the same shape on the module's device, as the module takes them."""
        images = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
        return self._augment.prepare(images.to(self.device))

    def logits(self, pixels: Images | Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, K) on the module's device, over the test-time views."""
        with torch.inference_mode(), autocast(self.device, "fp32"):
            return self.forward(self.prepare(pixels)).float()

    def probabilities(self, pixels: Images | Tensor) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, K) on the CPU, each row summing to 1."""
        with torch.inference_mode():
            return self.logits(pixels).softmax(1).cpu()

    def best(self, probabilities: Tensor, top: int) -> list[Score]:
        """The `top` most probable classes of one row (K,), the most probable first.

        Raises:
            RunError: the probabilities are not numbers.
        """
        if not bool(probabilities.isfinite().all()):
            raise RunError(
                f"{self.name}: the model's outputs are not finite numbers (NaN): "
                "its weights are damaged, or its training diverged"
            )
        names = self.classes or [str(number) for number in range(self.sizes.num_classes)]
        values, rows = probabilities.sort(descending=True, stable=True)  # of equal ones the first class
        scores = zip(rows[:top].tolist(), values[:top].tolist(), strict=True)
        return [Score(names[i], p) for i, p in scores]

    @property
    def parameters(self) -> int:
        """How many the module has."""
        return sum(p.numel() for p in self.module.parameters())

    @cached_property
    def forward(self) -> Forward:
        """The module over the test-time views of each image: prepared floats (B, C, H, W) to logits (B, K)."""
        return views(self.module, self.tta)

    @cached_property
    def _augment(self) -> augment.Augment:
        """Without any step: what is left is the normalisation that training had."""
        given, sizes = self.preprocessing, self.sizes
        return augment.build(
            (),
            given.mean,
            given.std,
            given.normalize,
            size=(sizes.height, sizes.width),
            num_classes=sizes.num_classes,
            device=self.device,
        )

    def to(self, device: str | torch.device) -> Classifier:
        """The classifier on a device, its layout and convolutions chosen for speed there.

        The module is changed in place, as by torch's own `to`.

        Raises:
            InputError: not a device's name. DeviceError: this machine or this torch does not have it.
        """
        where = pick_device(device) if isinstance(device, str) else device
        return replace(self, module=placed(self.module, where, self.channels_last), device=where)


def _item(picture: Picture) -> tuple[Item, str]:
    """A picture as the decoder takes it, and its name in an error."""
    if isinstance(picture, Image.Image):
        # The decoder closes what it opened.
        return unread_file(picture) or picture.copy, "the image"
    if isinstance(picture, bytes):
        return picture, "the image"
    return Path(picture), str(picture)


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
    record = record or read_record(folder)
    data = record.data
    classifier = Classifier(
        name=record.model,
        module=load_module(folder, registry),
        sizes=record.sizes,
        preprocessing=Preprocessing(rule_of(record, registry), data.mean, data.std, record.settings.normalize),
        classes=data.classes,
        tta=record.settings.tta,
        dataset=data.spec,
        channels_last=record.channels_last,
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        where = place(registry, name)
        module = compose(model.build, registry, where=where, **msgspec.structs.asdict(sizes))
    known = dataset is not None and len(dataset.mean) in (1, sizes.in_channels)
    classes = dataset.classes if dataset is not None else ()
    return Classifier(
        name=name,
        module=module.eval(),
        sizes=sizes,
        preprocessing=Preprocessing(
            rule=dataset_rule(model.dataset, registry, (sizes.height, sizes.width)),
            mean=dataset.mean if known and dataset else (0.5,) * sizes.in_channels,
            std=dataset.std if known and dataset else (0.5,) * sizes.in_channels,
            normalize=recipe.normalize if recipe else True,
        ),
        classes=classes if len(classes) == sizes.num_classes else (),
    )
