"""What the script of a report draws as a run's figure of merit, asked of the script itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "zoo/studies/report/assets/curves.js"
TOP1 = {"epoch": [1, 2], "train_top1": [0.5, 0.6], "val_top1": [0.4, 0.7], "val_loss": [2, 1]}
MAP = {"epoch": [1, 2], "train_loss": [2, 1], "val_map": [0.3, 0.8], "val_loss": [2, 1]}
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="needs node")
@pytest.mark.parametrize(
    ("curves", "name", "training", "validation"),
    [
        (TOP1, "top-1", [0.5, 0.6], [0.4, 0.7]),
        (MAP, "mAP", None, [0.3, 0.8]),
        ({"epoch": [1], "test_map": [0.2]}, "mAP", None, [0.2]),
    ],
)
def test_the_figure_of_merit_of_several_labels_is_drawn(
    curves: dict[str, Any], name: str, training: list[float] | None, validation: list[float]
) -> None:
    asked = 'figureName(), column(0, "train", "top1") ?? null, column(0, "val", "top1")'
    code = f"const RUNS = [{{ curves: {json.dumps(curves)} }}], runsHere = () => [0];\n{SCRIPT.read_text()}"
    command = [str(NODE), "-e", f"{code}\nconsole.log(JSON.stringify([{asked}]));"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [name, training, validation]
