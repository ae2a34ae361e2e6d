"""Images per second that a loader delivers from shards: ours, webdataset's, and the streaming of `datasets`.

    python benchmarks/streaming_shards.py --images 1500 --json results/streaming_shards.json

It needs the packages webdataset and datasets. The images are those of benchmarks/streaming.py, written once as tar
shards and once as parquet shards. All sides have as many worker processes, shuffle by shards and by a buffer of as
many images, and deliver the same thing: float batches on the device, cut by RandomResizedCrop (bilinear), mirrored by
chance, normalised. Ours reads the tars (`wds:`) and the parquet files (`parquet:...?stream`); webdataset reads the
tars, decodes with Pillow, and transforms with torchvision's v2; `datasets` streams the parquet files
(`load_dataset(streaming=True)`) with the same transform. Rounds and figures are as in benchmarks/streaming.py: each
side by turns, an epoch unmeasured, then one measured. The ratio beside webdataset is that of `zoo-tars`, the one
beside `datasets` that of `zoo-parquet`, both in the same round.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from common import facts, lines, say, write
from streaming import MEAN, STD, Epochs, Job, measure, write_images

from zoo.base.heap import keep_heap

BUFFER = 500
SHARDS = 8


# ---- the shards -------------------------------------------------------------------------------


def write_tars(images: list[Path], folder: Path) -> None:
    """Shards in the layout of WebDataset; the label is a number."""
    for number in range(SHARDS):
        with tarfile.open(folder / f"train-{number:06d}.tar", "w") as tar:
            for path in images[number::SHARDS]:
                label = str(int(path.parent.name.removeprefix("class"))).encode()
                for ending, content in (("jpg", path.read_bytes()), ("cls", label)):
                    info = tarfile.TarInfo(f"{path.stem}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def write_parquet(images: list[Path], folder: Path) -> None:
    """Shards in the Hub's layout, 100 rows in a row group, as `datasets` writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(SHARDS):
        part = images[number::SHARDS]
        cells = [{"bytes": path.read_bytes(), "path": path.name} for path in part]
        labels = [int(path.parent.name.removeprefix("class")) for path in part]
        name = f"train-{number:05d}-of-{SHARDS:05d}.parquet"
        pq.write_table(pa.table({"image": cells, "label": labels}), folder / name, row_group_size=100)


# ---- the sides --------------------------------------------------------------------------------


def zoo_side(spec: str) -> Callable[[Job, ExitStack], Epochs]:
    """Ours."""

    def make(job: Job, stack: ExitStack) -> Epochs:
        from zoo.catalogue import augmentation
        from zoo.data.augment.pipeline import build, crop_bounds
        from zoo.data.batches.mode import Delivery
        from zoo.data.batches.open import open_source
        from zoo.data.batches.resident import generator
        from zoo.data.batches.sampler import split_order
        from zoo.data.load import load

        where = spec.format(folder=job.folder)
        data = load(where, image_size=job.crop, delivery=Delivery("stream", job.workers), whole=True)
        pool, size = data.train.pool, (job.crop, job.crop)
        assert pool is not None
        stack.callback(pool.close)
        steps = (augmentation.RandomResizedCrop(), augmentation.Flip())
        source = open_source(data.train, job.device, bounds=crop_bounds(steps, "reduced-torch"))
        change = build(steps[1:], MEAN, STD, size=size, num_classes=len(data.classes), device=job.device)

        def epoch(number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            rows = split_order("shuffled", 0, number, data.train)
            batches = rows[: len(rows) // job.batch * job.batch].view(-1, job.batch)
            for step, (chosen, pixels, labels) in enumerate(source.steps(batches, epoch=number)):
                yield change(pixels, labels, generator(0, number, step), indices=chosen, epoch=number)

        return epoch

    return make


def _transform(job: Job) -> Any:
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomResizedCrop(job.crop),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def _epochs(loader: Any, job: Job, begin: Callable[[int], None]) -> Epochs:
    def epoch(number: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        begin(number)
        for images, labels in loader:
            yield images.to(job.device, non_blocking=True), labels.to(job.device, non_blocking=True)

    return epoch


def webdataset_side(job: Job, stack: ExitStack) -> Epochs:
    """webdataset as its documentation sets it up."""
    import webdataset

    shards = sorted(map(str, (job.folder / "tars").glob("*.tar")))
    change = _transform(job)
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
        .shuffle(BUFFER)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(change, int)
    )
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=job.batch,
        num_workers=job.workers,
        pin_memory=job.device.startswith("cuda"),
        persistent_workers=job.workers > 0,
        drop_last=True,
    )
    return _epochs(loader, job, lambda number: None)


def datasets_side(job: Job, stack: ExitStack) -> Epochs:
    """The streaming of `datasets` as its documentation sets it up."""
    import datasets

    files = sorted(map(str, (job.folder / "parquet").glob("*.parquet")))
    change = _transform(job)
    found = datasets.load_dataset("parquet", data_files={"train": files}, split="train", streaming=True)
    found = found.cast_column("image", datasets.Image()).shuffle(seed=0, buffer_size=BUFFER)
    loader = torch.utils.data.DataLoader(
        found.map(lambda row: {"image": change(row["image"].convert("RGB")), "label": row["label"]}),
        batch_size=job.batch,
        num_workers=job.workers,
        pin_memory=job.device.startswith("cuda"),
        persistent_workers=False,  # `set_epoch` reaches new workers only
        drop_last=True,
        collate_fn=_pairs,
    )
    return _epochs(loader, job, found.set_epoch)


def _pairs(rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.stack([row["image"] for row in rows]), torch.tensor([row["label"] for row in rows])


SIDES: tuple[tuple[str, Callable[[Job, ExitStack], Epochs]], ...] = (
    ("zoo-tars", zoo_side(f"wds:{{folder}}/tars?stream&buffer={BUFFER}")),
    ("webdataset", webdataset_side),
    ("zoo-parquet", zoo_side(f"parquet:{{folder}}/parquet?stream&buffer={BUFFER}")),
    ("datasets", datasets_side),
)
BESIDE = (("zoo-tars", "webdataset"), ("zoo-parquet", "datasets"))


# ---- measuring --------------------------------------------------------------------------------


def summary(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row for each side: median and range; of each of the others how many times ours is faster, by round."""
    rates = {name: [run["images_per_second"] for run in runs] for name, runs in found.items()}
    rows = []
    for name, its in rates.items():
        row: dict[str, Any] = {
            "side": name,
            "images_per_second": statistics.median(its),
            "range": [min(its), max(its)],
            "first_batch_seconds": statistics.median(run["first_batch_seconds"] for run in found[name]),
            "runs": found[name],
        }
        for ours, theirs in BESIDE:
            if name == theirs and ours in rates:
                faster = [one / other for one, other in zip(rates[ours], its, strict=True)]
                row |= {"beside": ours, "faster": statistics.median(faster), "faster_by_round": faster}
        rows.append(row)
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=3000)
    options.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"))
    options.add_argument("--crop", type=int, default=224, help="side of what is delivered")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--workers", type=int, default=os.cpu_count())
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--sides", nargs="+", default=[name for name, _ in SIDES])
    options.add_argument("--json", type=Path)
    return options.parse_args()


def main() -> None:
    """Write the shards, measure by turns, print the table."""
    asked = parse()
    keep_heap()
    with tempfile.TemporaryDirectory(prefix="shards-") as scratch:
        os.environ |= {"ZOO_CACHE_DIR": f"{scratch}/cache", "HF_HOME": f"{scratch}/hf", "HF_HUB_OFFLINE": "1"}
        folder = Path(scratch)
        say(f"{asked.images:,} images of {asked.size[0]}x{asked.size[1]} in {SHARDS} shards")
        write_images(folder / "images", asked.images, tuple(asked.size))
        images = sorted((folder / "images").rglob("*.jpg"), key=lambda path: path.name)
        for name, make in (("tars", write_tars), ("parquet", write_parquet)):
            (folder / name).mkdir()
            make(images, folder / name)
        before = facts()
        job = Job(folder, asked.crop, asked.batch_size, asked.workers, asked.device)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in asked.sides}
        for turn in range(asked.rounds):
            for name, side in (SIDES, SIDES[::-1])[turn % 2]:
                if name in found:
                    found[name].append(measure(side, job))
                    say(f"round {turn + 1}, {name}: {found[name][-1]['images_per_second']:,.1f} img/s")
        record = {
            **before,
            "device": torch.cuda.get_device_name() if asked.device.startswith("cuda") else "cpu",
            "images": len(images),
            "kilobytes": statistics.mean(path.stat().st_size for path in images) / 1e3,
            "job": {**job._asdict(), "folder": "generated", "size": list(asked.size), "rounds": asked.rounds},
            "shards": {"count": SHARDS, "buffer": BUFFER},
            "load_after": [round(x, 2) for x in os.getloadavg()],
            "sides": summary(found),
        }
    record["versions"] |= {name: _version(name) for name in ("webdataset", "datasets", "pyarrow")}
    write(asked.json, record)
    titles = ("side", "img/s", "range", "ours / its", "s to first batch")
    print("\n".join(lines(titles, [_cells(row) for row in record["sides"]])))
    sys.stdout.flush()


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["range"]
    faster = f"{row['faster']:.2f}" if "faster" in row else ""
    rate = f"{row['images_per_second']:,.0f}"
    return [row["side"], rate, f"{low:,.0f}..{high:,.0f}", faster, f"{row['first_batch_seconds']:.1f}"]


if __name__ == "__main__":
    main()
