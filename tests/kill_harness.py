"""Kill training at random moments, resume until done, compare with the run that nobody killed.

    python tests/kill_harness.py --kills 60            # or: just kill-test 60
    python tests/kill_harness.py --kills 60 --shards   # the digits stream from tar and parquet files

Each training is a real process that runs the real command line on the embedded digits; it is ended by a
real SIGKILL: from outside after a random delay, or by itself in the middle of a write (half of the bytes
written; before fsync; before rename; after rename). Processes are forked from one that has imported
torch already, which saves seconds for each start and changes nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # forked children must not inherit a pool of threads

REGISTRY = """
[models.victim]
summary = "a small mixture with dropout and batch norm"
family = "test"
recipe = "victim-adam"
dataset = "digits"
[models.victim.build]
use = "hybrid.classifier"
body = { use = "hybrid.alternate", repeat = 1, of = [
  { use = "cnn.residual", widths = [4, 4] },
  { use = "vit.image", depth = 1, heads = 1, head_width = 8, mlp = 16 },
] }

[recipes.victim-adam]
epochs = 4
batch_size = 32
lr = 5e-3
schedule = "cosine"
warmup_epochs = 1
ema = 0.9
label_smoothing = 0.1
augment = [{ op = "crop", padding = 1 }, { op = "cutout", size = 2 }]

[recipes.victim-sgd]
extends = "victim-adam"
optimizer = "nesterov"
lr = 0.05
weight_decay = 1e-4
decay = "matrices"
schedule = "onecycle"
accumulate = 2
clip_grad_norm = 1.0
class_weights = { "3" = 4.0, "8" = 0.5 }
sampler = "balanced"
select = "macro-f1"

[recipes.victim-early]
extends = "victim-adam"
optimizer = "sgd"
lr = 6.0
clip_grad_norm = 1.0
warmup_epochs = 6
ema = 0.0
epochs = 6
"""
RECIPES = ("victim-adam", "victim-sgd", "victim-early")
TIMES = (
    "seconds",
    "warm_up_seconds",
    "step_seconds",
    "epoch_seconds",
    "images_per_second",
    "environment",
)  # not what came out
WRITES = ("half", "before-fsync", "before-rename", "after-rename")
DROPS = ("optimizer", "schedule", "averaging", "position", "best-so-far")


@dataclass
class Report:
    """What a series of kills gave."""

    runs: int = 0  # killed at least once
    untouched: int = 0  # finished before a kill came: they prove nothing and are not counted
    kills: int = 0
    inside_writes: int = 0
    different: list[str] = field(default_factory=list)
    stages: dict[str, int] = field(default_factory=dict)


def launch(
    words: list[str], log: Path, prepare: Callable[[], None] = lambda: None, kill_after: float | None = None
) -> int:
    """Run the command line in a forked process; its exit status, or minus the signal that ended it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            prepare()
            from zoo.cli import main

            main(words)
        except SystemExit as done:
            sys.stdout.flush()
            os._exit(int(done.code or 0))
        finally:
            os._exit(99)
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_inside_a_write(number: int, stage: str) -> Callable[[], None]:
    """For `launch`: SIGKILL oneself at a stage of the write of that number (from 0)."""

    def prepare() -> None:
        seen = dict.fromkeys(WRITES, 0)

        def due(name: str) -> bool:
            seen[name] += 1
            return name == stage and seen[name] == number + 1

        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        write, sync, replace = Path.write_bytes, os.fsync, os.replace

        def write_bytes(self: Path, data: Any) -> int:
            if due("half"):
                write(self, data[: len(data) // 2])
                die()
            return write(self, data)

        def fsync(handle: Any) -> None:
            if due("before-fsync"):
                die()
            sync(handle)

        def rename(old: Any, new: Any, **more: Any) -> None:
            if due("before-rename"):
                die()
            replace(old, new, **more)
            if due("after-rename"):
                die()

        Path.write_bytes, os.fsync, os.replace = write_bytes, fsync, rename

    return prepare


def forget(what: str) -> Callable[[], None]:
    """For `launch`: a trainer whose resume leaves out one piece of the state (negative control)."""

    def prepare() -> None:
        from zoo.train import loop

        restore, lr_at = loop.Trainer.restore, loop.lr_at

        def broken(self: Any, state: dict[str, Any]) -> None:
            position = state["position"]
            if what == "optimizer":
                state["optimizer"] = self.optimizer.state_dict()
            if what == "averaging":
                state["average"] = self.average.state()
            if what == "position":
                position["step"] = 0
            if what == "best-so-far":
                position |= {"best_score": -math.inf, "best_epoch": 0}
            if what == "schedule":
                resumed = position["total"]
                loop.lr_at = lambda recipe, step, *more: lr_at(recipe, step - resumed, *more)
            restore(self, state)

        loop.Trainer.restore = broken

    return prepare


def die_before_step(step: int) -> Callable[[], None]:
    """For `launch`: SIGKILL oneself before the step of that number."""

    def prepare() -> None:
        from zoo.train import loop

        take = loop.Trainer._step

        def stepping(self: Any, rows: Any) -> None:
            if self.at.total == step:
                os.kill(os.getpid(), signal.SIGKILL)
            take(self, rows)

        loop.Trainer._step = stepping

    return prepare


def command(folder: Path, recipe: str, seed: int, steps: int = 2, dataset: str = "digits") -> list[str]:
    """The command that starts a run."""
    words = ["train", "victim", "--recipe", recipe, "--dataset", dataset, "--limit-train", "300", "--workers", "0"]
    words += ["--limit-test", "100", "--seed", str(seed), "--device", "cpu", "--checkpoint-seconds", "0"]
    return [*words, "--checkpoint-steps", str(steps), "--output", str(folder), "--quiet"]


def again(folder: Path, recipe: str, seed: int, dataset: str = "digits") -> list[str]:
    """The command after a kill: resume, or the first one where it died before the run was recorded."""
    if not (folder / "run.toml").exists():
        return command(folder, recipe, seed, dataset=dataset)
    words = ["train", "--resume", str(folder), "--checkpoint-seconds", "0", "--checkpoint-steps", "2", "--quiet"]
    return [*words, "--workers", "0"]


def timeless(value: Any) -> Any:
    """Without the times, which no two runs share."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def compare(one: Path, other: Path) -> str:
    """What differs between two finished runs, apart from times; "" where they are bit-identical."""
    from zoo.train.checkpoint import newest

    if (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes():
        return "model.safetensors"
    for name, read in (("metrics.jsonl", _rows), ("result.json", _json)):
        if timeless(read(one / name)) != timeless(read(other / name)):
            return name
    states = [newest(folder / "checkpoints") for folder in (one, other)]
    first, second = (_plain(timeless(found.state)) for found in states if found is not None)
    return "" if first == second else "checkpoint"


def _plain(value: Any) -> Any:
    """Tensors as bytes, so that == means bit for bit."""
    if hasattr(value, "numpy"):
        return (str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


def _rows(path: Path) -> Any:
    return [json.loads(line) for line in path.read_text().splitlines()]


def finish(folder: Path, recipe: str, seed: int, log: Path, dataset: str = "digits") -> None:
    """Resume (or start) until the run has its result."""
    if not (folder / "result.json").exists():
        status = launch(again(folder, recipe, seed, dataset), log)
        if status != 0:
            raise RuntimeError(f"exit status {status}: {log.read_text()[-2000:]}")


def prepared_home() -> Path:
    """A folder with the victims' registry.toml; variables point into it."""
    memory = Path("/dev/shm")  # a killed process loses nothing that it wrote, so no disk has to be waited for
    home = Path(tempfile.mkdtemp(prefix="zoo-kill-", dir=memory if os.access(memory, os.W_OK) else None))
    (home / "registry.toml").write_text(REGISTRY)
    os.environ |= {"ZOO_CONFIG_DIR": str(home), "ZOO_CACHE_DIR": str(home / "cache")}
    import torch._dynamo
    import torch.optim.swa_utils  # noqa: F401 (loaded once, before children are forked)

    from zoo.train.plan import resolve
    from zoo.train.run_options import Request

    resolve(Request(model="victim", recipe="victim-adam", dataset="digits"))  # imports all that children need
    return home


def shards(home: Path) -> tuple[tuple[str, str], ...]:
    """Recipes with the SPECs of shards that hold the digits: tars, drawn from too, and parquet files."""
    import io

    import numpy as np
    from PIL import Image
    from shard_files import write_parquet, write_tars
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:600], digits.target[:600], strict=True)):
        path = home / "digits" / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = io.BytesIO()
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(image, "PNG")
        path.write_bytes(image.getvalue())
    write_tars(home / "digits", home / "tars", "train", 4)
    write_parquet(home / "digits", home / "parquet", "train", 3, group=25)
    tars, parquet = f"wds:{home / 'tars'}?stream&buffer=90", f"parquet:{home / 'parquet'}?stream&buffer=90"
    return (RECIPES[0], parquet), (RECIPES[1], tars), (RECIPES[2], parquet), (RECIPES[0], tars)


DIGITS = tuple((recipe, "digits") for recipe in RECIPES)


def series(
    kills: int,
    kills_per_run: int,
    seed: int,
    home: Path,
    say: Callable[[str], None],
    victims: tuple[tuple[str, str], ...] = DIGITS,
) -> Report:
    """Kill until there were `kills` kills; every third inside a write.

    Args:
        victims: recipes and datasets, which are trained by turns.
    """
    luck, report = random.Random(seed), Report()
    references, times = [], []
    for place, (recipe, dataset) in enumerate(victims):
        folder, started = home / f"whole-{place}-{recipe}", time.monotonic()
        finish(folder, recipe, 1, home / "log", dataset)
        references.append(folder)
        times.append(time.monotonic() - started)
    while report.kills < kills:
        number = report.runs + report.untouched
        place, folder = number % len(victims), home / f"killed-{number}"
        recipe, dataset = victims[place]
        command_again = partial(again, folder, recipe, 1, dataset)
        killed = 0
        while killed < kills_per_run and not (folder / "result.json").exists():
            if luck.random() < 1 / 3:
                stage = luck.choice(WRITES)
                end = launch(command_again(), home / "log", die_inside_a_write(luck.randrange(30), stage))
                report.inside_writes += end == -signal.SIGKILL
                report.stages[stage] = report.stages.get(stage, 0) + (end == -signal.SIGKILL)
            else:
                end = launch(command_again(), home / "log", kill_after=luck.uniform(0.02, times[place]))
            if end not in (0, -signal.SIGKILL):
                report.different.append(f"{folder.name}: exit status {end}: {(home / 'log').read_text()[-300:]}")
                break
            killed += end == -signal.SIGKILL
        report.kills += killed
        report.runs += killed > 0
        report.untouched += killed == 0
        finish(folder, recipe, 1, home / "log", dataset)
        if difference := compare(references[place], folder):
            report.different.append(f"{folder.name} ({recipe}, {killed} kills): {difference}")
        shutil.rmtree(folder)
        say(f"run {report.runs}: {killed} kills, {report.kills} of {kills}, {len(report.different)} different")
    return report


def main() -> int:
    """The command line of the harness."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--kills", type=int, default=60)
    options.add_argument("--per-run", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--shards", action="store_true", help="stream the digits from tar and parquet files")
    options.add_argument("--json", type=Path, help="write the report, with versions, to this file")
    chosen = options.parse_args()
    home = prepared_home()
    try:
        started = time.monotonic()
        victims = shards(home) if chosen.shards else DIGITS
        say = partial(print, flush=True)
        report = series(chosen.kills, chosen.per_run, chosen.seed, home, say, victims)
        summary = {
            "runs": report.runs,
            "untouched": report.untouched,
            "kills": report.kills,
            "inside_writes": report.inside_writes,
            "stages": report.stages,
            "bit_identical": report.runs + report.untouched - len(report.different),
            "different": report.different,
            "seconds": round(time.monotonic() - started, 1),
            "seed": chosen.seed,
        }
        if chosen.json:
            import torch

            from zoo.train.environment import environment

            summary |= {"command": " ".join(["python", *sys.argv]), "environment": environment(torch.device("cpu"))}
            chosen.json.write_text(json.dumps(summary, indent=2) + "\n")
        print(json.dumps(summary, indent=2))
        return 1 if report.different else 0
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
