"""Where the time of a training step goes: its operators by kind, and what each kind could at best give.

    python benchmarks/operators.py --json results/operators.json

The real trainer takes steps on CIFAR-10 (augmentation, forward and backward pass, guard, optimizer) with one thread,
once by the clock and once under torch's profiler, whose times of operators (without those that they call) are summed by
kind. Shares are of the profiled time. What no operator accounts for is Python, and what the profiler itself costs.

A kind could at best vanish; matrix work could at best run at the rate of a large matrix product of the same number
type, whose share is printed. `at best` is how many times as fast the step would be then, if nothing else changed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import data_folder, facts, lines, say, write

MODELS = ("resnet18", "speedrun-94", "mixer-s8-32", "vit-cifar")
SIZES = {"speedrun-94": 500}
"""Images of a batch, where 64 would be far from what the recipe has."""

KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "matrix work",
        ("convolution", "mkldnn_linear", "addmm", "::mm", "bmm", "matmul", "linear", "attention", "onednn"),
    ),
    ("optimizer", ("_foreach", "_fused", "lerp", "optimizer")),
    ("normalisation", ("batch_norm", "layer_norm", "group_norm", "native_norm", "var_mean")),
    ("pooling and resizing", ("pool", "upsample", "interpolate")),
    ("activation, loss, dropout", ("gelu", "relu", "silu", "softmax", "threshold", "dropout", "bernoulli", "nll_loss")),
    (
        "layout and copies",
        (
            "copy_",
            "contiguous",
            "clone",
            "cat",
            "_to_copy",
            "reorder",
            "to_dense",
            "to_mkldnn",
            "index",
            "gather",
            "pad",
            "flip",
            "roll",
            "fill_",
            "zero_",
        ),
    ),
)
OTHER, PYTHON = "other element-wise work", "outside operators"


def kind_of(name: str) -> str:
    """The kind of an operator, by its name in torch."""
    return next((kind for kind, parts in KINDS if any(part in name for part in parts)), OTHER)


def measure(name: str, chosen: argparse.Namespace, spec: str) -> dict[str, Any]:
    """One model: milliseconds of its step, and of each kind of operator in it."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from zoo.base.heap import keep_heap
    from zoo.studies.bench.model import described
    from zoo.studies.bench.rounds import Job, make_plan
    from zoo.train.loop import Trainer

    keep_heap()
    torch.set_num_threads(1)
    size = SIZES.get(name, 64)
    count = size * (chosen.steps + 2)
    plan = make_plan(Job(model=name, dataset=spec, batch_size=size, device="cpu", precision=chosen.precision), count)
    with tempfile.TemporaryDirectory(prefix="operators-") as folder:
        trainer = Trainer(plan, Path(folder))
        rows = torch.arange(count).view(-1, size)
        delivered = zip(rows, trainer.data.steps(rows), strict=True)
        batches = ((numbers, images, labels) for numbers, (_, images, labels) in delivered)
        for _ in range(2):
            trainer._step(next(batches))
        ready = list(batches)
        plain = []
        for batch in ready:
            start = time.perf_counter()
            trainer._step(batch)
            plain.append((time.perf_counter() - start) * 1e3)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            start = time.perf_counter()
            for batch in ready:
                trainer._step(batch)
            under = (time.perf_counter() - start) * 1e3 / len(ready)
    kinds = dict.fromkeys((*(kind for kind, _ in KINDS), OTHER), 0.0)
    single: dict[str, float] = {}
    for event in profiled.key_averages():
        if event.key.startswith(("aten::", "mkldnn", "onednn", "zoo::")):
            spent = event.self_cpu_time_total / 1e3 / len(ready)
            kinds[kind_of(event.key)] += spent
            single[event.key] = spent
    kinds[PYTHON] = max(0.0, under - sum(kinds.values()))
    row = described(Job(model=name, dataset=spec, batch_size=size, device="cpu", precision=chosen.precision), plan)
    row.pop("environment", None)
    return row | {
        "milliseconds": statistics.median(plain),
        "milliseconds_profiled": under,
        "kinds": kinds,
        "largest": dict(sorted(single.items(), key=lambda item: -item[1])[:12]),
    }


def rate_of_products(precision: str) -> float:
    """FLOP/s of one large matrix product on one thread: the best of several."""
    import torch

    torch.set_num_threads(1)
    kind = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    a, b = torch.randn(2048, 2048).to(kind), torch.randn(2048, 2048).to(kind)
    best = 0.0
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start))
    return best


def cells(row: dict[str, Any]) -> list[str]:
    """One model's line: the share of each kind, and in brackets what it could give."""
    under, kinds = row["milliseconds_profiled"], row["kinds"]
    ideal = row["flops_step"] * row["batch_size"] / row["matrix_rate"] * 1e3
    row["matrix_work_at_best_ms"] = ideal
    shares = {kind: spent / under for kind, spent in kinds.items()}
    best = {kind: 1 / (1 - share) for kind, share in shares.items()}
    lost = max(0.0, kinds["matrix work"] - ideal * under / row["milliseconds"]) / under
    best["matrix work"] = 1 / (1 - lost)
    row["share"], row["at_best"] = shares, best
    told = [f"{shares[kind]:.0%} ({best[kind]:.2f})" for kind in kinds]
    return [row["model"], f"{row['milliseconds']:,.0f}", f"{ideal / row['milliseconds']:.2f}", *told]


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--models", nargs="+", default=MODELS)
    options.add_argument("--steps", type=int, default=8, help="measured steps of each model")
    options.add_argument("--precision", default="bf16", choices=("bf16", "fp32"))
    options.add_argument("--data", type=Path, help="folder of CIFAR-10's parquet files")
    options.add_argument("--markdown", action="store_true")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    found, rows = facts(), []
    for name in chosen.models:
        say(f"{name}: {chosen.steps} steps, twice")
        rows.append(measure(name, chosen, f"parquet:{data_folder(chosen.data)}"))
        rows[-1]["matrix_rate"] = rate_of_products(chosen.precision)
    table = [cells(row) for row in rows]
    titles = ("model", "ms a step", "share of the matrix rate", *(f"{kind} (at best)" for kind in rows[0]["kinds"]))
    print("\n".join(lines(titles, table, markdown=chosen.markdown, left=1)))
    sys.stdout.flush()
    what = "milliseconds of a training step by kind of operator, one thread"
    write(chosen.json, found | {"what": what, "precision": chosen.precision, "rows": rows})


if __name__ == "__main__":
    main()
