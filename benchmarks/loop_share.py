"""What the training loop loses: end-to-end images per second over those of the bare step.

    python benchmarks/loop_share.py --json results/loop_share.json

In one process, rounds of the real Trainer's loop and rounds of its bare step run by turns, model after model, on
the same module, optimizer, precision, layout and compiler, so that a noisy machine is as noisy for both. A
bare step is forward, loss, backward, optimizer and zero_grad on one fixed batch that lies on the device; what
the loop adds is the order of the images, the gather, the recipe's augmentation, the schedule, the guard, the
sums and the display's ticks. Each round of the loop is divided by the mean of the bare rounds before and after
it. A run's rounds are shorter than its epochs would be: --seconds of them, over the first images of CIFAR-10.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from common import data_folder, facts, lines, say, write

MODELS = ("hybrid-alt-1", "resnet18", "vit-d2h4", "mixer-s8-32")
GOAL = 0.95
GOAL_GPU = 0.90


def measure(name: str, chosen: argparse.Namespace, spec: str) -> dict[str, Any]:
    """The share of one model, and what it was measured on."""
    from zoo.base.heap import keep_heap
    from zoo.studies.bench.model import described
    from zoo.studies.bench.rounds import Job, loop_share, make_plan

    keep_heap()
    job = Job(
        model=name,
        dataset=spec,
        batch_size=chosen.batch_size,
        device=chosen.device,
        precision=chosen.precision,
        compile=chosen.compile,
        seconds=chosen.seconds * chosen.rounds,
        repeats=chosen.rounds,
    )
    row = described(job, make_plan(job, job.batch_size))
    return row | loop_share(job)


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table."""
    share = row["share"]
    return [
        row["model"],
        f"{row['precision']} {row['layout']}, compile {row['compile']}",
        f"{row['images_per_second']['median']:,.1f}",
        f"{row['bare_images_per_second']['median']:,.1f}",
        f"{share['median']:.3f}",
        f"{share['q1']:.3f} to {share['q3']:.3f}",
    ]


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--models", nargs="+", default=MODELS)
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--rounds", type=int, default=7, help="measured rounds of each kind")
    options.add_argument("--seconds", type=float, default=8.0, help="of one round")
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", default="auto", help="default: what suits the device, not the recipe's")
    options.add_argument("--compile", default="auto")
    options.add_argument("--data", type=Path, help="folder of CIFAR-10's parquet files")
    options.add_argument("--dataset", metavar="SPEC", help="another dataset, as for `zoo train`")
    options.add_argument("--markdown", action="store_true")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    spec = chosen.dataset or f"parquet:{data_folder(chosen.data)}"
    found = facts()
    rows = []
    for name in chosen.models:
        say(f"{name}: {chosen.rounds} rounds of {chosen.seconds:g} s of each kind")
        rows.append(measure(name, chosen, spec))
    titles = ("model", "how", "end to end img/s", "bare step img/s", "share", "quartiles")
    print("\n".join(lines(titles, [cells(row) for row in rows], markdown=chosen.markdown)))
    goal = GOAL if rows[0]["device"] == "cpu" else GOAL_GPU
    reached = {row["model"]: row["share"]["median"] >= goal for row in rows}
    print(f"goal: at least {goal}; reached: {sum(reached.values())} of {len(rows)}", file=sys.stderr)
    environment = rows[0].pop("environment")
    for row in rows[1:]:
        del row["environment"]
    after = {"load_after": [round(x, 2) for x in os.getloadavg()]}
    write(
        chosen.json,
        {
            "what": "end-to-end images per second of the trainer over those of its bare step",
            "dataset": chosen.dataset or "CIFAR-10 (lossless)",
            "batch_size": chosen.batch_size,
            "goal": goal,
            "reached": reached,
            "machine": found | after,
            "environment": environment,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
