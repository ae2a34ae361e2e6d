"""Images per second of `zoo predict` and `zoo serve` beside the bare forward pass and ONNX Runtime.

    python benchmarks/inference.py [--networks cnn-baseline-bn,pico] [--rounds 5] [--json results/inference.json]

The weights of the catalogue on a CPU, one thread for each operator. By turns, each round: the forward pass of the
network on ready batches of floats, over the views of its recipe; ONNX Runtime on the exported file on the same
batches, once for each view; `zoo.predict` on folders of generated images, 512 PNG of 32x32 and 128 JPEG of 500x375
pixels; and `zoo serve`, a process of its own, asked for one PNG again and again by 8 and by 32 clients at a time, who
share another process. `by ONNX` is the same with the exported file in the place of the weights.
Processor seconds are those of the process that computes, so that other work on the machine hardly counts; seconds of
the clock are beside them. All figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import psutil
import torch
from common import facts, lines, say, write
from PIL import Image
from serve import serving

import zoo

BATCH, BATCHES = 64, 8
CLIENTS = (8, 32)
CLIENTS_SCRIPT = str(Path(__file__).with_name("http_clients.py"))


def images(folder: Path) -> dict[str, Path]:
    """The folders of generated images."""
    draw = np.random.default_rng(0)
    for number in range(512):
        pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        _saved(Image.fromarray(pixels), folder / "small" / f"{number:03}.png")
    for number in range(128):
        coarse = Image.fromarray(draw.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        _saved(coarse.resize((500, 375), Image.Resampling.BICUBIC), folder / "photographs" / f"{number:03}.jpg")
    return {name: folder / name for name in ("small", "photographs")}


def _saved(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    image.save(path, quality=90)


def timed(count: int, work: Callable[[], object]) -> dict[str, float]:
    """Microseconds an image of the processor and of the clock, for work on `count` images in this process."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return {
        "cpu_us": (time.process_time() - used) / count * 1e6,
        "clock_us": (time.perf_counter() - begun) / count * 1e6,
    }


class Bare:
    """The forward pass alone, by torch and by ONNX Runtime, on the same batches."""

    def __init__(self, classifier: Any, file: Path) -> None:
        pixels = np.random.default_rng(1).integers(0, 256, (BATCH, 3, *classifier.transform.size), dtype=np.uint8)
        self.batch = classifier.prepare(pixels)
        self.averaged = classifier.averaged
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.views: list[np.ndarray] = []
        classifier_views(classifier, self.batch, self.views)
        self.count = BATCH * BATCHES

    def torch(self) -> None:
        """As `zoo predict` computes it."""
        with torch.inference_mode():
            for _ in range(BATCHES):
                self.averaged(self.batch)

    def onnx(self) -> None:
        """Each view of each image."""
        for _ in range(BATCHES):
            for view in self.views:
                self.session.run(None, {"images": view})


def classifier_views(classifier: Any, batch: torch.Tensor, kept: list[np.ndarray]) -> None:
    """What the network is called with for a batch: one array for each view."""
    from zoo.evaluate.views import views

    def keep(view: torch.Tensor) -> torch.Tensor:
        kept.append(view.contiguous().numpy())
        return torch.zeros(len(view), classifier.sizes.num_classes)

    views(keep, classifier.tta)(batch)


# ---- serving -------------------------------------------------------------------------------------


@contextmanager
def served(name: str) -> Iterator[tuple[psutil.Process, str]]:
    """The server, and its port."""
    with serving(name) as url:
        mine = psutil.Process().children()
        (server,) = [child for child in mine if name in child.cmdline()]
        yield server, url.rstrip("/").rpartition(":")[2]


def asked(server: psutil.Process, port: str, image: Path, clients: int, seconds: float) -> dict[str, float]:
    """One round of requests: microseconds of the server's processor and of the clock for each."""
    before = server.cpu_times()
    words = [sys.executable, CLIENTS_SCRIPT, port, str(image), str(clients), str(seconds)]
    answered = int(subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds + 120).stdout)
    after = server.cpu_times()
    used = after.user + after.system - before.user - before.system
    return {"cpu_us": used / answered * 1e6, "clock_us": seconds / answered * 1e6}


# ---- the record ----------------------------------------------------------------------------------


def measured(name: str, folders: dict[str, Path], work: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """One network: every figure of every round."""
    classifier = zoo.load(f"{name}@cifar10")
    bare = Bare(classifier, zoo.export(classifier, work / f"{name}.onnx", check=False).path)
    exported = zoo.export(classifier, work / f"{name}-pixels.onnx", with_preprocessing=True, check=False).path
    kinds = {"": (classifier, f"{name}@cifar10"), ", by ONNX": (zoo.load(exported), str(exported))}
    counts = {where: len(list(folder.iterdir())) for where, folder in folders.items()}
    small = next(folders["small"].iterdir())
    found: dict[str, list[dict[str, float]]] = {}

    def add(key: str, row: dict[str, float]) -> None:
        found.setdefault(key, []).append(row)

    with ExitStack() as stack:
        servers = {kind: stack.enter_context(served(reference)) for kind, (_, reference) in kinds.items()}
        for number in range(rounds + 1):  # the first one warms up
            add("forward", timed(bare.count, bare.torch))
            add("onnxruntime", timed(bare.count, bare.onnx))
            for kind, (model, _) in kinds.items():
                for where, folder in folders.items():
                    work_of = partial(zoo.predict, model, folder)
                    add(f"predict {where}{kind}", timed(counts[where], work_of))
                for clients in CLIENTS:
                    row = asked(*servers[kind], small, clients, seconds if number else 1)
                    add(f"serve {clients}{kind}", row)
            say(f"{name}: round {number} of {rounds}")
    return {"tta": classifier.tta, "parameters": classifier.parameter_count, "ways": summary(found)}


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the rounds but the first, and the share of the forward pass in each way, round by round."""
    ways: dict[str, Any] = {}
    for way, rows in found.items():
        shares = [base["cpu_us"] / row["cpu_us"] for base, row in zip(found["forward"][1:], rows[1:], strict=True)]
        ways[way] = {
            "cpu_us": round(statistics.median(row["cpu_us"] for row in rows[1:]), 1),
            "images_per_cpu_second": round(1e6 / statistics.median(row["cpu_us"] for row in rows[1:]), 1),
            "images_per_second": round(1e6 / statistics.median(row["clock_us"] for row in rows[1:]), 1),
            "share_of_forward": round(statistics.median(shares), 3),
            "each_cpu_us": [round(row["cpu_us"], 1) for row in rows[1:]],
        }
    return ways


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--networks", default="cnn-baseline-bn,pico", help="names, with commas between")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=4, help="of each round of requests")
    options.add_argument("--note", default="", help="what else the machine was doing")
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    record: dict[str, Any] = {"machine": facts(), "note": chosen.note, "networks": {}}
    rows = []
    with tempfile.TemporaryDirectory() as base:
        folders = images(Path(base))
        for name in chosen.networks.split(","):
            done = record["networks"][name] = measured(name, folders, Path(base), chosen.rounds, chosen.seconds)
            for way, row in done["ways"].items():
                rows.append([name, way, row["cpu_us"], row["images_per_second"], row["share_of_forward"]])
            record["machine"]["load_after"] = [round(x, 2) for x in os.getloadavg()]
            write(chosen.json, record)  # each network as it comes: all of them take minutes
    titles = ["network", "way", "CPU us/image", "images/s (clock)", "forward / way"]
    print("\n".join(lines(titles, rows, markdown=True)))


if __name__ == "__main__":
    main()
