"""Images per second that a loader delivers from a folder of large JPEG files: ours, torchvision's, timm's.

    python benchmarks/streaming.py --json results/streaming.json

Each side reads the same generated folder with the same number of worker processes and delivers the same thing:
float batches on the device, cut by RandomResizedCrop (bilinear), mirrored by chance, normalised. Ours:
`zoo.data.batches.stream` and the augmentation of a batch; torchvision: ImageFolder, transforms v2, DataLoader with
persistent workers; timm: create_dataset and create_loader (with its prefetcher on a GPU, and without colour
jitter). A round is, for each side by turns: start its workers, read one epoch unmeasured, then measure one
from its first batch to its last. Reported: medians, spread, and the ratios of ours to each, round by round.
Seconds from nothing to the first batch are beside them, and the CPU time of an image in all processes of a side
together: where other programs share the cores, it says more than the rate.

With `--device cpu` one more thing is on the training process's own core: ours normalises there, a batch at
a time, where the others' workers do. Nothing trains meanwhile. The reading process keeps its heap, as `zoo train`
does, for all sides.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import facts, lines, say, write
from PIL import Image

from zoo.base.heap import keep_heap

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Epochs = Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor]]]


class Job(NamedTuple):
    """What every side is given."""

    folder: Path
    crop: int
    batch: int
    workers: int
    device: str


def write_images(folder: Path, count: int, size: tuple[int, int], classes: int = 20) -> None:
    """Photographs of nothing: smooth shapes with noise, about 110 kB each at ImageNet's average size."""
    noise, (width, height) = np.random.default_rng(0), size
    for number in range(count):
        path = folder / f"class{number % classes:02d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        small = Image.fromarray(noise.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(smooth + noise.normal(0, 14, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


# ---- the sides --------------------------------------------------------------------------------


def zoo_side(job: Job, stack: ExitStack) -> Epochs:
    """Ours."""
    from zoo.catalogue import augmentation
    from zoo.data.augment.pipeline import build, crop_bounds
    from zoo.data.batches.resident import generator, order
    from zoo.data.batches.stream import Streamed
    from zoo.data.files.decode import Rule
    from zoo.data.files.image_files import FileImages, list_folder
    from zoo.data.files.pool import Pool
    from zoo.data.split import Split

    size = (job.crop, job.crop)
    listing = list_folder(job.folder)
    pool = Pool(job.workers, Rule(size), size)
    stack.callback(pool.close)
    images = FileImages(listing.files, np.arange(len(listing.files)), pool.rule, size)
    steps = (augmentation.RandomResizedCrop(), augmentation.Flip())
    source = Streamed(Split(images, listing.labels, pool=pool), job.device, bounds=crop_bounds(steps, "reduced-torch"))
    change = build(steps[1:], MEAN, STD, size=size, num_classes=len(listing.classes), device=job.device)

    def epoch(number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rows = order(0, number, len(source))
        batches = rows[: len(rows) // job.batch * job.batch].view(-1, job.batch)
        for step, (chosen, pixels, labels) in enumerate(source.steps(batches, epoch=number)):
            yield change(pixels, labels, generator(0, number, step), indices=chosen, epoch=number)

    return epoch


def torchvision_side(job: Job, stack: ExitStack) -> Epochs:
    """ImageFolder, transforms v2 and torch's DataLoader."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    change = v2.Compose(
        [
            v2.RandomResizedCrop(job.crop),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    loader = torch.utils.data.DataLoader(
        ImageFolder(str(job.folder), change),
        batch_size=job.batch,
        shuffle=True,
        num_workers=job.workers,
        pin_memory=job.device.startswith("cuda"),
        persistent_workers=job.workers > 0,
        drop_last=True,
    )

    def epoch(number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in loader:
            yield images.to(job.device, non_blocking=True), labels.to(job.device, non_blocking=True)

    return epoch


def timm_side(job: Job, stack: ExitStack) -> Epochs:
    """timm's loader as its train.py sets it up."""
    from timm.data import create_dataset, create_loader

    on_gpu = job.device.startswith("cuda")
    loader = create_loader(
        create_dataset("", root=str(job.folder)),
        input_size=(3, job.crop, job.crop),
        batch_size=job.batch,
        is_training=True,
        color_jitter=0.0,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=job.workers,
        pin_memory=on_gpu,
        device=torch.device(job.device),
        use_prefetcher=on_gpu,
        persistent_workers=job.workers > 0,
    )

    def epoch(number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images, labels in loader:
            yield images.to(job.device), labels.to(job.device)

    return epoch


SIDES: tuple[tuple[str, Callable[[Job, ExitStack], Epochs]], ...] = (
    ("zoo", zoo_side),
    ("torchvision", torchvision_side),
    ("timm", timm_side),
)


# ---- measuring --------------------------------------------------------------------------------


def measure(make: Callable[[Job, ExitStack], Epochs], job: Job) -> dict[str, float]:
    """One side, once: seconds to its first batch, images per second of its second epoch."""
    with ExitStack() as stack:
        start = time.perf_counter()
        epoch = make(job, stack)
        first = 0.0
        for images, _ in epoch(0):
            if not first:
                checked(images, job)
                first = time.perf_counter() - start
        count, begin, used = -1, 0.0, cpu_seconds()
        for images, _ in epoch(1):
            _ready(images)
            begin = begin or time.perf_counter()
            count += 1
        return {
            "first_batch_seconds": first,
            "images_per_second": count * job.batch / (time.perf_counter() - begin),
            "cpu_milliseconds": (cpu_seconds() - used) / ((count + 1) * job.batch) * 1e3,
        }


def cpu_seconds() -> float:
    """CPU time of this process and of those that it started and that still run; of this one alone without /proc."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _ready(images: torch.Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def checked(images: torch.Tensor, job: Job) -> None:
    """Refuse to measure what is not the same work."""
    assert images.shape == (job.batch, 3, job.crop, job.crop), images.shape
    assert images.is_floating_point()
    assert images.device.type == torch.device(job.device).type
    assert abs(float(images.float().mean())) < 1.5  # normalised
    assert float(images.float().std()) > 0.3


def summary(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row for each side: median and range, and how many times ours is faster, by round."""
    rows = []
    rates = {name: [run["images_per_second"] for run in runs] for name, runs in found.items()}
    for name, own in rates.items():
        faster = [ours / theirs for ours, theirs in zip(rates["zoo"], own, strict=True)]
        row: dict[str, Any] = {
            "side": name,
            "images_per_second": statistics.median(own),
            "range": [min(own), max(own)],
            "first_batch_seconds": statistics.median(run["first_batch_seconds"] for run in found[name]),
            "cpu_milliseconds": statistics.median(run["cpu_milliseconds"] for run in found[name]),
            "runs": found[name],
        }
        rows.append(row | ({} if name == "zoo" else {"faster": statistics.median(faster), "faster_by_round": faster}))
    return rows


def cells(row: dict[str, Any]) -> list[str]:
    """One row of the table."""
    low, high = row["range"]
    faster = f"{row['faster']:.2f}" if "faster" in row else ""
    rate = f"{row['images_per_second']:,.0f}"
    return [
        row["side"],
        rate,
        f"{low:,.0f}..{high:,.0f}",
        faster,
        f"{row['cpu_milliseconds']:.2f}",
        f"{row['first_batch_seconds']:.1f}",
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=3000)
    options.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"))
    options.add_argument("--crop", type=int, default=224, help="side of what is delivered")
    options.add_argument("--batch-size", type=int, default=128)
    options.add_argument("--workers", type=int, default=os.cpu_count())
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--folder", type=Path, help="where the images are written, and found again")
    options.add_argument("--sides", nargs="+", default=[name for name, _ in SIDES])
    options.add_argument("--markdown", action="store_true")
    options.add_argument("--json", type=Path)
    return options.parse_args()


def main() -> None:
    """Write the images, measure by turns, print the table."""
    asked = parse()
    keep_heap()
    with tempfile.TemporaryDirectory(prefix="streaming-") as scratch:
        os.environ["ZOO_CACHE_DIR"] = f"{scratch}/cache"
        folder = asked.folder or Path(scratch, "images")
        say(f"{asked.images:,} images of {asked.size[0]}x{asked.size[1]} in {folder}")
        write_images(folder, asked.images, tuple(asked.size))
        before = facts()
        job = Job(folder, asked.crop, asked.batch_size, asked.workers, asked.device)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in asked.sides}
        for turn in range(asked.rounds):
            for name, make in (SIDES, SIDES[::-1])[turn % 2]:
                if name not in found:
                    continue
                found[name].append(measure(make, job))
                say(f"round {turn + 1}, {name}: {found[name][-1]['images_per_second']:,.0f} img/s")
        files = list(folder.rglob("*.jpg"))
        record = {
            **before,
            "device": torch.cuda.get_device_name() if asked.device.startswith("cuda") else "cpu",
            "images": len(files),
            "kilobytes": statistics.mean(path.stat().st_size for path in files) / 1e3,
            "job": {**job._asdict(), "folder": "generated", "size": list(asked.size), "rounds": asked.rounds},
            "sides": summary(found),
        }
    write(asked.json, record)
    titles = ("side", "img/s", "range", "ours / its", "CPU ms/img", "s to first batch")
    print("\n".join(lines(titles, [cells(row) for row in record["sides"]], markdown=asked.markdown)))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
