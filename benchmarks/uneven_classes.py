"""What the keys for uneven classes give on digits of which four are rare: the example of docs/uneven-classes.md.

python benchmarks/uneven_classes.py [--seeds 3] [--json results/uneven_classes.json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import facts, lines, say, write
from sklearn.datasets import load_digits

import zoo

RARE, FEW, TEST = (3, 5, 8, 9), 6, 600
RECIPES: dict[str, dict[str, Any]] = {
    "none of the keys": {},
    "sampler sqrt": {"sampler": "sqrt"},
    "sampler balanced": {"sampler": "balanced"},
    "class_weights balanced": {"class_weights": "balanced"},
    "loss focal": {"loss": "focal"},
    "loss focal, class_weights balanced": {"loss": "focal", "class_weights": "balanced"},
}
FIGURES = ("top1", "balanced_accuracy", "macro_f1")


def uneven_digits() -> Any:
    """Training and test images, with six training images each of the rare digits."""
    digits = load_digits()
    images, labels = (digits.images * 255 / 16).astype(np.uint8), digits.target
    rows = np.random.default_rng(0).permutation(len(labels))
    test, rest = rows[:TEST], rows[TEST:]
    few = [rest[labels[rest] == digit][:FEW] for digit in RARE]
    train = np.concatenate([rest[~np.isin(labels[rest], RARE)], *few])
    return (images[train], labels[train]), (images[test], labels[test])


def figures(settings: dict[str, Any], data: Any, seed: int) -> dict[str, float]:
    """The test figures of one run."""
    with tempfile.TemporaryDirectory() as folder:
        run = zoo.train(
            "cnn-baseline-bn",
            dataset=data,
            epochs=15,
            seed=seed,
            device="cpu",
            precision="fp32",
            settings={**settings, "select": "balanced-top1"},
            output=Path(folder) / "run",
        )
        assert run.result is not None
        return {name: run.result["test"][name] for name in FIGURES}


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    record = {**facts(), "rows": {}}
    rows, data = [], uneven_digits()
    for name, settings in RECIPES.items():
        runs = [figures(settings, data, seed) for seed in range(chosen.seeds)]
        told = {}
        for figure in FIGURES:
            values = [run[figure] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            told[figure] = {"values": values, "mean": statistics.mean(values), "spread": spread}
        record["rows"][name] = {"settings": settings, **told}
        rows.append([name, *(f"{told[f]['mean']:.1%} ± {told[f]['spread']:.1%}" for f in FIGURES)])
        say(f"{name}: done")
    print("\n".join(lines(["recipe", *FIGURES], rows, left=1)))
    write(chosen.json, record)


if __name__ == "__main__":
    main()
