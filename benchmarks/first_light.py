"""The README's training, three seeds: top-1, seconds of training, images per second.

python benchmarks/first_light.py [--seeds 3] [--json results/first_light.json]
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

COMMAND = ("train", "hybrid-alt-1", "--dataset", "digits")


def run(seed: int, folder: Path) -> dict[str, Any]:
    """One training as a process of its own; its result.json."""
    output = folder / str(seed)
    words = [sys.executable, "-m", "zoo", *COMMAND, "--seed", str(seed), "--output", str(output), "--quiet"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads((output / "result.json").read_text())
    return result


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [run(seed, Path(folder)) for seed in range(chosen.seeds)]
    top1 = [r["test"]["top1"] for r in results]
    seconds = [r["train"]["seconds"] for r in results]
    record = {
        "command": " ".join(["zoo", *COMMAND, "--seed", "N"]),
        "protocol": results[0]["protocol"],
        "recipe": results[0]["recipe"],
        "fingerprint": results[0]["fingerprint"],
        "seeds": list(range(chosen.seeds)),
        "top1": top1,
        "top1_mean": statistics.mean(top1),
        "top1_spread": statistics.stdev(top1) if len(top1) > 1 else None,
        "seconds": seconds,
        "seconds_median": statistics.median(seconds),
        "images_per_second_median": statistics.median(r["train"]["images_per_second"] for r in results),
        "precision": results[0]["precision"],
        "environment": results[0]["environment"],
    }
    print(json.dumps(record, indent=2))
    if chosen.json:
        chosen.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
