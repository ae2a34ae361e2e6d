"""What the benchmarks share: where CIFAR-10 lies, facts of the machine, tables, files."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PACKAGES = (
    *("hybrid-zoo", "torch", "torchvision", "timm", "numpy", "pillow"),
    *("onnx", "onnxscript", "onnx-ir", "onnxruntime"),
)


def data_folder(given: Path | None) -> Path:
    """The folder of CIFAR-10's two parquet files: the one given, $ZOO_TEST_DATA's, or beside the checkout."""
    base = Path(os.environ.get("ZOO_TEST_DATA", ROOT.parent / "shared" / "data"))
    folder = given or base / "cifar10" / "plain_text"
    if not list(folder.glob("train*.parquet")):
        raise SystemExit(f"{folder}: no CIFAR-10 parquet files (train*.parquet); name their folder by --data")
    return folder


def facts() -> dict[str, Any]:
    """The machine, the versions and the commit behind the numbers."""
    commit = _git("describe", "--always", "--abbrev=12", "--exclude=*")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")  # records are no code
    shown = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown]),
        "commit": commit + ("-dirty" if changed else ""),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_before": [round(x, 2) for x in os.getloadavg()],
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def write(path: Path | None, record: Mapping[str, Any]) -> None:
    """Write a record as JSON; a record is replaced whole."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n")


def say(message: str) -> None:
    """One line of progress on stderr."""
    print(message, file=sys.stderr, flush=True)


def lines(titles: Sequence[str], rows: Sequence[Sequence[Any]], *, markdown: bool = False, left: int = 2) -> list[str]:
    """A table of text: the first `left` columns to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(titles))]
    padded = [
        [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        for row in cells
    ]
    if not markdown:
        return ["  ".join(row).rstrip() for row in padded]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:])]
