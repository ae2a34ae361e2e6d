"""What integers of 8 bits cost the weights of the catalogue: top-1 on CIFAR-10, bytes, and images per second.

    python benchmarks/export_int8.py --dataset parquet:../shared/data/cifar10/plain_text --json results/export_int8.json

Each network is exported twice by `zoo.export`, in fp32 and with `int8=True` (512 training images for calibration). Both
files run in ONNX Runtime on one thread over the same test images, one view each, by turns: batches of 64, three rounds;
reported is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import facts, lines, say, write

import zoo

NAMES = ("cnn-baseline-bn", "speedrun-94", "vit-nano", "mixer-nano", "hybrid-nano", "perceiver-nano", "pico")
BATCH, STEPS, ROUNDS = 64, 8, 3


def session(path: Path) -> Any:
    """A file on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def seconds(run: Any, images: np.ndarray) -> float:
    """Processor seconds of some batches."""
    started = time.process_time()
    for _ in range(STEPS):
        run.run(None, {"images": images})
    return time.process_time() - started


def measured(name: str, dataset: str) -> dict[str, Any]:
    """Accuracy, bytes and the ratio of the rates of a network."""
    with tempfile.TemporaryDirectory() as folder:
        floats = zoo.export(f"{name}@cifar10", Path(folder) / "fp32.onnx")
        integers = zoo.export(
            f"{name}@cifar10", Path(folder) / "int8.onnx", int8=True, tolerance_top1=1, dataset=dataset, check=False
        )
        images = np.random.default_rng(0).normal(size=(BATCH, 3, 32, 32)).astype(np.float32)
        before, after = session(floats.path), session(integers.path)
        for run in (before, after):
            seconds(run, images)
        ratios = [seconds(before, images) / seconds(after, images) for _ in range(ROUNDS)]
        assert integers.quantized is not None
        sizes = {"fp32_bytes": floats.bytes, "int8_bytes": integers.bytes}
        return {**integers.quantized.as_dict(), **sizes, "ratios": ratios, "ratio": statistics.median(ratios)}


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--dataset", required=True)
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    record: dict[str, Any] = {**facts(), "networks": {}}
    rows = []
    for name in NAMES:
        done = record["networks"][name] = measured(name, chosen.dataset)
        top1 = [f"{done[key]:.2%}" for key in ("fp32_top1", "int8_top1")]
        sizes = [f"{done[key]:,}" for key in ("fp32_bytes", "int8_bytes")]
        rows.append([name, *top1, *sizes, f"{done['ratio']:.2f}"])
        say(f"{name}: done")
    print("\n".join(lines(["network", "fp32", "int8", "bytes fp32", "bytes int8", "int8 / fp32 rate"], rows, left=1)))
    write(chosen.json, record)


if __name__ == "__main__":
    main()
