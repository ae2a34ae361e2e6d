"""How long `zoo list` takes beside what importing click, rich, pluggy and msgspec alone costs.

The commands run by turns in fresh processes, after one unmeasured run of each (warm files, fresh index,
and bytecode of everything in a folder of the benchmark's own, as an installation has it; `--no-bytecode`
measures with every module compiled anew in each process, as PYTHONDONTWRITEBYTECODE has it in a checkout).
CPU time (user + system of the child) is steadier than wall time on a busy machine; both are shown as
medians. `--peer` adds a few runs of `timm.list_models()`.

    python benchmarks/list_startup.py [--runs 30] [--peer] [--no-bytecode] [--json results/list_startup.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

IMPORTS = "import click, rich, pluggy, msgspec"
ZOO = "import sys; sys.argv = ['zoo', 'list']; from zoo.cli import main; main()"
PEER = "import timm; timm.list_models()"
GOAL = 1.15


@dataclass(frozen=True)
class Timing:
    """One run of a command, in milliseconds."""

    wall: float
    cpu: float


def run_once(code: str, environment: dict[str, str]) -> Timing:
    """Run Python code in a fresh process; its CPU time is that of the child alone."""
    start = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, **quiet)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode}: python -c {code!r}")
    return Timing(wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3)


def measure(commands: dict[str, str], runs: int, environment: dict[str, str]) -> dict[str, list[Timing]]:
    """Run every command once unmeasured, then `runs` times, by turns."""
    for code in commands.values():
        run_once(code, environment)
    timings: dict[str, list[Timing]] = {name: [] for name in commands}
    for turn in range(runs):
        order = list(commands.items())
        for name, code in order if turn % 2 else reversed(order):
            timings[name].append(run_once(code, environment))
    return timings


def environment_of(folder: str, *, bytecode: bool) -> dict[str, str]:
    """Caches of the benchmark's own in `folder`; nothing of the user's is read or written."""
    own = {f"XDG_{name}_HOME": f"{folder}/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
    own |= {"HOME": folder, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    switch = "PYTHONDONTWRITEBYTECODE"
    kept = {k: v for k, v in os.environ.items() if k != switch and not k.startswith("ZOO_")}
    return kept | own | ({} if bytecode else {switch: "1"})


def summary(timings: dict[str, list[Timing]], base: str) -> list[dict[str, object]]:
    """Medians of each command, and the ratio of medians to those of `base`."""
    medians = {
        name: (statistics.median(t.wall for t in runs), statistics.median(t.cpu for t in runs))
        for name, runs in timings.items()
    }
    return [
        {
            "command": name,
            "runs": len(timings[name]),
            "wall_ms": round(wall, 1),
            "cpu_ms": round(cpu, 1),
            "wall_ratio": round(wall / medians[base][0], 3),
            "cpu_ratio": round(cpu / medians[base][1], 3),
        }
        for name, (wall, cpu) in medians.items()
    ]


def main() -> None:
    """Measure, print one table, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--peer", action="store_true", help="also timm.list_models(), 3 runs")
    parser.add_argument("--no-bytecode", action="store_true", help="compile every module in every process")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_of(folder, bytecode=not options.no_bytecode)
        timings = measure({"imports alone": IMPORTS, "zoo list": ZOO}, options.runs, environment)
        if options.peer:
            timings |= measure({"timm.list_models()": PEER}, 3, environment)
    rows = summary(timings, "imports alone")
    print(f"{'command':<20}{'runs':>6}{'wall ms':>10}{'cpu ms':>10}{'wall x':>9}{'cpu x':>8}")
    for row in rows:
        print("{command:<20}{runs:>6}{wall_ms:>10}{cpu_ms:>10}{wall_ratio:>9}{cpu_ratio:>8}".format(**row))
    print(f"goal: zoo list at most {GOAL} x the imports alone", file=sys.stderr)
    if options.json:
        machine = {"python": platform.python_version(), "system": platform.system(), "cpus": os.cpu_count()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"goal": GOAL, "machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
