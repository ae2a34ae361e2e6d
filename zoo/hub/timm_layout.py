"""A package as timm loads it, where the model is one of timm's."""

from __future__ import annotations

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import torch

from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import node_from_table
from zoo.hub.package import CONFIG
from zoo.models.header import outline
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord, without


def timm_layout(record: RunRecord) -> dict[str, Any]:
    """timm's own keys of `config.json`, where timm can load the weights; else {}.

    That is so for `timm/NAME`, and for `torchvision/NAME` where timm has a model of that name whose
    tensors have the same names and shapes (ResNet and its kin).
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
    if use == "torchvision.model" and not _same_tensors(record, twin):
        return {}
    return _timm_config(record, twin, extra)


def _same_tensors(record: RunRecord, twin: torch.nn.Module) -> bool:
    tree = node_from_table(without(record.build, "pretrained"), "build")
    sizes = msgspec.structs.asdict(record.sizes)
    ours = outline(tree, load_registry(), 20_000, where="build", **sizes).state_dict()
    theirs = twin.state_dict()
    return {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def _timm_config(record: RunRecord, twin: torch.nn.Module, model_args: dict[str, Any]) -> dict[str, Any]:
    from timm.models._hub import save_config_for_hf

    plain, sizes, rule = not record.settings.normalize, record.sizes, rule_of(record, load_registry())
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
        table["pretrained_cfg"].pop(key, None)  # of timm's own weights, which these are not
    return table
