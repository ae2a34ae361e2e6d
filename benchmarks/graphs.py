"""What CUDA graphs save: the bare step and the training loop of a model, kernel by kernel and recorded.

    python benchmarks/graphs.py --data FOLDER --json results/graphs.json      # needs a CUDA GPU

Each line is a process's own loop beside its own bare step (see `zoo bench`), by the model's source recipe, on
64 batches of CIFAR-10. The modes follow one another in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from common import data_folder, facts, lines, say, write

from zoo.studies.bench.gauge import Effort, timed
from zoo.studies.bench.rounds import BareStep, Job, loop_share, make_plan
from zoo.train.environment import environment
from zoo.train.loop import Trainer


def measured(job: Job) -> dict[str, Any]:
    """The bare step alone, a median of three times 20; then the loop's rounds, with bare ones between."""
    plan = make_plan(job, 64 * job.batch_size)
    with tempfile.TemporaryDirectory(prefix="graphs-") as folder:
        bare = BareStep(Trainer(plan, Path(folder)), job.batch_size)
        took = statistics.median(timed(bare, bare.device, Effort(repeats=3, steps=20)))
        del bare
    share = loop_share(job)
    return {
        "model": job.model,
        "mode": plan.hardware.compile,
        "batch": job.batch_size,
        "bare_ms": 1e3 * took,
        "loop_img_s": share["images_per_second"]["median"],
        "share": share["share"]["median"],
        "precision": plan.hardware.precision,
        "channels_last": plan.hardware.channels_last,
        "environment": environment(plan.hardware.device),
    }


def main() -> None:
    """Measure every combination, and print one table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--models", nargs="+", default=["hybrid-alt-1", "resnet18", "vit-d2h4"])
    options.add_argument("--modes", nargs="+", default=["off", "graph"])
    options.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 512])
    options.add_argument("--seconds", type=float, default=0.6)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--device", default="cuda")
    options.add_argument("--data", type=Path, help="folder of CIFAR-10's parquet files")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    rows: list[dict[str, Any]] = []
    for model in chosen.models:
        for batch in chosen.batch_sizes:
            for mode in chosen.modes:
                job = Job(
                    model=model,
                    dataset=f"parquet:{data_folder(chosen.data)}",
                    batch_size=batch,
                    compile=mode,
                    device=chosen.device,
                    precision="auto",
                    seconds=chosen.seconds,
                    repeats=chosen.repeats,
                )
                rows.append(measured(job))
                say(f"{model}, {batch}, {mode}: {rows[-1]['loop_img_s']:,.0f} img/s")
                write(chosen.json, {"machine": facts(), "rows": rows})
    keys = ("model", "batch", "mode", "bare_ms", "loop_img_s", "share")
    cells = [[f"{row[k]:,.3f}" if isinstance(row[k], float) else row[k] for k in keys] for row in rows]
    print("\n".join(lines(keys, cells, left=1)))


if __name__ == "__main__":
    main()
