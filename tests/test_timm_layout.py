"""What timm reads of a package's config.json is what the run did, whatever timm says of its own weights."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import PretrainedCfg

from zoo.catalogue.registry import load_registry
from zoo.hub.timm_layout import timm_layout
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord
from zoo.train.plan import resolve
from zoo.train.run_options import Request

ROOT = Path(__file__).resolve().parent.parent
FOLLOW_THE_RUN = {"input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation", "num_classes"}
OF_THE_MODEL = {"fixed_input_size", "first_conv", "classifier"}
NONE_OF_OURS = {"custom_load", "pool_size"}
DESCRIBE_OTHER_WEIGHTS = {"test_input_size", "test_crop_pct", "test_pool_size", "min_input_size", "label_offset"}
DESCRIBE_OTHER_WEIGHTS |= {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "tag", "license"}
DESCRIBE_OTHER_WEIGHTS |= {"description", "origin_url", "paper_name", "paper_ids", "notes", "label_descriptions"}
AT_THE_TOP = {"architecture", "label_names"}


def record_of(model: str, *settings: str, **asked: Any) -> RunRecord:
    spec = asked.pop("dataset", "sklearn:digits")
    few = {"limit_train": 20, "limit_test": 20, "device": "cpu"}
    return resolve(Request(model=model, dataset=spec, settings=settings, **few, **asked)).record


def layout(record: RunRecord) -> dict[str, Any]:
    unread: Any = None  # the header of the weights, which only torchvision's models are compared with
    table: dict[str, Any] = json.loads(json.dumps(timm_layout(record, unread, load_registry())))
    return table


def test_every_key_that_timm_reads_is_decided() -> None:
    """A new field of timm's fails here: say what it means for a run."""
    decided = FOLLOW_THE_RUN | OF_THE_MODEL | NONE_OF_OURS | DESCRIBE_OTHER_WEIGHTS | AT_THE_TOP
    assert {field.name for field in fields(PretrainedCfg)} == decided
    written = layout(record_of("timm/resnet10t"))
    assert set(written["pretrained_cfg"]) == FOLLOW_THE_RUN | OF_THE_MODEL | NONE_OF_OURS
    assert set(written) >= AT_THE_TOP


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("normalize", ["true", "false"])
def test_both_modes_of_timms_evaluation_are_the_runs(name: str, normalize: str) -> None:
    record = record_of(f"timm/{name}", f"normalize={normalize}", image_size=32)
    written = layout(record)["pretrained_cfg"]
    plain = normalize == "false"
    expected = {
        "input_size": [3, 32, 32],
        "interpolation": "bilinear",
        "mean": [0.0] * 3 if plain else list(record.data.mean),
        "std": [1.0] * 3 if plain else list(record.data.std),
        "crop_pct": 1.0,
        "crop_mode": "squash",
    }
    for use_test_size in (False, True):
        assert resolve_data_config(pretrained_cfg=written, use_test_size=use_test_size) == expected


@pytest.mark.parametrize(("resize", "crop"), [(40, 32), (29, 15), (25, 17), (28, 18), (41, 23)])
def test_timm_scales_to_the_very_size_that_the_run_scaled_to(resize: int, crop: int) -> None:
    record = record_of("timm/resnet10t", dataset=f"sklearn:digits?resize={resize}&crop={crop}")
    config = resolve_data_config(pretrained_cfg=layout(record)["pretrained_cfg"])
    assert math.floor(crop / config["crop_pct"]) == resize
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    ours = np.asarray(rule_of(record, load_registry()).apply(image)) / 255
    theirs = create_transform(**config)(image).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(theirs * record.data.std + record.data.mean, ours, atol=1e-5)


def test_arguments_that_only_repeat_are_left_out_and_timm_builds_the_model() -> None:
    """A loader that passes the classes itself, as transformers does, must not get them twice."""
    for name, args in (("resnet10t", None), ("test_vit", {"img_size": [32, 32]})):
        record = record_of(f"timm/{name}", image_size=32)
        table = layout(record)
        assert table.get("model_args") == args
        timm.create_model(table["architecture"], num_classes=10, **(args or {}))
        timm.create_model(table["architecture"], pretrained_cfg=table["pretrained_cfg"])


def test_nothing_private_of_timm_is_used_in_packaging() -> None:
    for path in (ROOT / "zoo").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("timm"):
                assert "._" not in (node.module or ""), f"{path}: {node.module}"
