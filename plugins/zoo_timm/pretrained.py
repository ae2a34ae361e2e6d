"""timm's pretrained weights, by timm's own loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import PretrainedCfg, get_pretrained_cfg, load_model_config_from_hf
from timm.models._hub import download_from_hf
from torch import Tensor

from zoo.errors import InputError, UnknownNameError
from zoo.plugin import Pretrained, Transform
from zoo_timm.models import HUB, names

DESCRIBES = (
    "num_classes",
    "input_size",
    "fixed_input_size",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "mean",
    "std",
    "first_conv",
    "classifier",
    "label_offset",
    "pool_size",
)
"""What is taken of a stranger's configuration: nothing that says what is loaded, or how."""
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


def pretrained(*, name: str, **unused: object) -> Pretrained:
    """The weights of one of timm's models.

    Args:
        name: timm's name, with the tag of the weights or with the model's default ones, or
            "hf-hub:OWNER/NAME[@REVISION]": a repository in timm's layout.
        unused: other arguments of the model, which are no matter of its weights.

    Raises:
        UnknownNameError: timm has no such model. InputError: it has no such weights.
    """
    del unused
    if name.startswith(HUB):
        return _on_the_hub(name.removeprefix(HUB))
    if not timm.is_model(name):
        raise UnknownNameError("timm model", name.partition(".")[0], names(), "`zoo list timm/*` shows them all")
    config = get_pretrained_cfg(name) if _is_tag(name) else None
    if config is None or not config.has_weights:
        known = timm.list_pretrained(f"{name.partition('.')[0]}*")[:4]
        have = f"it has {', '.join(known)}" if known else "see `zoo list timm/*`"
        raise InputError(f"timm has no pretrained weights for {name!r}; {have}")
    full = f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)
    hub = str(config.hf_hub_id or "")
    load = _loader(full, config, {}, lambda: _asked_once(config))
    return _described(f"timm/{full}", load, config, hub, f"{hub} on the Hub" if hub else str(config.url))


def _is_tag(name: str) -> bool:
    """Whether the model has weights of the tag in its name, if there is one."""
    model, _, tag = name.partition(".")
    return not tag or name in timm.list_pretrained(f"{model}.*")


def _asked_once(config: PretrainedCfg) -> PretrainedCfg:
    """The same, known to be reachable: timm itself takes an unreachable Hub for a missing file, and tries others."""
    try:
        if config.hf_hub_id:
            download_from_hf(str(config.hf_hub_id), "model.safetensors")
    except Exception as error:  # huggingface_hub's, which is timm's to import
        if type(error).__name__ not in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
            raise
    return config


def _on_the_hub(repo: str) -> Pretrained:
    table, name, model_args = load_model_config_from_hf(repo)
    if not timm.is_model(name):
        raise InputError(f"{HUB}{repo}: is of {name!r}, which this version of timm does not have")
    commit = Path(str(download_from_hf(repo, "config.json"))).parent.name
    plain = repo.partition("@")[0]
    pinned = f"{plain}@{commit}"
    known = {k: v for k, v in table.items() if k in DESCRIBES}

    def config() -> PretrainedCfg:
        """With the one file that is read: a stranger's pickle never is."""
        return PretrainedCfg(**known, file=str(download_from_hf(pinned, "model.safetensors")))

    described = PretrainedCfg(**known)
    load = _loader(name, described, model_args or {}, config)
    return _described(f"timm/{HUB}{pinned}", load, described, plain, f"{plain} on the Hub")


def _described(
    origin: str, load: Callable[..., dict[str, Tensor]], config: PretrainedCfg, hub: str, where: str
) -> Pretrained:
    info = _imagenet(config)
    return Pretrained(
        origin=origin,
        load=load,
        transform=transform_of(config),
        mean=tuple(config.mean),
        std=tuple(config.std),
        where=where,
        base_model=hub,
        num_classes=config.num_classes,
        classes=info.label_descriptions() if info else (),
        other_names=lambda: _other_names(info) if info else (),
    )


def _imagenet(config: PretrainedCfg) -> ImageNetInfo | None:
    """The classes of the subset of ImageNet that has as many; timm itself knows them by their number alone."""
    subset = infer_imagenet_subset({"num_classes": config.num_classes})
    return ImageNetInfo(subset) if subset else None


def _other_names(info: ImageNetInfo) -> list[list[str]]:
    """WordNet's numbers, by which the folders of ImageNet are called, and the first word of each description."""
    first = [description.partition(",")[0] for description in info.label_descriptions()]
    return [list(info.label_names()), first]


def _loader(
    name: str, config: PretrainedCfg, model_args: Mapping[str, Any], source: Callable[[], PretrainedCfg]
) -> Callable[..., dict[str, Tensor]]:
    def load(*, in_channels: int, height: int, width: int) -> dict[str, Tensor]:
        """With the head that the weights have; position embeddings are resampled by timm."""
        own = {k: v for k, v in model_args.items() if k not in ("img_size", "in_chans", "num_classes")}
        size = {"img_size": (height, width)} if config.fixed_input_size else {}
        built = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg=source(),
            in_chans=in_channels,
            num_classes=config.num_classes,
            **own,
            **size,
        )
        return dict(built.state_dict())

    return load


def transform_of(config: PretrainedCfg) -> Transform:
    """timm's evaluation transform: `input_size`, `crop_pct`, `crop_mode`, `interpolation`.

    The mode "border" (the whole image with a border around it) is taken for "center", and images that are not square
    are scaled as a whole; no weights with classes that timm lists are of these kinds.
    """
    _, height, width = config.input_size
    side, squash = int(height / config.crop_pct), config.crop_mode == "squash"
    whole = height != width or (squash and side == height)
    chosen = config.interpolation if config.interpolation in FILTERS else "bilinear"
    return Transform(
        size=(height, width),
        resize=None if whole else side,
        squash=squash and not whole,
        interpolation=chosen,  # type: ignore[arg-type]  # one of FILTERS, seen above
        rounding="torchvision",
    )
