"""The part of `config.json` with which timm loads a package, for models that timm has.

It is written key by key, with no function of timm's: timm's own (`save_config_for_hf`) is private and has changed
between versions, and it takes over what timm says of its pretrained weights, which is not true of others.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from zoo.catalogue.registry import Registry
from zoo.data.files.decode import Rule
from zoo.evaluate.preparing import Preprocessing
from zoo.evaluate.timm_words import timm_config
from zoo.models.header import Header
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord, Sizes

OF_THE_MODEL = ("fixed_input_size", "first_conv", "classifier")
"""What the configuration says of a model's modules, whatever its weights are."""


def timm_layout(record: RunRecord, header: Header, registry: Registry) -> dict[str, Any]:
    """The keys of `config.json` that timm reads, if timm can load the weights and prepare images; otherwise {}.

    timm can load `timm/NAME`, and `torchvision/NAME` if timm has a model of that name whose tensors have
    the same names and shapes (ResNet and similar models). It always scales an image before it cuts a square out.

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

    name, rule = args["name"], rule_of(record, registry)
    if not timm.is_model(name) or not (rule.size or rule.resize):
        return {}
    twin, model_args = _twin(name, record.sizes)
    if use == "torchvision.model" and not _same_tensors(header, twin):
        return {}
    return _timm_config(record, rule, twin, model_args)


def _twin(name: str, sizes: Sizes) -> tuple[Any, dict[str, Any]]:
    """timm's model of that name, and the arguments that differ from its own defaults, besides the classes."""
    import timm
    from timm.models import get_pretrained_cfg

    source = get_pretrained_cfg(name)
    args: dict[str, Any] = {}
    if source is not None and source.fixed_input_size:
        args["img_size"] = [sizes.height, sizes.width]
    if sizes.in_channels != 3:
        args["in_chans"] = sizes.in_channels
    options = {"num_classes": sizes.num_classes, **args}
    with torch.device("meta"):
        return timm.create_model(name, **options), args


def _same_tensors(header: Header, twin: torch.nn.Module) -> bool:
    ours = {name: entry.shape for name, entry in header.tensors.items()}
    return ours == {name: tuple(tensor.shape) for name, tensor in twin.state_dict().items()}


def _timm_config(record: RunRecord, rule: Rule, twin: Any, model_args: dict[str, Any]) -> dict[str, Any]:
    source = twin.pretrained_cfg
    table = {
        "architecture": source["architecture"],
        "num_classes": record.sizes.num_classes,
        "num_features": twin.num_features,
        "label_names": list(record.data.classes),
        "pretrained_cfg": {key: source.get(key) for key in OF_THE_MODEL} | _preprocessing(record, rule),
    }
    if isinstance(pool := getattr(twin, "global_pool", None), str) and pool:
        table["global_pool"] = pool
    if model_args:
        table["model_args"] = model_args
    return table


def _preprocessing(record: RunRecord, rule: Rule) -> dict[str, Any]:
    """What the run did with its images, in timm's words; without sizes for a test of its own, which it had not."""
    sizes, data = record.sizes, record.data
    return {
        "custom_load": False,
        "pool_size": None,
        **timm_config(sizes, Preprocessing(rule, data.mean, data.std, bool(record.settings.normalize))),
    }
