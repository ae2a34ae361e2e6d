"""What checkpoints cost: the time of one, beside the time between two.

    python benchmarks/checkpoint_cost.py [--json results/checkpoint_cost.json]

Trains nothing to the end: takes a few steps, so that the optimizer has its state, then writes checkpoints and
reports their median time, size, and share of the default interval of 60 seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from zoo.train.environment import environment
from zoo.train.loop import Saving, Trainer
from zoo.train.plan import resolve
from zoo.train.run_options import Request

MODELS = ("cnn-baseline", "hybrid-alt-1", "vit-d2h4", "resnet18")


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Median seconds and megabytes of a checkpoint of a model at 32x32 (digits, resized)."""
    plan = resolve(Request(model=name, dataset="digits", image_size=32, limit_train=200, limit_test=20))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(plan, Path(folder))
        trainer.started = time.perf_counter()
        for _ in range(2):
            rows = torch.arange(4)
            trainer._step((rows, *trainer.data.take(rows)))
        times = []
        for _ in range(repeats):
            trainer.at.total += 1
            start = time.perf_counter()
            trainer.save()
            times.append(time.perf_counter() - start)
        size = max(p.stat().st_size for p in Path(folder).rglob("0*.safetensors"))
    median = statistics.median(times)
    return {
        "model": name,
        "seconds": round(median, 4),
        "spread": [round(min(times), 4), round(max(times), 4)],
        "megabytes": round(size / 1e6, 1),
        "share_at_default": round(median / Saving().seconds, 5),
    }


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    rows = [measure(name, chosen.repeats) for name in MODELS]
    print(f"{'model':14} {'MB':>7} {'seconds':>8} {'share of 60 s':>14}")
    for row in rows:
        print(f"{row['model']:14} {row['megabytes']:7.1f} {row['seconds']:8.3f} {row['share_at_default']:14.2%}")
    if chosen.json:
        record = {"command": " ".join(["python", *sys.argv]), "rows": rows}
        record["environment"] = environment(torch.device("cpu"))
        chosen.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
