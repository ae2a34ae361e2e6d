"""The speedrun recipe over several seeds: accuracy, seconds, mean and spread; beside airbench94 where it can run.

    python benchmarks/speedrun.py --compile default --peer PATH/airbench94_muon.py --json results/speedrun.json
    python benchmarks/speedrun.py --device cpu --runs 3 --limit-train 5000 --limit-test 2000 --batch-size 500

Trains on all training images (`paper` protocol; the recipe keeps the last epoch, so that nothing is selected on
the test images). The clock is airbench94's: the training steps with the fit of the first layer, and one evaluation
over the recipe's views in the precision of the training; compiling and the evaluations between epochs are left out.
`whole` is the run with them, from its first step to its last. `top1` is measured in fp32, as every result is.

Seeds run one after the other in one process. The peer is a file, run on the same images; it needs a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import data_folder, facts, lines, say, write
from gpu import Failed, their_speedrun

from zoo.evaluate.one_pass import evaluate
from zoo.evaluate.views import views
from zoo.runs.images import eval_batch
from zoo.runs.record import write_record
from zoo.train.environment import environment
from zoo.train.loop import Trainer
from zoo.train.plan import resolve
from zoo.train.run_options import Request

KEYS = ("top1", "seconds", "top1_as_trained", "steps", "evaluation", "whole", "warm_up")


def ours(chosen: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run, timed as the peer times itself."""
    torch._dynamo.reset()  # every run has a module of its own, and torch keeps only a few compiled ones
    asked = {"limit_train": chosen.limit_train, "limit_test": chosen.limit_test, "epochs": chosen.epochs}
    request = Request(
        model="speedrun-94",
        dataset=f"parquet:{chosen.data}",
        protocol="paper",
        seed=seed,
        device=chosen.device,
        compile=chosen.compile,
        batch_size=chosen.batch_size,
        precision=chosen.precision,
        settings=tuple(chosen.set),
        **asked,
    )
    with tempfile.TemporaryDirectory(prefix="speedrun-") as name:
        plan = resolve(request)
        write_record(Path(name), plan.record)
        trainer = Trainer(plan, Path(name))
        source = plan.source(plan.test)
        result = trainer.fit()
        start = time.perf_counter()
        half = evaluated(trainer, source)
        took = time.perf_counter() - start
    train = result["train"]
    steps = train["images"] / train["images_per_second"]
    return {
        "seed": seed,
        "top1": result["test"]["top1"],
        "top1_as_trained": half,
        "seconds": steps + took,
        "steps": steps,
        "evaluation": took,
        "whole": train["seconds"],
        "warm_up": train["warm_up_seconds"],
        "precision": result["precision"],
        "compile": plan.hardware.compile,
    }


def evaluated(trainer: Trainer, source: Any) -> float:
    """Top-1 over the recipe's views in the precision of the training: the evaluation that is on the clock."""
    plan = trainer.plan
    metrics = evaluate(
        trainer.chosen(),
        source.batches(eval_batch(plan.record)),
        trainer.augment.prepare,
        autocast=plan.hardware.autocast,
        forward=views(trainer.predict, plan.recipe.tta, plan.recipe.tta_margin),
    )  # it reads its counts, and so has waited for the device
    return metrics.top1


def theirs(chosen: argparse.Namespace) -> dict[str, Any]:
    """The peer's rows, or why there are none."""
    if chosen.peer is None:
        return {"left_out": "no --peer PATH to airbench94_muon.py was given"}
    if not torch.cuda.is_available():
        return {"left_out": f"{chosen.peer.name} computes in half precision on a CUDA GPU, and there is none here"}
    if not chosen.peer.is_file():
        return {"left_out": f"{chosen.peer.name}: no such file"}
    chosen.airbench = chosen.peer
    try:
        return their_speedrun(chosen, chosen.seconds)
    except Failed as failure:
        return {"left_out": f"{chosen.peer.name} failed: {failure}"}


def spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation and median."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "deviation": deviation, "median": statistics.median(values)}


def parse() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=10, help="seeds 0, 1, ...")
    options.add_argument("--device", default="auto")
    options.add_argument("--compile", default="auto", choices=["auto", "off", "graph", "default", "max"])
    options.add_argument("--precision")
    options.add_argument("--batch-size", type=int)
    options.add_argument("--epochs", type=int)
    options.add_argument("--limit-train", type=int, metavar="N")
    options.add_argument("--limit-test", type=int, metavar="N")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `zoo train`")
    options.add_argument("--data", type=Path, help="folder of CIFAR-10's parquet files")
    options.add_argument("--peer", type=Path, help="airbench94_muon.py")
    options.add_argument("--seconds", type=float, default=1200.0, help="at most, for the peer")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    chosen.data = data_folder(chosen.data).resolve()
    return chosen


def main() -> None:
    """Run the seeds and the peer, and print both."""
    chosen = parse()
    record: dict[str, Any] = {"machine": facts(), "environment": environment(_device(chosen))}
    peer, rows = theirs(chosen), []
    record["peer"] = peer
    for seed in range(chosen.runs):
        rows.append(ours(chosen, seed))
        say(f"seed {seed}: top-1 {rows[-1]['top1']:.2%} in {rows[-1]['seconds']:.2f} s")
        summary = {key: spread([row[key] for row in rows]) for key in KEYS}
        write(chosen.json, record | {"runs": rows, "summary": summary})  # a call that is cut short keeps these
    cells = [
        [name, *(f"{summary[key]['mean']:.4f} ± {summary[key]['deviation']:.4f}" for key in KEYS[:2]), n]
        for name, n in (("speedrun-94", len(rows)),)
    ]
    if "means" in peer:
        both = [f"{m:.4f} ± {s:.4f}" for m, s in zip(peer["means"], peer["spreads"], strict=True)]
        cells.append(["airbench94_muon.py", *both, len(peer["top1"])])
    print("\n".join(lines(("what", "top-1", "seconds", "runs"), cells, left=1)))
    if "left_out" in peer:
        say(f"the peer is left out: {peer['left_out']}")


def _device(chosen: argparse.Namespace) -> torch.device:
    from zoo.models.device import pick_device

    return pick_device(chosen.device)


if __name__ == "__main__":
    main()
