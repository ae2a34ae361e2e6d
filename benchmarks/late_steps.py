"""Images per second late in a training, beside its beginning: our trainer and a plain loop of torch.

    python benchmarks/late_steps.py [--model resnet18] [--rounds 5] [--json results/late_steps.json]
    python benchmarks/late_steps.py --smoke              # does the script run?

Weights that get no gradient, in a convolution over a map smaller than its kernel or behind a unit that is never
active, decay until they and Adam's averages of them are denormal numbers. `late` is such a state, made at once: what
had no gradient in a first step is set to 1e-40. By turns, one thread in fp32, the mixture models' recipe (Adam with
weight decay, batches of 64 at 32x32): our trainer's bare step, and torchvision's module with torch's fused Adam. The
share is that of the late rate in the first one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torchvision
from common import data_folder, facts, lines, say, write
from torch import nn

from zoo.base.heap import keep_heap
from zoo.models.denormals import denormals_as_zeros
from zoo.studies.bench.rounds import BareStep, Job, make_plan
from zoo.train.loop import Trainer

BATCH = 64
Step = Callable[[], object]


def ours(model: str, folder: Path, spec: str) -> tuple[Step, torch.optim.Optimizer]:
    """The trainer's bare step, and its optimizer."""
    job = Job(
        model=model, dataset=spec, batch_size=BATCH, image_size=32, device="cpu", precision="fp32", recipe="source"
    )
    step = BareStep(Trainer(make_plan(job, BATCH), folder), BATCH)
    return step, step.trainer.optimizer


def plain(model: str) -> tuple[Step, torch.optim.Optimizer]:
    """A step as a script has it."""
    torch.manual_seed(0)
    module = torchvision.models.get_model(model, num_classes=10).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    images, labels = torch.rand(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images), labels).backward()
        optimizer.step()

    return step, optimizer


def grow_old(step: Step, optimizer: torch.optim.Optimizer) -> int:
    """Make what has no gradient in a step denormal, with the averages of it; returns how many numbers of weights."""
    gradients: dict[nn.Parameter, torch.Tensor] = {}
    weights = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    kept = [p.register_post_accumulate_grad_hook(lambda p: gradients.__setitem__(p, p.grad == 0)) for p in weights]
    step()
    for hook in kept:
        hook.remove()
    with torch.no_grad():
        for weight, without in gradients.items():
            weight[without] = 1e-40
            optimizer.state[weight]["exp_avg"][without] = 1e-40
            optimizer.state[weight]["exp_avg_sq"][without] = 0.0
    return sum(int(without.sum()) for without in gradients.values())


def rate(step: Step, steps: int) -> float:
    """Images per second."""
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * BATCH / (time.perf_counter() - start)


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="resnet18", help="a name of both the catalogue and torchvision")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--steps", type=int, default=16, help="steps of a round")
    options.add_argument("--data", type=Path, help="folder of CIFAR-10's parquet files")
    options.add_argument("--smoke", action="store_true", help="one round of a step on digits")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.rounds = chosen.steps = 1
    keep_heap()
    torch.set_num_threads(1)
    spec = "digits" if chosen.smoke else f"parquet:{data_folder(chosen.data)}"
    with tempfile.TemporaryDirectory(prefix="late-") as folder:
        sides = {"ours": ours(chosen.model, Path(folder), spec), "plain loop": plain(chosen.model)}
        found: dict[str, dict[str, list[float]]] = {name: {"first": [], "late": []} for name in sides}
        numbers = dict.fromkeys(sides, 0)
        for when in ("first", "late"):
            for _ in range(chosen.rounds):
                for name, (step, optimizer) in sides.items():
                    with denormals_as_zeros(torch.device("cpu")) if name == "ours" else nullcontext():
                        if when == "late" and not numbers[name]:
                            numbers[name] = grow_old(step, optimizer)
                            say(f"{name}: {numbers[name]:,} numbers without a gradient")
                        found[name][when].append(rate(step, chosen.steps))
    rows: list[dict[str, Any]] = []
    for name, rates in found.items():
        first, late = (statistics.median(rates[when]) for when in ("first", "late"))
        rows.append({"side": name, "numbers": numbers[name], "first": first, "late": late, "rounds": rates})
    write(chosen.json, facts() | {"model": chosen.model, "threads": 1, "precision": "fp32", "rows": rows})
    cells = [[r["side"], f"{r['first']:.0f}", f"{r['late']:.0f}", f"{r['late'] / r['first']:.2f}"] for r in rows]
    print("\n".join(lines(("", "first, images/s", "late", "share"), cells, left=1)))


if __name__ == "__main__":
    main()
