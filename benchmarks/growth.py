"""Time and memory against what there is more and more of: images, classes, models, runs, plugins, pixels, processes.

    python benchmarks/growth.py [--only AXIS ...] [--quick] [--json results/growth.json]

Each axis builds its inputs in a temporary folder, by generated data alone, and runs real commands in fresh processes:

- `images`: the index of a folder of image files, by `index_files.py`: made, and found again.
- `classes`: `zoo train` of cnn-baseline for one epoch of as many images at each size, `zoo eval`, `zoo report`.
- `models`: `zoo list` with so many models in the user's registry.toml: the first time, and again.
- `plugins`: `zoo list` with so many installed plugins: the first time, and again.
- `runs`: `zoo runs` of so many runs (each with its own seed and learning rate): the first time, and again. `zoo report
  --no-data` of them, up to a thousand.
- `pixels`: `zoo train` of cnn-baseline for one epoch of as many images, by the pixels of an image: 8x8 to 512x512.
- `processes`: `zoo train --gpus N --device cpu` of as many images.

Seconds are of the CPU, user and system, of the command and its children, which a busy machine lengthens less than those
of the clock. Memory is the largest resident size of one process. `exponent` is the slope between the two largest sizes,
in logarithms, of what is above the smallest size: 1 is linear, 0 is constant; there is none where that is below a tenth
of a second, or 10 MB.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import ROOT, facts, lines, say, write
from index_files import measured, write_files
from list_startup import CATALOGUE, PLUGIN
from PIL import Image

Row = dict[str, Any]
LEAST = {"cpu_seconds": 0.1, "peak_megabytes": 10.0, "output_megabytes": 0.1}
"""What is measured, and from where on its growth is told from the noise."""

MEASURED = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run([sys.executable, "-m", "zoo", *sys.argv[1:]], stdout=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
                  "seconds": round(time.perf_counter() - start, 3),
                  "peak_megabytes": round(used.ru_maxrss * 1024 / 1e6, 1)}))
"""
"""Runs a command from a small process: a child's largest size begins with that of the process that starts it."""

SIZES = {  # the whole benchmark, and --quick
    "images": ((1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000, 50_000)),
    "classes": ((10, 1_000, 10_000), (10, 100, 1_000)),
    "models": ((50, 500, 5_000), (50, 200, 1_000)),
    "plugins": ((0, 20, 200), (0, 10, 40)),
    "runs": ((10, 100, 1_000, 10_000), (10, 100, 1_000)),
    "pixels": ((8**2, 128**2, 512**2), (8**2, 32**2, 128**2)),
    "processes": ((1, 2, 4), (1, 2)),
}


def command(*words: str, folder: Path, **environment: str) -> Row:
    """One command of `zoo` in a fresh process, with caches and configuration below the folder."""
    homes = {f"ZOO_{name}_DIR": str(folder / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
    path = os.pathsep.join(filter(None, (environment.pop("site", ""), str(ROOT), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words],
        cwd=folder,
        env={**os.environ, **homes, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"zoo {' '.join(words)}: {done.stderr[-2000:]}")
    found: Row = json.loads(done.stdout)
    return found


def images(size: int, folder: Path) -> Iterator[Row]:
    classes = 10 if size < 100_000 else 100
    write_files(folder / "images", classes, size // classes)
    for way in ("folder", "again"):
        found = measured(way, folder / "images", str(folder / "cache"))
        yield {"what": f"index: {way}"} | {key: found[key] for key in ("cpu_seconds", "seconds", "peak_megabytes")}


def classes(size: int, folder: Path, count: int) -> Iterator[Row]:
    write_table(folder / "images.parquet", count, size, 8)
    train = ("--dataset", "parquet:images.parquet", "--epochs", "1", "--device", "cpu", "-q", "--output", "run")
    yield {"what": "zoo train"} | command("train", "cnn-baseline", *train, folder=folder) | output(folder / "run")
    yield {"what": "zoo eval"} | command("eval", "run", folder=folder)
    words = ("report", "run", "--catalogue", "none", "-q")
    yield {"what": "zoo report"} | command(*words, folder=folder) | output(folder / "report.html")


def models(size: int, folder: Path) -> Iterator[Row]:
    (folder / "config").mkdir()
    text = "".join(f"[models.own-{number:05}]\n{MODEL}\n" for number in range(size))
    (folder / "config" / "registry.toml").write_text(text)
    yield from listed(folder)


def plugins(size: int, folder: Path) -> Iterator[Row]:
    for number in range(size):
        name = f"grown{number:03}"
        package, info = folder / "site" / f"zoo_{name}", folder / "site" / f"zoo_{name}-1.0.dist-info"
        package.mkdir(parents=True)
        info.mkdir()
        (package / "__init__.py").write_text(PLUGIN.replace("{module}", f"zoo_{name}"))
        (package / "parts.py").write_text("def part(*, channels, height, width):\n    raise NotImplementedError\n")
        (package / "registry.toml").write_text(CATALOGUE.format(name=name))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: zoo-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[zoo]\n{name} = zoo_{name}\n")
    yield from listed(folder)


def listed(folder: Path) -> Iterator[Row]:
    """`zoo list`: its index is made, then found."""
    for what in ("zoo list", "zoo list, again"):
        yield {"what": what} | command("list", folder=folder, site=str(folder / "site"))


def runs(size: int, folder: Path) -> Iterator[Row]:
    sources = [path for path in sorted((ROOT / "weights").iterdir()) if (path / "run.toml").is_file()]
    files = [{name: (path / name).read_text() for name in RUN_FILES} for path in sources]
    for number in range(size):
        run = folder / "runs" / f"run-{number:05}"
        run.mkdir(parents=True)
        for name, text in files[number % len(files)].items():
            if name == "run.toml":
                text = re.sub(r"(?m)^seed = .*", f"seed = {number}", text)
                text = re.sub(r"(?m)^lr = .*", f"lr = {1e-4 + number * 1e-8:.9f}", text, count=1)
            (run / name).write_text(text)
    for what in ("zoo runs", "zoo runs, again"):
        yield {"what": what} | command("runs", folder=folder)
    if size <= 1_000:
        words = ("report", "--no-data", "--catalogue", "none", "-q")
        yield {"what": "zoo report"} | command(*words, folder=folder) | output(folder / "report.html")


MODEL = """summary = "one of many"
family = "cnn"
recipe = "cnn-to-others"
build = { use = "hybrid.classifier", body = { use = "cnn.residual" }, head = { use = "hybrid.pool" } }
"""
RUN_FILES = ("run.toml", "result.json", "metrics.jsonl")


def pixels(size: int, folder: Path, count: int) -> Iterator[Row]:
    write_table(folder / "images.parquet", count, 2, math.isqrt(size))
    train = ("--dataset", "parquet:images.parquet", "--epochs", "1", "--batch-size", "16", "--device", "cpu", "-q")
    yield {"what": "zoo train"} | command("train", "cnn-baseline", *train, folder=folder)


def processes(size: int, folder: Path, count: int) -> Iterator[Row]:
    write_table(folder / "images.parquet", count, 10, 32)
    several = ("--gpus", str(size)) if size > 1 else ()
    train = ("--dataset", "parquet:images.parquet", "--epochs", "1", "--batch-size", "64", "--device", "cpu", "-q")
    yield {"what": "zoo train"} | command("train", "cnn-baseline", *train, *several, folder=folder)


def write_table(path: Path, count: int, classes: int, size: int) -> None:
    """PNG images of noise, in turn of each class, as a parquet file."""
    import numpy as np  # here: a child's largest size begins with that of this process
    import pyarrow as pa
    import pyarrow.parquet as pq

    noise = np.random.default_rng(0)

    def png() -> bytes:
        file = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (size, size, 3), np.uint8)).save(file, "PNG", compress_level=1)
        return file.getvalue()

    rows = [{"bytes": png(), "path": f"{number}.png"} for number in range(count)]
    labels = [f"class {number % classes:05}" for number in range(count)]
    pq.write_table(pa.table({"image": rows, "label": labels}), path)


def output(path: Path) -> Row:
    """Size of what was written: a file, or what a run folder says."""
    files = [path] if path.is_file() else [path / name for name in RUN_FILES]
    return {"output_megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 3)}


def exponent(points: list[tuple[int, float]], least: float) -> float | None:
    """The slope of what is above the first point, between the last two; None where that is noise."""
    (first, base), *others = points
    above = [(size - first, value - base) for size, value in others][-2:]
    if len(above) < 2 or min(value for _, value in above) < least:
        return None
    (small, low), (large, high) = above
    return round(math.log(high / low) / math.log(large / small), 2)


def grown(axis: str, rows: list[Row]) -> list[Row]:
    """For each thing that was measured on an axis, the exponents of its growth."""
    found = []
    for what in dict.fromkeys(row["what"] for row in rows):
        of_it = [row for row in rows if row["what"] == what]
        points = {key: [(row["size"], row[key]) for row in of_it if key in row] for key in LEAST}
        slopes = {key: exponent(points[key], least) if points[key] else None for key, least in LEAST.items()}
        found.append({"axis": axis, "what": what, **{f"exponent_of_{key}": slope for key, slope in slopes.items()}})
    return found


def main() -> None:
    """Measure the axes, and print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", nargs="+", choices=tuple(SIZES), default=list(SIZES), metavar="AXIS")
    options.add_argument("--quick", action="store_true", help="smaller sizes: about a minute of CPU for all")
    options.add_argument("--note", default="", help="what else the record should say")
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    count = 2_000 if asked.quick else 20_000
    ways: dict[str, Callable[[int, Path], Iterator[Row]]] = {
        "images": images,
        "classes": lambda size, folder: classes(size, folder, count),
        "models": models,
        "plugins": plugins,
        "runs": runs,
        "pixels": lambda size, folder: pixels(size, folder, 128),
        "processes": lambda size, folder: processes(size, folder, count // 5),
    }
    before, rows, slopes = facts(), list[Row](), list[Row]()
    for axis in (axis for axis in SIZES if axis in asked.only):  # images first: until then this process is small
        for size in SIZES[axis][asked.quick]:
            with tempfile.TemporaryDirectory(prefix="growth-") as folder:
                for row in ways[axis](size, Path(folder).resolve()):
                    rows.append({"axis": axis, "size": size, **row})
                    say(f"{axis} {size:,}: {row['what']}: {row['cpu_seconds']:.1f} s, {row['peak_megabytes']:.0f} MB")
        slopes += grown(axis, [row for row in rows if row["axis"] == axis])
        write(asked.json, {**before, "device": "cpu", "note": asked.note, "rows": rows, "growth": slopes})
    show(rows, slopes)


def show(rows: list[Row], slopes: list[Row]) -> None:
    """Each measurement; in the line of the largest size, the exponents."""
    last = {(row["axis"], row["what"]): row["size"] for row in rows}
    by = {(slope["axis"], slope["what"]): slope for slope in slopes}
    cells = []
    for row in sorted(rows, key=lambda row: list(by).index((row["axis"], row["what"]))):
        thing = row["axis"], row["what"]
        told = []
        for key in LEAST:
            slope = by[thing][f"exponent_of_{key}"] if row["size"] == last[thing] else None
            told += [f"{row[key]:.2f}" if key in row else "", "" if slope is None else f"{slope:.2f}"]
        cells.append([*thing, f"{row['size']:,}", *told])
    titles = ("axis", "what", "size", "CPU s", "exp.", "peak MB", "exp.", "output MB", "exp.")
    print("\n".join(lines(titles, cells, markdown=True)))


if __name__ == "__main__":
    main()
