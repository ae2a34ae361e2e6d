"""Using a run folder: its splits measured again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.batches.open import open_source
from zoo.data.split import Split
from zoo.errors import InputError
from zoo.evaluate.accuracy import Keep, Metrics, evaluate
from zoo.evaluate.new_images import other_images
from zoo.evaluate.views import Forward, views
from zoo.models.device import autocast, pick_device, placed
from zoo.runs.folder import read_result
from zoo.runs.images import SplitName, eval_batch, make_augment, split_of
from zoo.runs.load import load as load_run
from zoo.runs.record import RESULT, RunRecord, read_record


@dataclass(frozen=True)
class Opened:
    """A run, ready to be measured on one of its splits.

    Attributes:
        images: of the split, as the run saw them (for training without its augmentation).
        prepare: uint8 images (B, 3, H, W) to what `forward` takes; forward: to logits (B, K), over the
            views of each image that the recipe tests with.
        on: the SPEC of other images than the run's, which are these; None: they are the run's.
    """

    record: RunRecord
    split: SplitName
    images: Split
    device: torch.device
    module: nn.Module
    prepare: Forward
    forward: Forward
    on: str | None = None

    def measure(self, images: Split | None = None, keep: Keep | None = None) -> Metrics:
        """One pass in fp32 over the split (or over other `images` of the same size); `keep`: see `evaluate`."""
        source = open_source(
            self.images if images is None else images, self.device, channels_last=self.record.channels_last
        )
        return evaluate(
            self.module,
            source.batches(eval_batch(self.record)),
            self.prepare,
            autocast=lambda: autocast(self.device, "fp32"),
            forward=self.forward,
            keep=keep,
        )

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of uint8 images (B, 3, H, W) on the device, in fp32."""
        with torch.inference_mode(), autocast(self.device, "fp32"):
            return self.forward(self.prepare(images)).float()


def open_run(
    run: Path,
    *,
    split: SplitName = "test",
    data_dir: str | None = None,
    device: str | None = None,
    dataset: str | None = None,
    on: str | None = None,
) -> Opened:
    """Load a run's weights and the images of one of its splits, or of other ones.

    Args:
        split: "test", or the images that the run selected its epoch by ("val") or trained on ("train").
        device: the run's, if not given. dataset: where the same images are here, if not at the recorded SPEC.
        on: another dataset, with the run's classes or some of them: see `zoo.evaluate.new_images`.
    Raises:
        RunError: a damaged run, a dataset that is not the recorded one, or a split that the run has not.
        InputError: both `dataset` and `on`, or a class of `on` that the run does not know.
    """
    record = read_record(run)
    where = pick_device(device or record.device)
    if on is None:
        images = split_of(record, split, data_dir, dataset)
    elif dataset is not None:
        raise InputError(
            "--dataset says where the run's own images are, --on names other ones; give one of them"
        )
    else:
        images = other_images(record, on, split, data_dir=data_dir, device=str(where))
    module = placed(load_run(run), where, record.channels_last)
    prepare = make_augment(record, where).prepare
    return Opened(record, split, images, where, module, prepare, views(module, record.settings.tta), on)


def evaluate_run(
    run: Path, *, data_dir: str | None = None, device: str | None = None, dataset: str | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Measure a run's test split again, in fp32 and over the same views, as it was recorded.

    Args:
        dataset: where the same images are here, if not at the recorded SPEC.
    Returns:
        (measured, recorded) with keys loss, top1, top5, correct, count; recorded is None where the
        run was not finished.
    Raises:
        RunError: a damaged run, or a dataset that is not the recorded one.
    """
    opened = open_run(run, data_dir=data_dir, device=device, dataset=dataset)
    return opened.measure().as_dict(), recorded_metrics(run)


def recorded_metrics(run: Path, split: SplitName = "test", on: str | None = None) -> dict[str, Any] | None:
    """What `result.json` says of a split; None where the run was not finished, or of training or other images."""
    if on is not None or not (run / RESULT).is_file():
        return None
    result = read_result(run)
    found: dict[str, Any] | None = result.get({"test": "test", "val": "validation", "train": ""}[split])
    return found


def confusion_run(
    run: Path, *, data_dir: str | None = None, device: str | None = None, dataset: str | None = None
) -> Tensor:
    """What each class of a run's test split was taken for, in fp32.

    Returns:
        int64 (K, K): rows are the true classes, columns the predicted ones.
    Raises:
        RunError: as `evaluate_run`.
    """
    keep = Keep()
    open_run(run, data_dir=data_dir, device=device, dataset=dataset).measure(keep=keep)
    return keep.predictions().confusion()
