"""Checking a package from its hashes to its numbers: nothing in it is believed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from zoo.catalogue.registry import Registry, load_registry
from zoo.data.portable import is_local
from zoo.errors import InputError, PackageError, RunError
from zoo.evaluate.opened import evaluate_run
from zoo.hub.fetch import fetch
from zoo.hub.package import TREE_KEY, Config, check_finite, open_package
from zoo.hub.ref import is_ref, parse_ref
from zoo.hub.sums import CARD, COMPOSITION
from zoo.models.device import usable_device
from zoo.runs.folder import read_result, read_weights
from zoo.runs.record import WEIGHTS

OTHER_DEVICE = 0.001
"""Share of the test images that may fall differently on another kind of device."""


class Check(NamedTuple):
    """One thing that was checked, whether it holds, and what was seen."""

    name: str
    holds: bool
    seen: str


def verify(
    source: str,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    device: str | None = None,
    registry: Registry | None = None,
) -> list[Check]:
    """Hash every file again, rebuild, evaluate on the recorded images, and compare with the record.

    Args:
        source: `hf://OWNER/NAME[@REVISION]`, or a package's folder.
        dataset: where the images are, for a package made from a dataset of its author's own.
        registry: the catalogue; read if not given.
    Returns:
        The checks, in order; all hold, or the last ones say what does not.
    Raises:
        PackageError, HubError: it is damaged, or cannot be had. InputError: `dataset` is needed.
    """
    registry, checks = registry or load_registry(), []
    if is_ref(source):
        fetched = fetch(parse_ref(source), everything=True, registry=registry)
        package = fetched.package
        checks.append(Check("commit", True, fetched.pinned))
    else:
        package = open_package(Path(source), registry=registry, partial=False)
    folder, config, record = package.folder, package.config, package.record
    checks.append(Check("sha256", True, f"{len(package.hashes)} files are what SHA256SUMS says"))
    checks.append(Check("model", True, f"{config.parameters:,} parameters; names, shapes and types fit"))
    check_finite(folder / WEIGHTS, read_weights(folder))
    result = _result(folder)
    checks += [_card(folder, result), _picture(folder, config)]
    if is_local(record.data.spec) and dataset is None:
        raise InputError(
            f"{source}: was made from {record.data.spec!r}, which only its author has at that place; "
            "give the same images by --dataset SPEC"
        )
    chosen = device or usable_device(record.device)
    measured, _ = evaluate_run(folder, data_dir=data_dir, device=chosen, dataset=dataset)
    same_kind = chosen.partition(":")[0] == record.device.partition(":")[0]
    return [*checks, *_numbers(result["test"], measured, same_kind)]


def _result(folder: Path) -> dict[str, Any]:
    try:
        result = read_result(folder)
        test = result["test"]
        numbers = [float(test[key]) for key in ("top1", "loss", "correct", "count")]
    except (RunError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PackageError(f"{folder}: result.json is damaged: {error}") from None
    if not all(math.isfinite(n) for n in numbers) or not 0 <= numbers[2] <= numbers[3]:
        raise PackageError(f"{folder}: result.json holds numbers that cannot be")
    if abs(numbers[0] - numbers[2] / max(numbers[3], 1)) > 1e-9:
        raise PackageError(f"{folder}: result.json: top1 is not correct / count")
    return result


def _card(folder: Path, result: dict[str, Any]) -> Check:
    """The number on the card must be the one in result.json."""
    from huggingface_hub import ModelCard

    if not (folder / CARD).is_file():
        return Check("card", True, "there is none")
    try:
        card = ModelCard((folder / CARD).read_text("utf-8"), ignore_metadata_errors=True)
        rows = card.data.eval_results or []
        values = [row.metric_value for row in rows if row.metric_name == "top-1 accuracy"]
    except Exception as error:  # front matter of strangers fails in many ways
        return Check("card", False, f"its front matter cannot be read ({type(error).__name__})")
    return Check(
        "card",
        values == [result["test"]["top1"]],
        f"says top-1 {values}, result.json {result['test']['top1']}",
    )


def _picture(folder: Path, config: Config) -> Check:
    """The drawing must be of this tree, by what its metadata say."""
    from PIL import Image

    if not (folder / COMPOSITION).is_file():
        return Check("picture", True, "there is none")
    try:
        with Image.open(folder / COMPOSITION, formats=["PNG"]) as image:  # its header, not its pixels
            said = str(image.info.get(TREE_KEY, ""))
    except Exception as error:  # a stranger's file fails in many ways
        return Check("picture", False, f"cannot be read ({type(error).__name__})")
    holds = said == config.tree_sha256
    return Check("picture", holds, f"{COMPOSITION} is drawn from {'this' if holds else 'another'} tree")


def _numbers(recorded: dict[str, Any], measured: dict[str, Any], same_kind: bool) -> list[Check]:
    allowed = 0 if same_kind else math.ceil(OTHER_DEVICE * measured["count"])
    difference = abs(int(recorded["correct"]) - measured["correct"])
    note = "" if same_kind else f"; on another kind of device {allowed} may differ"
    was, now = (f"{test['correct']} of {test['count']}" for test in (recorded, measured))
    said = f"recorded {was}, measured {now}"
    close = math.isclose(float(recorded["loss"]), measured["loss"], rel_tol=1e-3, abs_tol=1e-4)
    return [
        Check("top-1", recorded["count"] == measured["count"] and difference <= allowed, said + note),
        Check("loss", close, f"recorded {float(recorded['loss']):.6f}, measured {measured['loss']:.6f}"),
    ]
