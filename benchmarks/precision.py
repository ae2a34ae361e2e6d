"""What a number type costs in accuracy: the same runs in fp32 and in bf16, over seeds.

    python benchmarks/precision.py [--seeds 3] [--cifar10 SPEC] [--json results/precision.json]

Two settings: hybrid-alt-1 on digits by its own recipe, and resnet18 on a subset of CIFAR-10 (4,000 training
images, 4 epochs). bf16 passes where its mean is at most one standard deviation of the fp32 runs below theirs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETTINGS = {
    "hybrid-alt-1 on digits": ("hybrid-alt-1", "--dataset", "digits"),
    "resnet18 on a subset of CIFAR-10": (
        *("resnet18", "--dataset", "CIFAR10", "--limit-train", "4000", "--limit-test", "2000"),
        *("--epochs", "4", "--set", "schedule=cosine"),
    ),
}


def top1(words: tuple[str, ...], precision: str, seed: int) -> dict[str, Any]:
    """One training as a process of its own; its result.json."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        command = [sys.executable, "-m", "zoo", "train", *words, "--precision", precision]
        command += ["--seed", str(seed), "--output", str(output), "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        result: dict[str, Any] = json.loads((output / "result.json").read_text())
    return result


def compare(words: tuple[str, ...], seeds: int) -> dict[str, Any]:
    """Both number types over the seeds, and whether bf16 is within one deviation of fp32."""
    row: dict[str, Any] = {"command": " ".join(("zoo train", *words))}
    for precision in ("fp32", "bf16"):
        results = [top1(words, precision, seed) for seed in range(seeds)]
        found = [result["test"]["top1"] for result in results]
        row[precision] = {"top1": found, "mean": statistics.mean(found), "spread": statistics.stdev(found)}
        row["environment"] = results[0]["environment"]
    row["within_one_deviation"] = row["bf16"]["mean"] >= row["fp32"]["mean"] - row["fp32"]["spread"]
    return row


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--cifar10", default="cifar10", metavar="SPEC", help="the dataset, as for zoo train")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    rows = {}
    for name, words in SETTINGS.items():
        spec = tuple(chosen.cifar10 if word == "CIFAR10" else word for word in words)
        rows[name] = compare(spec, chosen.seeds)
        print(json.dumps({name: rows[name]}, indent=2), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
