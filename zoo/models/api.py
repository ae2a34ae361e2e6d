"""The public call of this room: `zoo.create`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from zoo.base.checked_call import checked
from zoo.catalogue.parts import entry_of
from zoo.catalogue.registry import find_model
from zoo.catalogue.spec import Node
from zoo.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@checked
def create(
    model: str | Node,
    *,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    in_channels: int | None = None,
    seed: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
) -> nn.Module:
    """Build a model with fresh weights.

    Args:
        model: a name as in `zoo list`, "timm/NAME", "torchvision/NAME", "FILE.toml#NAME", or a tree made in Python. A
            tree that is a part or a combinator is put into the classifier `hybrid.classifier`.
        num_classes: default: those of the model's own dataset (of a tree: cifar10).
        image_size: side, or (height, width), in pixels; default: its own dataset's.
        in_channels: default: those of its own dataset.
        seed: of the weights: those that a training with this seed begins with, unless it is given others or fits them
            to its images; torch's generators are left as they were. None: the weights are drawn from torch's generator.
        features_only: leave the head out, and give maps of several sizes, as timm's `create_model` does: a list of
            (B, C', H', W'), whose `feature_info` has `channels()` and `reduction()`. out_indices: which maps, by their
            places from the image on; None: all.
    Returns:
        A module, (B, in_channels, height, width) floats to (B, num_classes) logits, in train mode, on torch's default
        device. It answers timm's conventions where it is a tree of ours or timm's: `forward_features`, `forward_head`,
        `reset_classifier`, `num_features`, `pretrained_cfg`.
    Raises:
        UnknownNameError: no such model, or no such component.
        InputError: a wrong argument in a tree, no valid file, or no such feature maps.
        ShapeError: a size that a part cannot take.
        PluginError: a component that does not keep the plugin contract.

    Example:
        >>> tree = zoo.alternate(zoo.part("cnn.residual", widths=[8]), zoo.part("vit.image", depth=1))
        >>> zoo.create(tree, num_classes=10, image_size=32)(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    from zoo.models.backbones import FeatureMaps, with_preprocessing
    from zoo.models.compose import compose, place, sizes_for

    registry, name, entry = find_model(model) if isinstance(model, str) else entry_of(model)
    sizes = sizes_for(entry, registry, num_classes=num_classes, image_size=image_size, in_channels=in_channels)
    if out_indices is not None and not features_only:
        raise InputError("out_indices names feature maps: give features_only=True too")
    with _seeded(seed):
        module = compose(entry.build, registry, where=place(registry, name), **sizes)
    dataset = registry.datasets.get(entry.dataset)
    if dataset is not None and len(dataset.mean) == sizes["in_channels"]:
        with_preprocessing(module, {"mean": dataset.mean, "std": dataset.std})
    return FeatureMaps(module, name, out_indices) if features_only else module


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Inside, weights are drawn as at the start of a training with this seed."""
    import torch

    from zoo.data.seeds import INIT, mix_seed

    if seed is None:
        yield
        return
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(mix_seed(seed, INIT))
        yield
