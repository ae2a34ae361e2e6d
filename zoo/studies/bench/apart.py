"""Measures each model in a process of its own, so that none is disturbed by what another one left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.base import children
from zoo.base.reporter import Reporter
from zoo.catalogue.registry import find_model
from zoo.studies.bench.benched import Bench, bench_of


def measure_all(models: Sequence[str], settings: Mapping[str, Any], reporter: Reporter) -> Bench:
    """Measure one model after another.

    Args:
        settings: the fields of `zoo.studies.bench.rounds.Job`, but the model.
    Raises:
        UnknownNameError: no such model; nothing was measured.
    """
    for model in models:  # before minutes are spent on the first one
        find_model(model)
    rows = []
    for model in models:
        reporter.say(f"{model}: {', '.join(settings['what'])}")
        rows.append(measured({"model": model, **settings}))
    return bench_of(rows, settings)


def measured(job: Mapping[str, Any]) -> dict[str, Any]:
    """The row of one model, measured in its own process; on failure its `error` says why."""
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        job_file, row_file = Path(folder) / "job.json", Path(folder) / "row.json"
        job_file.write_text(json.dumps(job))
        command = [*children.python("zoo.studies.bench"), str(job_file), str(row_file)]
        return outcome(str(job["model"]), command, row_file)


def outcome(model: str, command: Sequence[str], row_file: Path) -> dict[str, Any]:
    """Run a process that writes a row; if it writes none, the row says how the process ended."""
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, env=children.environment()
    )
    if done.returncode == 0 and row_file.is_file():
        row: dict[str, Any] = json.loads(row_file.read_text())
        return row
    if done.returncode == -signal.SIGKILL:
        why = "its process was killed by the system, most likely out of memory; lower --batch-size or --image-size"
    elif done.returncode < 0:
        why = f"its process was killed by signal {-done.returncode}"
    else:
        last = (done.stderr.strip().splitlines() or ["it printed no message"])[-1]
        why = f"its process failed with code {done.returncode}: {last}"
    return {"model": model, "error": why}
