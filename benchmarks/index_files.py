"""Seconds and memory of listing a folder, or a table, of a million small image files.

    python benchmarks/index_files.py --json results/index_files.json

A folder of class folders is generated in a temporary folder: 100 classes of 10,000 PNG files (one pixel each), and a
table, `rows.csv`, that names all of them. The files of a class are links to one file, to save time. Then, each in a new
process that does not import torch:

- `folder`: `list_folder`, without a kept index. `again`: the same with the index that the first one kept.
- `start`: the dataset of `folder:` streamed, from the kept index, up to its splits: what a run does before its first
  batch. The first time it looks at the first bytes of each file, since PNG files may have more than 8 bits; `start
  again` finds what was seen then. `table`: the same as `start` for `csv:rows.csv`.

Memory is the largest resident size of the process (peak), and what is beyond its size after the imports (above).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, facts, lines, say, write
from PIL import Image

WAYS = ("folder", "again", "start", "start again", "table")

MEASURED = """
import json, os, resource, sys, time
from pathlib import Path
way, folder = sys.argv[1], Path(sys.argv[2])
if way.startswith("start"):
    from zoo.data.batches.mode import Delivery
    from zoo.data.load import load
    def call():
        data = load(f"folder:{folder}", image_size=32, delivery=Delivery("stream", 1))
        return len(data.train) + len(data.test)
elif way == "table":
    from zoo.data.batches.mode import Delivery
    from zoo.data.load import load
    def call():
        data = load(f"csv:{folder.parent}/rows.csv", image_size=32, delivery=Delivery("stream", 1))
        return len(data.train) + len(data.test)
else:
    from zoo.data.files.image_files import list_folder
    def call():
        return len(list_folder(folder).files)
now = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before, begin, cpu = now(), time.perf_counter(), time.process_time()
count = call()
taken = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
print(json.dumps({"files": count, "seconds": taken, "cpu_seconds": time.process_time() - cpu,
                  "peak_megabytes": peak, "above_megabytes": peak - before, "torch": "torch" in sys.modules}))
"""


def write_files(folder: Path, classes: int, each: int) -> None:
    """Class folders of PNG files of one pixel, and the table; the files of a class are links to one, to save time."""
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    with Path(folder.parent, "rows.csv").open("w") as table:
        table.write("image,label\n")
        for label in range(classes):
            place = folder / f"class{label:03}"
            place.mkdir(parents=True)
            first = place / f"{0:06}.png"
            first.write_bytes(pixel.getvalue())
            for number in range(each):
                if number:
                    os.link(first, place / f"{number:06}.png")
                table.write(f"{folder.name}/{place.name}/{number:06}.png,{place.name}\n")
            os.utime(place, (time.time() - 3600,) * 2)  # an index of a folder that has just changed is not kept
    os.utime(folder, (time.time() - 3600,) * 2)


def measured(way: str, folder: Path, cache: str) -> dict[str, Any]:
    """One way, in a process of its own."""
    words = [sys.executable, "-c", MEASURED, way, str(folder)]
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env={**os.environ, "ZOO_CACHE_DIR": cache}, cwd=ROOT
    )
    found: dict[str, Any] = json.loads(done.stdout)
    say(f"{way}: {found['seconds']:.1f} s ({found['cpu_seconds']:.1f} of CPU), {found['peak_megabytes']:.0f} MB")
    return {"way": way, **found}


def main() -> None:
    """Write the files, list them, print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--classes", type=int, default=100)
    options.add_argument("--each", type=int, default=10_000, help="files of each class, at most 60,000")
    options.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    options.add_argument("--folder", type=Path, help="where the files are written, and found again")
    options.add_argument("--json", type=Path)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="index-") as scratch:
        folder = (asked.folder or Path(scratch)).resolve() / "images"
        if not folder.exists():
            write_files(folder, asked.classes, asked.each)
        before = facts()
        rows = [measured(way, folder, f"{scratch}/cache") for way in asked.ways]
    write(asked.json, {**before, "device": "cpu", "classes": asked.classes, "each": asked.each, "ways": rows})
    keys = ("way", "seconds", "cpu_seconds", "peak_megabytes", "above_megabytes")
    cells = [[row["way"], *(f"{row[key]:.1f}" for key in keys[1:])] for row in rows]
    print("\n".join(lines(("way", "s", "CPU s", "peak MB", "above MB"), cells, markdown=True, left=1)))


if __name__ == "__main__":
    main()
