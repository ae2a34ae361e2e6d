"""The part of `config.json` with which timm loads a package, for models that timm has."""

from __future__ import annotations

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch

from zoo.catalogue.registry import Registry
from zoo.hub.sums import CONFIG
from zoo.models.header import Header
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord


def timm_layout(record: RunRecord, header: Header, registry: Registry) -> dict[str, Any]:
    """The keys of `config.json` that timm reads, if timm can load the weights; otherwise {}.

    timm can load `timm/NAME`, and `torchvision/NAME` if timm has a model of that name whose tensors have
    the same names and shapes (ResNet and similar models).

    Args:
        header: the header of the run's weights, which fit its model.
        registry: the catalogue, for the dataset's own rule of resizing.
    """
    use, args = record.build.get("use"), record.build
    if use not in ("timm.model", "torchvision.model") or not isinstance(args.get("name"), str):
        return {}
    try:
        version("timm")
    except PackageNotFoundError:
        return {}
    import timm
    from timm.models import get_pretrained_cfg

    name, sizes = args["name"], record.sizes
    if not timm.is_model(name):
        return {}
    source = get_pretrained_cfg(name)
    extra = (
        {"img_size": [sizes.height, sizes.width]} if source is not None and source.fixed_input_size else {}
    )
    with torch.device("meta"):
        twin = timm.create_model(name, num_classes=sizes.num_classes, in_chans=sizes.in_channels, **extra)
    if use == "torchvision.model" and not _same_tensors(header, twin):
        return {}
    return _timm_config(record, registry, twin, extra)


def _same_tensors(header: Header, twin: torch.nn.Module) -> bool:
    ours = {name: entry.shape for name, entry in header.tensors.items()}
    return ours == {name: tuple(tensor.shape) for name, tensor in twin.state_dict().items()}


def _timm_config(
    record: RunRecord, registry: Registry, twin: torch.nn.Module, model_args: dict[str, Any]
) -> dict[str, Any]:
    from timm.models._hub import save_config_for_hf

    plain, sizes, rule = not record.settings.normalize, record.sizes, rule_of(record, registry)
    chosen = {
        "input_size": [sizes.in_channels, sizes.height, sizes.width],
        "mean": [0.0] * sizes.in_channels if plain else list(record.data.mean),
        "std": [1.0] * sizes.in_channels if plain else list(record.data.std),
        "crop_pct": sizes.height / rule.resize if rule.resize else 1.0,
        "crop_mode": "squash" if rule.size else "center",
        "interpolation": rule.interpolation,
    }
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / CONFIG
        labels = {"label_names": list(record.data.classes), "pretrained_cfg": chosen}
        save_config_for_hf(twin, str(path), model_config=labels, model_args=model_args or None)
        table: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    table["pretrained_cfg"] = {**table["pretrained_cfg"], **chosen}
    for key in (
        "hf_hub_id",
        "url",
        "file",
        "tag",
        "license",
        "origin_url",
        "paper_ids",
        "paper_name",
        "notes",
    ):
        table["pretrained_cfg"].pop(
            key, None
        )  # these describe timm's pretrained weights, and ours are others
    return table
