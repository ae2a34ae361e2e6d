"""How long `zoo list` takes: beside importing its libraries alone, with many plugins, and beside timm.

The commands run by turns in fresh processes, after one unmeasured run of each (warm files, fresh index,
and bytecode of everything in a folder of the benchmark's own, as an installation has it; `--no-bytecode`
measures with every module compiled anew in each process, as PYTHONDONTWRITEBYTECODE has it in a checkout).
CPU time (user + system of the child) is steadier than wall time on a busy machine; both are shown as
medians, and the load of the machine is recorded.

`--plugins N` installs N plugins (one component, one model, one recipe each) by pip into a folder, and
measures `zoo list` with them too, and the first listing after they changed (the index is made afresh).
`--peer` adds `timm.list_models()`, by turns with the others.

    python benchmarks/list_startup.py [--runs 30] [--plugins 100] [--peer] [--no-bytecode] [--json FILE]
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

IMPORTS = "import click, rich, pluggy, msgspec"
ZOO = "import sys; sys.argv = ['zoo', 'list']; from zoo.cli import main; main()"
PEER = "import timm; timm.list_models()"
GOAL = 1.15
MANY_GOAL = 1.5
ROOT = Path(__file__).resolve().parent.parent
PLUGIN = """from pathlib import Path

from zoo.plugin.hooks import hookimpl
from zoo.plugin import Component


@hookimpl
def zoo_components():
    return [Component(name="part", kind="part", factory="{module}.parts:part", summary="a part")]


@hookimpl
def zoo_registry():
    return Path(__file__).parent / "registry.toml"
"""
CATALOGUE = """[models.{name}-tiny]
summary = "the small model of {name}"
family = "cnn"
recipe = "{name}-quick"
dataset = "digits"
build = {{ use = "hybrid.classifier", body = {{ use = "{name}.part" }}, head = {{ use = "hybrid.pool" }} }}

[recipes.{name}-quick]
summary = "AdamW on a cosine"
epochs = 10
optimizer = "adamw"
schedule = "cosine"
"""


@dataclass(frozen=True)
class Command:
    """Python code, and a folder with plugins that its process sees."""

    code: str
    site: str = ""


@dataclass(frozen=True)
class Timing:
    """One run of a command, in milliseconds."""

    wall: float
    cpu: float


def run_once(command: Command, environment: dict[str, str]) -> Timing:
    """Run Python code in a fresh process; its CPU time is that of the child alone."""
    code = command.code
    paths = [p for p in (command.site, environment.get("PYTHONPATH", "")) if p]
    environment = environment | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})
    start = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, **quiet)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode}: python -c {code!r}")
    return Timing(wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3)


def measure(commands: dict[str, Command], runs: int, environment: dict[str, str]) -> dict[str, list[Timing]]:
    """Run every command once unmeasured, then `runs` times, by turns."""
    for command in commands.values():
        run_once(command, environment)
    timings: dict[str, list[Timing]] = {name: [] for name in commands}
    for turn in range(runs):
        order = list(commands.items())
        for name, command in order if turn % 2 else reversed(order):
            timings[name].append(run_once(command, environment))
    return timings


def install_plugins(folder: Path, count: int) -> str:
    """Install this many plugins by pip; the folder that they are in."""
    sys.path.insert(0, str(ROOT / "tests"))
    from plugin_site import PART, pip_target, write_wheel

    wheels = []
    for i in range(count):
        name, module = f"many{i:03d}", f"zoo_many{i:03d}"
        files = {
            f"{module}/__init__.py": PLUGIN.format(module=module),
            f"{module}/parts.py": PART,
            f"{module}/registry.toml": CATALOGUE.format(name=name),
        }
        wheels.append(write_wheel(folder / "wheels", name, files))
    pip_target(folder / "site", wheels)
    return str(folder / "site")


def first_listings(site: str, runs: int, environment: dict[str, str]) -> list[Timing]:
    """`zoo list` with an index that is not fresh: every plugin is imported."""
    found = []
    for _ in range(runs):
        os.utime(next(Path(site).glob("*.dist-info")))
        found.append(run_once(Command(ZOO, site), environment))
    return found


def environment_of(folder: str, *, bytecode: bool) -> dict[str, str]:
    """Caches of the benchmark's own in `folder`; nothing of the user's is read or written."""
    own = {f"XDG_{name}_HOME": f"{folder}/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
    own |= {"HOME": folder, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    switch = "PYTHONDONTWRITEBYTECODE"
    kept = {k: v for k, v in os.environ.items() if k != switch and not k.startswith("ZOO_")}
    return kept | own | ({} if bytecode else {switch: "1"})


def summary(timings: dict[str, list[Timing]], base: str) -> list[dict[str, Any]]:
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


def facts(load_before: tuple[float, ...]) -> dict[str, object]:
    """The machine, the versions and the commit behind the numbers."""
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    names = ("hybrid-zoo", "click", "rich", "pluggy", "msgspec", "timm", "torch")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load_before": [round(x, 2) for x in load_before],
        "load_after": [round(x, 2) for x in os.getloadavg()],
        "versions": {name: version(name) for name in names},
    }


def main() -> None:
    """Measure, print one table, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--plugins", type=int, default=0, metavar="N", help="also with N plugins installed")
    parser.add_argument("--peer", action="store_true", help="also timm.list_models()")
    parser.add_argument("--peer-runs", type=int, default=5)
    parser.add_argument("--no-bytecode", action="store_true", help="compile every module in every process")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_of(folder, bytecode=not options.no_bytecode)
        commands = {"imports alone": Command(IMPORTS), "zoo list": Command(ZOO)}
        many = f"zoo list, {options.plugins} plugins"
        if options.plugins:
            site = install_plugins(Path(folder), options.plugins)
            commands[many] = Command(ZOO, site)
        timings = measure(commands, options.runs, environment)
        if options.plugins:
            timings[f"{many}, first"] = first_listings(site, 5, environment)
        if options.peer:
            peers = {"timm.list_models()": Command(PEER), "zoo list (by turns)": Command(ZOO)}
            timings |= measure(peers, options.peer_runs, environment)
    rows = summary(timings, "imports alone")
    print(f"{'command':<30}{'runs':>6}{'wall ms':>10}{'cpu ms':>10}{'wall x':>9}{'cpu x':>8}")
    for row in rows:
        print("{command:<30}{runs:>6}{wall_ms:>10}{cpu_ms:>10}{wall_ratio:>9}{cpu_ratio:>8}".format(**row))
    goals: dict[str, float] = {"zoo list / imports alone": GOAL}
    if options.plugins:
        goals[f"{many} / zoo list"] = MANY_GOAL
        with_many, without = (next(r for r in rows if r["command"] == n) for n in (many, "zoo list"))
        ratio = with_many["cpu_ms"] / without["cpu_ms"]
        print(f"{many}: {ratio:.3f} x the CPU time of none; goal: {MANY_GOAL}", file=sys.stderr)
    print(f"goal: zoo list at most {GOAL} x the imports alone", file=sys.stderr)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        record = {"goals": goals, "machine": facts(load), "rows": rows}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
