"""Pretrained weights that a library released: no run made them, but they say what their images and classes are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec
import torch
from torch import Tensor, nn

from zoo.base.reporter import callers
from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node
from zoo.errors import PluginError, ZooWarning
from zoo.evaluate.classifier import Classifier
from zoo.evaluate.preparing import Preprocessing
from zoo.models.compose import compose, place
from zoo.models.device import pick_device
from zoo.models.precision import usual_torch
from zoo.runs.record import Sizes

Load = Callable[..., Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class LibraryWeights:
    """Weights of a library and what they need to be used; nothing is downloaded before `open`.

    Attributes:
        reference: what the user wrote. name: the permanent name of exactly these weights.
        build: the model's tree. sizes: of the images and classes that the weights were made for.
        preprocessing: how their images are prepared.
        classes: names of the logits, in their order; empty where they have none.
        other_names: returns more lists of names of the same classes.
        load: as `zoo.plugin.Pretrained.load`.
    """

    reference: str
    name: str
    build: Node
    sizes: Sizes
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    other_names: Callable[[], Sequence[Sequence[str]]]
    load: Load
    usual_device: ClassVar[str] = "auto"

    def open(self, registry: Registry, device: str | torch.device | None = None) -> Classifier:
        """The model with these weights, in eval mode.

        Args:
            device: as for `zoo.evaluate.classifier.open_classifier`.
        Raises:
            PluginError: the weights do not fit the model. HubError: they cannot be downloaded.
            InputError, DeviceError: as `Classifier.to`.
        Warns:
            ZooWarning: the classes have no names.
        """
        where = pick_device(device) if isinstance(device, str) else device  # before weights are read
        with usual_torch():
            classifier = Classifier(
                name=self.name,
                module=self._module(registry),
                sizes=self.sizes,
                preprocessing=self.preprocessing,
                classes=self.classes,
            )
            if where is not None:
                classifier.to(where)
        if not self.classes:
            outputs = plural(self.sizes.num_classes, "output")
            line = f"{self.name} has {outputs} without known names, which are not always classes; they are numbered"
            warnings.warn(line, ZooWarning, stacklevel=callers())
        return classifier

    def names(self) -> tuple[tuple[str, ...], ...]:
        """All lists of names by which images may be sorted; the first are those of the logits, or their numbers."""
        first = self.classes or tuple(map(str, range(self.sizes.num_classes)))
        return (first, *(tuple(names) for names in self.other_names()))

    def _module(self, registry: Registry) -> nn.Module:
        sizes = msgspec.structs.asdict(self.sizes)
        with torch.random.fork_rng(devices=[]):
            module = compose(self.build, registry, where=place(registry, self.reference), **sizes)
        tensors = self.load(**{key: value for key, value in sizes.items() if key != "num_classes"})
        needed = module.state_dict()
        wrong = [name for name, tensor in needed.items() if name not in tensors or tensors[name].shape != tensor.shape]
        if wrong:
            shown = ", ".join(wrong[:4]) + (", ..." if len(wrong) > 4 else "")
            lacking = f"{len(wrong)} of {plural(len(needed), 'tensor')} are missing or of another shape: {shown}"
            raise PluginError(f"the weights of {self.reference} do not fit its model: {lacking}")
        module.load_state_dict({name: tensors[name] for name in needed})
        return module.eval()
