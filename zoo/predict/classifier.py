"""A run's model with all that its images need: size, normalisation, views, names of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.files.decode import Rule, image_array
from zoo.data.types import Images, Item
from zoo.evaluate.views import views
from zoo.models.device import autocast, pick_device, placed
from zoo.runs.images import make_augment, rule_of
from zoo.runs.load import load as load_run
from zoo.runs.record import RunRecord, read_record

Found = list[tuple[str, float]]


@dataclass(frozen=True)
class Classifier:
    """A model ready for images, as its test split was evaluated: fp32, over the recorded views.

    Attributes:
        rule: brings a decoded image to (height, width) as the run's dataset did.
    """

    record: RunRecord
    module: nn.Module
    device: torch.device
    rule: Rule

    @classmethod
    def of(cls, folder: Path, device: str = "cpu") -> Classifier:
        """The model of a run folder or package.

        Raises:
            RunError: see `zoo.runs.load.load`. DeviceError: the device is not here.
        """
        record, where = read_record(folder), pick_device(device)
        module = placed(load_run(folder), where, record.channels_last)
        return cls(record, module.requires_grad_(False), where, rule_of(record))

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""
        return self.record.data.classes

    def decode(self, item: Item, where: str) -> Images:
        """Decode one image: uint8 (3, H, W) of the model's size.

        Raises:
            DataError: it cannot be read; names `where`.
        """
        return image_array(item, self.rule, where)

    def prepare(self, pixels: Images) -> Tensor:
        """uint8 (B, 3, H, W) to normalised floats of the same shape on the model's device."""
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        prepared: Tensor = make_augment(self.record, self.device).prepare(images)
        return prepared

    def probabilities(self, pixels: Images) -> Tensor:
        """uint8 (B, 3, H, W) to float32 (B, K) on the CPU, each row summing to 1."""
        with torch.inference_mode(), autocast(self.device, "fp32"):
            logits = views(self.module, self.record.settings.tta)(self.prepare(pixels))
            return logits.float().softmax(1).cpu()

    def best(self, probabilities: Tensor, top: int) -> Found:
        """The `top` most probable classes of one row (K,), the most probable first."""
        values, rows = probabilities.topk(min(top, len(self.names)))
        return [(self.names[i], p) for i, p in zip(rows.tolist(), values.tolist(), strict=True)]

    def facts(self) -> dict[str, Any]:
        """What this model is, as plain data."""
        sizes = self.record.sizes
        return {
            "model": self.record.model,
            "dataset": self.record.data.spec.partition("?")[0].rpartition("/")[2],
            "height": sizes.height,
            "width": sizes.width,
            "classes": len(self.names),
        }
