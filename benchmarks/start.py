"""From the command to the first step of a training, and to a prediction, beside `import torch` alone.

They run by turns in fresh processes, after an unmeasured run of each: images are decoded, the model was tried
out, and the bytecode of everything lies in a folder of the benchmark's own, as in an installation. The process of a
training ends itself at its first step, in a hook that torch calls after each step of an optimizer; up to there it is
`zoo train`. It is compared with an `import torch` that ends itself too, and a prediction with one that ends as usual,
which takes time. CPU time (user + system of the process) is steadier than wall time on a busy machine.

    python benchmarks/start.py [--runs 9] [--model cnn-baseline] [--dataset digits] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import ROOT, facts, lines, say, write

GOAL = 1.3
TORCH, TORCH_ALONE, TRAIN, PREDICT = "import torch", "import torch, no exit", "zoo train, first step", "zoo predict"
BASES = ((TORCH, TORCH), (TORCH_ALONE, TORCH_ALONE), (TRAIN, TORCH_ALONE), (PREDICT, TORCH))
"""Each command, and what it is compared with."""

IMPORT, IMPORT_ALONE = "import torch", "import os, torch; os._exit(0)"
FIRST_STEP = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(0))
from zoo.cli import main
main(sys.argv[1:])
sys.exit("no step was made")
"""
ZOO = "import sys; from zoo.cli import main; main(sys.argv[1:])"
Took = dict[str, float]
"""Seconds by kind: "cpu" and "wall"."""


def run_once(words: Sequence[str], environment: dict[str, str]) -> Took:
    """Run Python in a fresh process; its CPU seconds are those of the process and of what it waited for."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(
            f"exit code {child.returncode}: {' '.join(words[1:])}\n{said.decode(errors='replace')[-2000:]}"
        )
    return {"cpu": round(usage.ru_utime + usage.ru_stime, 3), "wall": round(wall, 3)}


def environment_of(folder: str) -> dict[str, str]:
    """Caches of the benchmark's own in `folder`; nothing of the user's is read or written."""
    own = {f"ZOO_{name}_DIR": f"{folder}/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
    own |= {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode", "MPLCONFIGDIR": f"{folder}/matplotlib"}
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | own


def photo(folder: str) -> str:
    """A photo to classify: colours that change from corner to corner."""
    from PIL import Image

    path = f"{folder}/photo.jpg"
    Image.merge("RGB", [Image.linear_gradient("L").rotate(turn) for turn in (0, 90, 180)]).save(path)
    return path


def measure(
    commands: dict[str, list[str]], runs: int, environment: dict[str, str]
) -> dict[str, list[dict[str, float]]]:
    """Run each command `runs` times, by turns, after an unmeasured run."""
    found: dict[str, list[Took]] = {name: [] for name in commands}
    for turn in range(-1, runs):
        order = list(commands.items())
        for name, words in order if turn % 2 else reversed(order):
            took = run_once([word.replace("TURN", str(turn + 1)) for word in words], environment)
            if turn >= 0:
                found[name].append(took)
        say(f"round {turn + 1} of {runs}" if turn >= 0 else "warming up")
    return found


def summary(found: dict[str, list[Took]]) -> list[dict[str, Any]]:
    """Of each command the medians, and the median of the ratios to its `import torch` in the same round."""
    rows = []
    for name, beside in BASES:
        runs = found[name]
        row: dict[str, Any] = {"command": name, "beside": beside}
        for kind in ("cpu", "wall"):
            row[f"{kind}_s"] = round(statistics.median(run[kind] for run in runs), 2)
            ratios = [run[kind] / base[kind] for run, base in zip(runs, found[beside], strict=True)]
            row[f"{kind}_ratio"] = round(statistics.median(ratios), 3)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print one table, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--model", default="cnn-baseline")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--weights", default="speedrun-94@cifar10", help="the run that predicts")
    parser.add_argument("--note", default="", help="what else ran, for the record")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    machine = facts()
    with tempfile.TemporaryDirectory() as folder:
        train = ["train", options.model, "--dataset", options.dataset, "--max-steps", "1", "--device", "cpu"]
        commands = {
            TORCH: [IMPORT],
            TORCH_ALONE: [IMPORT_ALONE],
            TRAIN: [FIRST_STEP, *train, "--output", f"{folder}/run-TURN"],
            PREDICT: [ZOO, "predict", options.weights, photo(folder)],
        }
        os.chdir(ROOT)
        environment = environment_of(folder)
        run_once([ZOO, *train, "--output", f"{folder}/first"], environment)
        found = measure(commands, options.runs, environment)
    rows = summary(found)
    table = [
        [row["command"], *(row[f"{kind}_{of}"] for kind in ("cpu", "wall") for of in ("s", "ratio"))] for row in rows
    ]
    print("\n".join(lines(("command", "CPU s", "x torch", "wall s", "x torch"), table, left=1)))
    say(f"goal: at most {GOAL} x import torch")
    setup = {"model": options.model, "dataset": options.dataset, "weights": options.weights}
    machine |= {"note": options.note} if options.note else {}
    write(options.json, {"goal": GOAL, "machine": machine, "setup": setup, "rows": rows, "runs": found})


if __name__ == "__main__":
    main()
