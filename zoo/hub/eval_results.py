"""The result of a package in the form in which the Hub reads results besides `model-index`: `.eval_results/*.yaml`.

The form is huggingface_hub's, which writes and parses it: https://huggingface.co/docs/hub/eval-results.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.catalogue.registry import Registry
from zoo.errors import PackageError
from zoo.runs.record import RunRecord

TASK = "default"
"""The task of a dataset that has one task; none of the datasets of our catalogue names several."""


def dataset_id(spec: str, registry: Registry) -> str | None:
    """The dataset's repository on the Hub; None where it has none that we know."""
    if spec.startswith("hf:"):
        parts = re.fullmatch(r"hf:(\w[\w.-]*/\w[\w.-]*)(@.*)?(\?.*)?", spec, re.ASCII)
        return parts[1] if parts else None
    dataset = registry.datasets.get(spec)
    return dataset.hub or None if dataset else None


def eval_results(record: RunRecord, result: dict[str, Any], registry: Registry) -> str | None:
    """The content of the file: the test top-1, and how it was measured.

    Returns:
        YAML; None where the Hub has no such dataset, where images have several labels, or where the test images are not
        all of the dataset's own.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    dataset = dataset_id(record.data.spec, registry)
    if record.data.is_multi_label:  # the Hub's leaderboards of these datasets count top-1
        return None
    if dataset is None or "?" in record.data.spec or record.data.limit_test is not None or record.data.skipped:
        return None
    notes = f"test top-1; protocol {record.protocol}; {selection(result)}; seed {record.seed}"
    entry = EvalResultEntry(dataset_id=dataset, task_id=TASK, value=result["test"]["top1"], notes=notes)
    return yaml_dump(eval_result_entries_to_yaml([entry]))


def stated(path: Path) -> list[Any]:
    """The values that a file of this form states.

    Raises:
        PackageError: it has another form.
    """
    import yaml
    from huggingface_hub import parse_eval_result_entries

    try:
        return [entry.value for entry in parse_eval_result_entries(yaml.safe_load(path.read_text("utf-8")))]
    except Exception as error:  # a stranger's file fails in many ways
        raise PackageError(f"{path}: is no list of results as the Hub reads it ({type(error).__name__})") from None


def selection(result: dict[str, Any]) -> str:
    """The selection rule in words: "best top1 on validation, epoch 12", "last epoch, 20", or that of a soup."""
    chosen = result.get("selection", {})
    if "soup" in result:
        chosen_by = f", chosen on {chosen.get('split')}" if chosen.get("split") else ""
        return f"{chosen.get('rule')}{chosen_by}"
    if chosen.get("rule") == "last":
        return f"last epoch, {chosen.get('epoch')}"
    return f"best {chosen.get('rule')} on {chosen.get('split')}, epoch {chosen.get('epoch')}"
