"""Our trainer beside timm's, torchvision's and the papers' loops: same images, model, batch, threads.

    python benchmarks/side_by_side.py --timm-train PATH/TO/pytorch-image-models \
        --json results/side_by_side.json --markdown

Each competitor trains one epoch in a process of its own, by turns with the others, after one unmeasured round
(decoded images are cached, bytecode is written; its times stand in the record as `cold`). Reported are medians
of the training images per second after an epoch's first step, and of the seconds of the whole process: imports,
loading, one epoch, its validation and whatever files it writes. Competitors, named PEER:PRECISION:

  zoo           `zoo train`, at its own choices: flip and padded crop
  zoo-jitter    the same with the papers' augmentation: flip and colour jitter, values in 0..1
  timm-train    timm's own train.py (not in its wheel: --timm-train names a checkout or the file), fused Adam
  timm-api      its steps over timm's loader and optimizer, where there is no train.py
  torchvision   the steps of torchvision's references: ImageFolder, PIL transforms
  papers        the Mixture Models repository's loop: arrays, PIL flip and ColorJitter, fp32

bf16 goes with channels-last. --modules same (default) trains one and the same module everywhere; `own` gives
each competitor the module that its users have: timm's, torchvision's, torch's dropout in the hybrid.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import data_folder, facts, lines, say, write

PEERS = Path(__file__).resolve().parent / "peers.py"
BATCH = 64
TIMM = ("timm-train:fp32", "timm-train:bf16")
TORCHVISION = ("torchvision:fp32", "torchvision:bf16")
PAPERS = ("zoo-jitter", "papers:fp32")
MODELS = (
    ("hybrid-alt-1", 640, PAPERS),
    ("resnet18", 2496, ("zoo", *TIMM, *TORCHVISION, *PAPERS)),
    ("vit-cifar", 2496, ("zoo", *TIMM, *TORCHVISION[1:])),
)
"""Model, training images, and who trains it where nothing else is asked for."""

TEST_IMAGES = 512
GOALS = (
    ("resnet18", "timm", 1.5),
    ("vit-cifar", "timm", 1.5),
    ("resnet18", "papers", 1.5),
    ("hybrid-alt-1", "papers", 3.0),
)
"""Model, competitor, and how many times its images per second ours should be."""


def write_images(source: Path, folder: Path, images: int, test_images: int) -> None:
    """The first images of CIFAR-10 as class folders of JPEG files, and as arrays."""
    import io

    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    for split, count in (("train", images), ("test", test_images)):
        table = pq.read_table(next(source.glob(f"{split}*.parquet"))).slice(0, count).to_pydict()
        labels = table["label"]
        for number, (image, label) in enumerate(zip(table["img"], labels, strict=True)):
            path = folder / split / str(label) / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image["bytes"])
        decoded = [np.asarray(Image.open(io.BytesIO(i["bytes"])).convert("RGB")) for i in table["img"]]
        np.savez(folder / f"{split}.npz", images=np.stack(decoded), labels=np.asarray(labels))


def environment(folder: str, threads: int) -> dict[str, str]:
    """The same for everybody: threads, caches of the benchmark's own, bytecode as an installation has it."""
    own = {f"ZOO_{name}_DIR": f"{folder}/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
    own |= {"PYTHONPYCACHEPREFIX": f"{folder}/bytecode", "OMP_NUM_THREADS": str(threads)}
    dropped = ("PYTHONDONTWRITEBYTECODE", "GOMP_SPINCOUNT", "MKL_NUM_THREADS")
    return {k: v for k, v in os.environ.items() if k not in dropped} | own


def run(competitor: str, job: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    """One training: what its process wrote, and its seconds; `error` where it failed."""
    peer, _, precision = competitor.partition(":")
    name, _, jitter = peer.partition("zoo-")
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as scratch:
        own = {"peer": "zoo" if jitter else name, "jitter": bool(jitter), "precision": precision}
        Path(scratch, "job.json").write_text(json.dumps({**job, **own, "scratch": scratch}))
        command = [sys.executable, str(PEERS), f"{scratch}/job.json", f"{scratch}/result.json"]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=scratch, check=False)
        seconds = time.perf_counter() - start
        if done.returncode or not Path(scratch, "result.json").is_file():
            last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            return {"error": f"exit code {done.returncode}: {last}"}
        result: dict[str, Any] = json.loads(Path(scratch, "result.json").read_text())
    # Building our module in somebody else's process is our doing: it is not counted against them.
    return result | {"process_seconds": seconds - result["adapter_seconds"]}


def rounds(model: str, competitors: list[str], job: dict[str, Any], count: int, folder: str) -> dict[str, Any]:
    """All runs of all competitors on one model, by turns: name to its runs, the cold one first."""
    variables = environment(folder, job["threads"])
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in competitors}
    for turn in range(count + 1):
        order = competitors if turn % 2 else competitors[::-1]
        for name in order:
            if found[name] and "error" in found[name][-1]:
                continue
            found[name].append(run(name, {**job, "model": model}, variables))
            last = found[name][-1]
            shown = last.get("error") or f"{last['process_seconds']:.1f} s, {_rate(last):,.1f} img/s"
            say(f"{model}, round {turn if turn else 'cold'}, {name}: {shown}")
    return found


def _rate(run_: dict[str, Any]) -> float:
    return run_["epochs"][-1]["images_per_second"]


def summary(model: str, found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each competitor: medians, and how many times ours is faster, round by round."""
    rows = []
    for name, runs in found.items():
        cold, *measured = runs
        if any("error" in r for r in runs):
            rows.append({"model": model, "competitor": name, "error": runs[-1]["error"]})
            continue
        rate, seconds = [_rate(r) for r in measured], [r["process_seconds"] for r in measured]
        row: dict[str, Any] = {
            "model": model,
            "competitor": name,
            "parameters": cold["parameters"],
            "images_per_second": statistics.median(rate),
            "process_seconds": statistics.median(seconds),
            "runs": measured,
            "cold": cold,
        }
        ours = found.get("zoo-jitter" if name.startswith("papers") else "zoo", [])[1:]
        if not name.startswith("zoo") and ours and "error" not in ours[-1]:
            faster = [_rate(a) / b for a, b in zip(ours, rate, strict=True)]
            sooner = [b / a["process_seconds"] for a, b in zip(ours, seconds, strict=True)]
            row |= {"faster": statistics.median(faster), "faster_by_round": faster}
            row |= {"sooner": statistics.median(sooner), "sooner_by_round": sooner}
        rows.append(row)
    return rows


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each goal beside what was measured against the fastest variant of that competitor."""
    found = []
    for model, peer, goal in GOALS:
        own = [r for r in rows if r["model"] == model and r["competitor"].startswith(peer) and "faster" in r]
        if own:
            best = max(own, key=lambda r: r["images_per_second"])
            found.append(
                {
                    "model": model,
                    "against": best["competitor"],
                    "goal": goal,
                    "faster": best["faster"],
                    "reached": best["faster"] >= goal,
                }
            )
    return found


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table."""
    if "error" in row:
        return [row["model"], row["competitor"], row["error"][:40], "", "", ""]
    times = [f"{row[key]:.2f}" if key in row else "" for key in ("faster", "sooner")]
    rate, seconds = f"{row['images_per_second']:,.1f}", f"{row['process_seconds']:.1f}"
    return [row["model"], row["competitor"], rate, times[0], seconds, times[1]]


def parse() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--models", nargs="+", default=[name for name, *_ in MODELS])
    options.add_argument("--competitors", nargs="+", metavar="PEER:PRECISION", help="default: by model")
    options.add_argument("--timm-train", type=Path, help="timm's train.py, or a checkout of its repository")
    options.add_argument("--modules", choices=["same", "own"], default="same")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--images", type=int, help="training images; default: 2496, of hybrid-alt-1 640")
    options.add_argument("--test-images", type=int, default=TEST_IMAGES)
    options.add_argument("--epochs", type=int, default=1, help="the last one's images per second count")
    options.add_argument("--batch-size", type=int, default=BATCH)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--workers", type=int, default=2, help="loading processes of timm and torchvision")
    options.add_argument("--papers-workers", type=int, default=2, help="the source has 0")
    options.add_argument("--device", default="cpu")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--data", type=Path, help="folder of CIFAR-10's parquet files")
    options.add_argument("--markdown", action="store_true")
    options.add_argument("--json", type=Path)
    return options.parse_args()


def planned(model: str, chosen: argparse.Namespace) -> tuple[int, list[str]]:
    """How many images a model trains on, and by whom; timm's API stands in where there is no train.py."""
    known = {name: (images, names) for name, images, names in MODELS}
    images, names = known.get(model, known["resnet18"])
    found = list(chosen.competitors or names)
    if chosen.timm_train is None and any(name.startswith("timm-train") for name in found):
        say("no --timm-train: timm-api takes the place of timm-train")
        found = [name.replace("timm-train", "timm-api") for name in found]
    return chosen.images or images, found


def main() -> None:
    """Run all, print one table, and write the record."""
    chosen = parse()
    source, found = data_folder(chosen.data), facts()
    rows: list[dict[str, Any]] = []
    for model in chosen.models:
        with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
            count, competitors = planned(model, chosen)
            write_images(source, Path(folder, "images"), count, chosen.test_images)
            job = {k: v for k, v in vars(chosen).items() if isinstance(v, str | int | None)}
            job |= {"folder": f"{folder}/images", "images": count}
            job["timm_train"] = str(chosen.timm_train.resolve()) if chosen.timm_train else None
            rows += summary(model, rounds(model, competitors, job, chosen.rounds, folder))
    goals = judged(rows)
    titles = ("model", "competitor", "img/s", "zoo is x faster", "whole s", "zoo is x sooner")
    print("\n".join(lines(titles, [cells(row) for row in rows], markdown=chosen.markdown)))
    for goal in goals:
        say(
            f"{goal['model']} against {goal['against']}: {goal['faster']:.2f} x, goal {goal['goal']}"
            f"{'' if goal['reached'] else ': NOT reached'}"
        )
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(chosen).items() if k != "json"}
    for key in ("data", "timm_train"):
        settings.pop(key)
    found["load_after"] = [round(x, 2) for x in os.getloadavg()]
    record = {"dataset": "CIFAR-10 (lossless)", "settings": settings, "machine": found, "goals": goals, "rows": rows}
    write(chosen.json, record)


if __name__ == "__main__":
    main()
