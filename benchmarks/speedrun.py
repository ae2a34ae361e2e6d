"""The speedrun recipe over several seeds beside airbench94 and others of its kind: accuracy, seconds, mean and spread.

    python benchmarks/speedrun.py --compile default --peer PATH/airbench94_muon.py --json results/speedrun.json
    python benchmarks/speedrun.py --recipe speedrun-cpu --device cpu --runs 5 --json results/speedrun_cpu.json
    python benchmarks/speedrun.py --smoke               # does the script run? on a CPU, with the embedded digits

Trains on all training images (`paper` protocol; the recipe keeps the last epoch, so that nothing is selected on
the test images). The clock is airbench94's: the training steps with the fit of the first layer, and one evaluation
over the recipe's views in the precision of the training; compiling and the evaluations between epochs are left out.
`whole` is the run with them, from its first step to its last. `top1` is measured in fp32, as every result is.

Each --peer is a file, run on the same images; it needs a GPU. Ours and the peers run in turns: some seeds of ours one
after the other in one process, then as many runs of each peer in a process of its own, and so on. `--smoke` runs
whatever is given as a peer on the CPU too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from common import data_folder, facts, lines, say, write
from gpu import Failed, their_speedrun

from zoo.base.heap import keep_heap
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
    keep_heap()  # as `zoo train` does
    torch._dynamo.reset()  # every run has a module of its own, and torch keeps only a few compiled ones
    asked = {"limit_train": chosen.limit_train, "limit_test": chosen.limit_test, "epochs": chosen.epochs}
    request = Request(
        model="speedrun-94",
        recipe=chosen.recipe,
        dataset=chosen.spec,
        protocol="paper",
        seed=seed,
        device=chosen.device,
        compile=chosen.compile,
        batch_size=chosen.batch_size,
        precision=chosen.precision,
        settings=tuple(chosen.set),
        image_size=32,
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


def theirs(peer: Path, chosen: argparse.Namespace, runs: int) -> dict[str, Any]:
    """The peer's runs, or why there are none."""
    if not (torch.cuda.is_available() or chosen.smoke):
        return {"left_out": "it computes in half precision on a CUDA GPU, and there is none here"}
    if not peer.is_file():
        return {"left_out": "no such file"}
    try:
        return their_speedrun(peer, chosen.spec, runs, chosen.seconds)
    except Failed as failure:
        return {"left_out": f"it failed: {failure}"}


def turns(runs: int, count: int) -> list[range]:
    """The seeds of each turn: 0 to runs - 1 in `count` parts of about one length, none of them empty."""
    ends = [round(runs * i / count) for i in range(count + 1)]
    return [range(start, end) for start, end in pairwise(ends) if end > start]


def spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation and median."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "deviation": deviation, "median": statistics.median(values)}


def parse() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=10, help="seeds 0, 1, ...")
    options.add_argument("--recipe", help="another than the model's own: speedrun-cpu")
    options.add_argument("--device", default="auto")
    options.add_argument("--compile", default="auto", choices=["auto", "off", "graph", "default", "max"])
    options.add_argument("--precision")
    options.add_argument("--batch-size", type=int)
    options.add_argument("--epochs", type=int)
    options.add_argument("--limit-train", type=int, metavar="N")
    options.add_argument("--limit-test", type=int, metavar="N")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `zoo train`")
    options.add_argument("--data", type=Path, help="folder of CIFAR-10's parquet files")
    options.add_argument("--peer", type=Path, action="append", default=[], help="airbench94_muon.py; may be repeated")
    options.add_argument("--turns", type=int, default=2, help="ours and the peers by turns, so many times")
    options.add_argument("--seconds", type=float, default=1200.0, help="at most, for a peer in one turn")
    options.add_argument("--smoke", action="store_true", help="tiny, on the CPU: does the script run?")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    if chosen.smoke:
        tiny = {"device": "cpu", "runs": 2, "compile": "off", "limit_train": 80, "limit_test": 40, "epochs": 1}
        vars(chosen).update(tiny, batch_size=40, seconds=60.0)
    chosen.spec = "digits" if chosen.smoke else f"parquet:{data_folder(chosen.data).resolve()}"
    return chosen


def main() -> None:
    """Run the seeds and the peers by turns, and print all of them."""
    chosen = parse()
    record: dict[str, Any] = {"machine": facts(), "environment": environment(_device(chosen))}
    rows: list[dict[str, Any]] = []
    peers: dict[str, dict[str, Any]] = {peer.name: {"top1": [], "seconds": []} for peer in chosen.peer}
    for number, seeds in enumerate(turns(chosen.runs, chosen.turns)):
        for seed in seeds:
            rows.append(ours(chosen, seed) | {"turn": number})
            say(f"seed {seed}: top-1 {rows[-1]['top1']:.2%} in {rows[-1]['seconds']:.2f} s")
            summary = {key: spread([row[key] for row in rows]) for key in KEYS}
            write(chosen.json, record | {"runs": rows, "summary": summary, "peers": peers})  # a call cut short keeps it
        for peer in chosen.peer:
            found, kept = theirs(peer, chosen, len(seeds)), peers[peer.name]
            for key in ("top1", "seconds"):
                kept[key] += found.get(key, [])
            kept |= {"left_out": found["left_out"]} if "left_out" in found else {}
            say(f"{peer.name}: {found.get('shown') or 'left out: ' + found['left_out']}")
        for kept in peers.values():
            kept |= {"summary": {key: spread(kept[key]) for key in KEYS[:2]}} if kept["top1"] else {}
        write(chosen.json, record | {"runs": rows, "summary": summary, "peers": peers})
    found = {"speedrun-94": (summary, len(rows))}
    found |= {name: (kept["summary"], len(kept["top1"])) for name, kept in peers.items() if "summary" in kept}
    cells = [
        [name, *(f"{one[key]['mean']:.4f} ± {one[key]['deviation']:.4f}" for key in KEYS[:2]), count]
        for name, (one, count) in found.items()
    ]
    print("\n".join(lines(("what", "top-1", "seconds", "runs"), cells, left=1)))
    means = {name: one["seconds"]["mean"] for name, (one, _) in found.items()}
    if len(means) > 1:
        fastest = min((name for name in means if name != "speedrun-94"), key=lambda name: means[name])
        say(f"the fastest of the others, {fastest}, takes {means[fastest] / means['speedrun-94']:.3f} of our seconds")


def _device(chosen: argparse.Namespace) -> torch.device:
    from zoo.models.device import pick_device

    return pick_device(chosen.device)


if __name__ == "__main__":
    main()
