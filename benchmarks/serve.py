"""How many predictions a second `zoo serve` answers, and how long each takes: wrk against 127.0.0.1.

    python benchmarks/serve.py [--run RUN] [--rounds 5] [--seconds 8] [--connections 1,16] [--json results/serve.json]

Without --run, hybrid-alt-1 is trained on digits for one epoch first: what it answers does not matter here. Each
round sends one 8x8 PNG again and again to POST /predict, over kept connections, for some seconds; the medians over
the rounds are the numbers. `wrk` computes on the same CPUs as the server.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import facts, lines, say, write
from PIL import Image

SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "image/png"
local file = io.open("{image}", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency)
  local failed = summary.errors
  io.write(string.format("requests %d seconds %f p50 %f p99 %f failed %d\\n", summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    failed.connect + failed.read + failed.write + failed.status + failed.timeout))
end
"""
GOAL = 50
"""Requests a second on 2 CPUs, hybrid-alt-1 at the size of digits."""


def trained(folder: Path) -> Path:
    """A run of hybrid-alt-1 on digits, as quick as can be."""
    words = ["train", "hybrid-alt-1", "--dataset", "digits", "--epochs", "1", "--max-steps", "2"]
    command = [sys.executable, "-m", "zoo", *words, "--device", "cpu", "--output", str(folder / "run"), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "run"


@contextmanager
def serving(run: str) -> Iterator[str]:
    """The server as a process of its own, and its address; asked to stop at the end."""
    command = [sys.executable, "-m", "zoo", "serve", run, "--port", "0", "--rate", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit("the server did not start")
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def load(url: str, script: Path, connections: int, seconds: int) -> dict[str, float]:
    """One round of wrk."""
    words = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s", "-s", str(script)]
    done = subprocess.run([*words, f"{url}predict"], capture_output=True, text=True, check=True, timeout=seconds + 60)
    found = re.search(r"requests (\d+) seconds (\S+) p50 (\S+) p99 (\S+) failed (\d+)", done.stdout)
    if not found:
        raise SystemExit(f"wrk said nothing that is understood: {done.stdout}{done.stderr}")
    requests, took, p50, p99, failed = map(float, found.groups())
    return {"requests_per_second": requests / took, "p50_ms": p50, "p99_ms": p99, "failed": failed}


def measure(url: str, script: Path, connections: int, rounds: int, seconds: int) -> dict[str, Any]:
    """Rounds with so many connections, and their medians."""
    load(url, script, connections, 2)  # the first batches of a size are slower
    found = [load(url, script, connections, seconds) for _ in range(rounds)]
    row: dict[str, Any] = {"connections": connections, "rounds": rounds, "seconds": seconds}
    for key in ("requests_per_second", "p50_ms", "p99_ms"):
        row[key] = round(statistics.median(one[key] for one in found), 2)
    row["failed"] = int(sum(one["failed"] for one in found))
    row["each_requests_per_second"] = [round(one["requests_per_second"], 2) for one in found]
    say(f"{connections} connections: {row['requests_per_second']} requests/s, p99 {row['p99_ms']} ms")
    return row


def parsed() -> argparse.Namespace:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--run", help="a run folder, package or hf://OWNER/NAME")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=8)
    options.add_argument("--connections", default="1,16", help="numbers of connections, with commas between")
    options.add_argument("--json", type=Path)
    return options.parse_args()


def main() -> None:
    """The command line."""
    chosen = parsed()
    if not shutil.which("wrk"):
        raise SystemExit("needs wrk (github.com/wg/wrk; Debian: apt install wrk)")
    record: dict[str, Any] = {"machine": facts(), "goal_requests_per_second": GOAL}
    with tempfile.TemporaryDirectory() as base:
        run = chosen.run or str(trained(Path(base)))
        file = io.BytesIO()
        Image.radial_gradient("L").resize((8, 8)).save(file, "PNG")
        (Path(base) / "image.png").write_bytes(file.getvalue())
        script = Path(base) / "post.lua"
        script.write_text(SCRIPT.format(image=Path(base) / "image.png"))
        with serving(run) as url:
            record["rows"] = [
                measure(url, script, int(n), chosen.rounds, chosen.seconds) for n in chosen.connections.split(",")
            ]
    record["machine"]["load_after"] = [round(x, 2) for x in os.getloadavg()]
    record["holds"] = max(row["requests_per_second"] for row in record["rows"]) >= GOAL
    rows = [
        [row["connections"], row["requests_per_second"], row["p50_ms"], row["p99_ms"], row["failed"]]
        for row in record["rows"]
    ]
    print("\n".join(lines(["connections", "requests/s", "p50 ms", "p99 ms", "failed"], rows, left=0)))
    write(chosen.json, record)
    sys.exit(0 if record["holds"] else 1)


if __name__ == "__main__":
    main()
