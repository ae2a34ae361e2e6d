"""All that ten minutes on a GPU should show, in one call, with one table last.

    python benchmarks/gpu.py --data FOLDER --sections tests throughput --json gpu.json
    python benchmarks/gpu.py --data FOLDER --sections timm airbench --timm-train PATH --airbench PATH
    python benchmarks/gpu.py --smoke                # the whole script on a CPU, at tiny sizes

Sections, worked in the order given: `tests` (pytest -m gpu), `throughput` (every model of the papers' CIFAR-10
and Perceiver tables: training images per second beside the bare step's), `timm` (the same training by timm's
train.py), `airbench` (airbench94_muon.py and our speedrun recipe: accuracy and seconds over several runs),
`papers` (the papers' rows: 50 epochs, `paper` protocol) and `best` (our recipes: `clean` protocol, three
seeds). Each piece is a process of its own; one that fails is a row and the rest goes on. A piece is not begun
where less time is left than the longest one of its section took. The record is written after each piece, so
that a call that is cut short keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import ROOT, data_folder, facts, lines, say, write

SECTIONS = ("tests", "throughput", "timm", "airbench", "papers", "best")
CIFAR = ("hybrid-alt-1", "hybrid-alt-2", "hybrid-joint-1", "hybrid-joint-2", "resnet18", "vit-d2h4", "mixer-s8-32")
PERCEIVERS = (
    *("perceiver", "perceiver-large", "hybrid-alt-perceiver-1", "hybrid-alt-perceiver-2"),
    *("hybrid-joint-perceiver-1", "hybrid-joint-perceiver-2"),
)
SPEEDRUN = ("speedrun-94", "speedrun")
TRAIN_IMAGES = 50_000
Piece = tuple[str, Callable[[float], dict[str, Any]]]
"""What it is called, and what does it in at most so many seconds."""


class Failed(Exception):
    """A piece did not come to its end; says why in one line."""


def start(words: list[str], seconds: float, cwd: Path | str = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        Failed: it took longer, or ended with another code than 0.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, cwd=cwd, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {seconds:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise Failed(f"exit code {done.returncode}: {said[-1]}")
    return done


# ---- sections: each yields its pieces ---------------------------------------------------------------


def tests(chosen: argparse.Namespace) -> Iterator[Piece]:
    """The tests that need a GPU."""

    def piece(seconds: float) -> dict[str, Any]:
        words = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-q", "-p", "no:cacheprovider"]
        done = start([*words, "tests"] if not chosen.smoke else [*words, "tests/test_gpu.py"], seconds)
        return {"shown": done.stdout.strip().splitlines()[-1]}

    yield "pytest -m gpu", piece


def throughput(chosen: argparse.Namespace) -> Iterator[Piece]:
    """End to end and bare step of each model."""
    names = ("cnn-baseline",) if chosen.smoke else (chosen.models or (*CIFAR, *PERCEIVERS))
    for name in names:

        def piece(seconds: float, name: str = name) -> dict[str, Any]:
            # A Perceiver takes 96x96: the digits are small, and stand in for STL-10 in number and size.
            spec = "digits" if name in PERCEIVERS or chosen.smoke else f"parquet:{chosen.data}"
            words = [sys.executable, "-m", "zoo", "bench", name, "--dataset", spec, "--json", "--quiet"]
            words += [
                "--precision",
                "auto",
                "--batch-size",
                str(chosen.batch_size),
                "--device",
                chosen.device,
                "--what",
                "train,loop",
            ]
            words += ["--compile", chosen.compile, "--seconds", str(chosen.seconds), "--repeats", "5"]
            document = json.loads(start(words, seconds).stdout)
            row = document["rows"][0] | {"environment": document["environment"]}
            loop, train = row["loop"], row["train"]
            row["shown"] = (
                f"{loop['images_per_second']['median']:,.0f} img/s, share {loop['share']['median']:.3f}, "
                f"{TRAIN_IMAGES / loop['images_per_second']['median']:.2f} s an epoch of {TRAIN_IMAGES:,}, "
                f"{train['share_of_matrix_rate']:.0%} of the matrix rate, {row['precision']}, {row['compile']}"
            )
            return row

        yield name, piece


def timm(chosen: argparse.Namespace) -> Iterator[Piece]:
    """The same training by timm's train.py, or by its API where there is no train.py."""
    models = ("cnn-baseline",) if chosen.smoke else (chosen.models or ("resnet18", "vit-cifar", "hybrid-alt-1"))
    peer = "timm-train:bf16" if chosen.timm_train else "timm-api:bf16"
    for name in models:

        def piece(seconds: float, name: str = name) -> dict[str, Any]:
            with tempfile.TemporaryDirectory(prefix="gpu-timm-") as folder:
                words = [sys.executable, str(ROOT / "benchmarks" / "side_by_side.py"), "--models", name]
                words += ["--competitors", "zoo", peer, "--device", chosen.device, "--data", str(chosen.data)]
                words += ["--rounds", str(chosen.rounds), "--epochs", "1" if chosen.smoke else "3"]
                words += ["--images", str(64 if chosen.smoke else 32 * chosen.batch_size), "--test-images", "64"]
                words += ["--batch-size", str(chosen.batch_size), "--json", f"{folder}/out.json"]
                words += ["--workers", str(min(8, os.cpu_count() or 1))]
                words += ["--timm-train", str(chosen.timm_train)] if chosen.timm_train else []
                start(words, seconds)
                row = json.loads(Path(folder, "out.json").read_text())
            ours, theirs = row["rows"]
            if "faster" not in theirs:
                raise Failed(f"{ours.get('error', 'ours ran')}; {theirs.get('error', 'theirs ran')}")
            rates = f"{ours['images_per_second']:,.0f} beside {theirs['images_per_second']:,.0f} img/s"
            return row | {"shown": f"{rates}: {theirs['faster']:.2f} x {peer}"}

        yield name, piece


def airbench(chosen: argparse.Namespace) -> Iterator[Piece]:
    """Their script and our recipe on the same images: accuracy and seconds over several runs."""
    if chosen.airbench and not chosen.smoke:
        spec = f"parquet:{chosen.data}"
        yield "airbench94_muon.py", lambda seconds: their_speedrun(chosen.airbench, spec, chosen.runs, seconds)
    yield SPEEDRUN[0], lambda seconds: our_speedrun(chosen, seconds)


def their_speedrun(script: Path, spec: str, runs: int, seconds: float) -> dict[str, Any]:
    """Run a copy of the script with fewer runs, on our images in the files that it looks for."""
    import torch

    from zoo.catalogue.registry import load_registry
    from zoo.data.load import load

    data = load(spec, load_registry())
    with tempfile.TemporaryDirectory(prefix="gpu-airbench-") as folder:
        Path(folder, "cifar10").mkdir()
        for name, split in (("train", data.train), ("test", data.test)):
            images = torch.tensor(split.images.transpose(0, 2, 3, 1))
            held = {"images": images, "labels": torch.tensor(split.labels), "classes": list(data.classes)}
            torch.save(held, Path(folder, "cifar10", f"{name}.pt"))
        code, count = re.subn(r"range\(200\)", f"range({runs})", script.read_text())
        if count != 1:
            raise Failed(f"{script.name}: range(200), its number of runs, stands in it {count} times")
        Path(folder, "airbench.py").write_text(code)
        said = start([sys.executable, "airbench.py"], seconds, folder).stdout
    last = [line.split("|") for line in said.splitlines() if re.search(r"\|\s+eval\s+\|", line)]
    rows = [(float(cells[-3]), float(cells[-2])) for cells in last][1:]  # the first is its warm-up
    return spread_of([top1 for top1, _ in rows], [took for _, took in rows])


def our_speedrun(chosen: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Our recipe, seed after seed, each in a process of its own; its seconds are those of the whole run.

    They hold the evaluation after each epoch, which the other script's clock leaves out; the seconds of
    the steps alone stand beside them. Both clocks leave out the warm-up.
    """
    until, top1, took, more = time.monotonic() + seconds, [], [], []
    model, recipe = SPEEDRUN if not chosen.smoke else ("cnn-baseline", "best")
    for seed in range(chosen.runs):
        words = ["--recipe", recipe, "--protocol", "paper", "--seed", str(seed), *small(chosen)]
        result = trained([model, *words], chosen, until - time.monotonic())
        top1.append(result["test"]["top1"])
        took.append(result["train"]["seconds"])
        train = result["train"]
        steps = train["images"] / train["images_per_second"]
        more.append({"steps_alone_seconds": steps, "warm_up_seconds": train.get("warm_up_seconds", 0.0)})
    return spread_of(top1, took) | {"runs": more}


def spread_of(top1: list[float], seconds: list[float]) -> dict[str, Any]:
    """Mean and standard deviation of accuracy and of seconds."""
    if not top1:
        raise Failed("no run was found in what it printed")
    spreads = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in (top1, seconds)]
    means = [statistics.mean(v) for v in (top1, seconds)]
    shown = f"{means[0]:.4f} ± {spreads[0]:.4f} in {means[1]:.2f} ± {spreads[1]:.2f} s, n = {len(top1)}"
    return {"top1": top1, "seconds": seconds, "means": means, "spreads": spreads, "shown": shown}


def papers(chosen: argparse.Namespace) -> Iterator[Piece]:
    """The papers' rows: as the source trained, its best epoch on test."""
    yield from _trainings(chosen, "source", "paper", seeds=1)


def best(chosen: argparse.Namespace) -> Iterator[Piece]:
    """Our recipes, three seeds."""
    yield from _trainings(chosen, "best", "clean", seeds=1 if chosen.smoke else 3)


def _trainings(chosen: argparse.Namespace, recipe: str, protocol: str, seeds: int) -> Iterator[Piece]:
    names = ("cnn-baseline",) if chosen.smoke else (chosen.models or CIFAR[:-1])
    for name in names:
        for seed in range(seeds):

            def piece(seconds: float, name: str = name, seed: int = seed) -> dict[str, Any]:
                words = ["--recipe", recipe, "--protocol", protocol, "--seed", str(seed), *small(chosen)]
                result = trained([name, *words], chosen, seconds)
                minutes = result["train"]["seconds"] / 60
                return result | {"shown": f"top-1 {result['test']['top1']:.4f} in {minutes:.1f} min"}

            yield f"{name}, {protocol}, seed {seed}", piece


def trained(words: list[str], chosen: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """`zoo train` to its end; its result.json."""
    with tempfile.TemporaryDirectory(prefix="gpu-train-") as folder:
        own = ["--dataset", f"parquet:{chosen.data}", "--device", chosen.device, "--output", f"{folder}/run"]
        start([sys.executable, "-m", "zoo", "train", *words, *own, "--quiet"], seconds)
        result: dict[str, Any] = json.loads(Path(folder, "run", "result.json").read_text())
    return result


def small(chosen: argparse.Namespace) -> list[str]:
    """Options that make a training tiny, where only the script is tried."""
    return ["--limit-train", "80", "--limit-test", "40", "--epochs", "1"] if chosen.smoke else []


# ---- the call -----------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS[:4]))
    options.add_argument("--models", nargs="+", help="these alone; default: the section's own list")
    options.add_argument("--minutes", type=float, default=9.3, help="of the whole call")
    options.add_argument("--batch-size", type=int, default=512)
    options.add_argument("--seconds", type=float, default=3.0, help="of one measurement of throughput")
    options.add_argument("--rounds", type=int, default=5, help="of the section timm")
    options.add_argument("--runs", type=int, default=10, help="of the section airbench")
    options.add_argument("--compile", default="auto", choices=["auto", "off", "graph", "default", "max"])
    options.add_argument("--device", default="cuda")
    options.add_argument("--data", type=Path, help="folder of CIFAR-10's parquet files")
    options.add_argument("--timm-train", type=Path, help="timm's train.py, or a checkout of its repository")
    options.add_argument("--airbench", type=Path, help="airbench94_muon.py")
    options.add_argument("--smoke", action="store_true", help="tiny, on the CPU: does the script run?")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    if chosen.smoke:
        tiny = {"device": "cpu", "batch_size": 16, "seconds": 0.2, "rounds": 1, "runs": 1, "compile": "off"}
        vars(chosen).update(tiny)
    chosen.data = data_folder(chosen.data).resolve()
    return chosen


def worked(name: str, piece: Callable[[float], dict[str, Any]], left: float) -> dict[str, Any]:
    """The row of a piece, or `error` in it; and the seconds that it took."""
    began = time.monotonic()
    try:
        row = piece(left)
    except (Failed, OSError, ValueError, KeyError, LookupError) as error:
        row = {"error": f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error)}
    return {"what": name, **row, "piece_seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """Work the sections, and print one table last."""
    chosen = parse()
    until = time.monotonic() + 60 * chosen.minutes
    known = {"tests": tests, "throughput": throughput, "timm": timm, "airbench": airbench}
    known |= {"papers": papers, "best": best}
    rows: list[dict[str, Any]] = []
    machine = facts() | {"gpu": gpu_name()}
    for section in chosen.sections:
        longest = 0.0
        for name, piece in known[section](chosen):
            left = until - time.monotonic()
            if left < max(longest, 5.0):
                rows.append({"section": section, "what": name, "error": "left out: no time"})
                continue
            rows.append({"section": section, **worked(name, piece, left)})
            longest = max(longest, rows[-1]["piece_seconds"])
            say(f"{section}, {name}: {rows[-1].get('shown') or rows[-1].get('error')}")
            write(chosen.json, {"dataset": "CIFAR-10 (lossless)", "machine": machine, "rows": rows})
    cells = [
        [r["section"], r["what"], r.get("piece_seconds", ""), r.get("shown") or f"FAILED: {r['error']}"] for r in rows
    ]
    print("\n".join(lines(("section", "what", "s", "result"), cells, left=4)))


def gpu_name() -> str:
    """The GPU, by its driver's own tool; "" without one."""
    words = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


if __name__ == "__main__":
    main()
