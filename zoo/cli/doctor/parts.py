"""Checks of plugins, datasets and run folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any, Final

from zoo.base.files import TEMPORARY
from zoo.base.paths import cache_dir, data_dir, local_path
from zoo.base.text import plural
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import Dataset
from zoo.cli.doctor.finding import Finding
from zoo.cli.doctor.folders import existing, hub_cache, unwritable
from zoo.errors import ZooError
from zoo.runs.folder import damage_of_weights
from zoo.runs.record import CHECKPOINTS

FOLDERS: Final = (
    ("CIFAR10", "cifar-10-batches-py"),
    ("CIFAR100", "cifar-100-python"),
    ("STL10", "stl10_binary"),
    ("Imagenette", "imagenette2-320"),
    ("SVHN", "train_32x32.mat"),
    ("Flowers102", "flowers-102"),
    ("Food101", "food-101"),
    ("OxfordIIITPet", "oxford-iiit-pet"),
    ("StanfordCars", "stanford_cars"),
)
"""The folder or file of each torchvision dataset that is not named after its class."""

SHOWN: Final = 8


def plugins() -> Iterator[Finding]:
    """Check the catalogue and each plugin."""
    try:
        registry = load_registry(retry=True)
    except ZooError as error:
        yield Finding("plugins", "catalogue", "error", str(error), "fix that file, or move it away")
        return
    loaded = [r for r in registry.plugins if r.status == "loaded"]
    off = [r for r in registry.plugins if r.status == "disabled"]
    counts = ((loaded, "plugin"), (registry.components, "component"), (registry.models, "model"))
    text = ", ".join(plural(len(things), name) for things, name in counts)
    text += f"; disabled: {', '.join(r.name for r in off)}" if off else ""
    names = [r.name for r in loaded]
    yield Finding("plugins", "catalogue", "ok", text, data={"loaded": names, "off": [r.name for r in off]})
    failed = [r for r in registry.plugins if r.status == "failed"]
    for record in failed:
        who = f"plugin {record.name!r} ({record.distribution} {record.version})"
        yield Finding(
            "plugins",
            record.name,
            "error" if record.builtin else "warning",
            f"{who} was left out: {record.reason}",
            record.fix or "zoo plugins --debug shows the traceback",
        )
    left_out = [f"plugin {r.name!r} ({r.distribution} {r.version}) is left out" for r in failed]
    for problem in registry.problems:
        if not problem.startswith(tuple(left_out)):
            yield Finding("plugins", "catalogue", "warning", problem, "zoo plugins shows more")


# ---- datasets -------------------------------------------------------------------------------


def data() -> Iterator[Finding]:
    """Which datasets of the catalogue are on this machine, decoded or as downloaded."""
    try:
        registry = load_registry()
    except ZooError:
        return  # reported by `plugins`
    decoded = _decoded()
    local = {name: how for name, d in sorted(registry.datasets.items()) if (how := _place(name, d, decoded))}
    absent = [name for name in sorted(registry.datasets) if name not in local]
    text = ", ".join(f"{name} ({how})" for name, how in local.items())
    yield Finding("data", "here", "ok", f"on this machine: {text or 'none'}", data=local)
    if absent:
        yield _absent(absent)


def _absent(absent: list[str]) -> Finding:
    shown = ", ".join(absent[:SHOWN]) + (f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else "")
    text = f"downloaded at first use: {shown}"
    return Finding("data", "absent", "note", text, "zoo datasets lists all", {"absent": absent})


def _decoded() -> set[str]:
    """The names of the datasets whose decoded images are in the cache."""
    names = set()
    for path in (cache_dir() / "images").glob("*/index.json"):
        try:
            index: Any = json.loads(path.read_text("utf-8"))
            names.add(str(index["name"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # an unfinished entry is decoded again when needed
    return names


def _place(name: str, dataset: Dataset, decoded: set[str]) -> str:
    """How a dataset is present on this machine; "" if it is not."""
    scheme, _, rest = dataset.source.partition(":")
    rest = rest.partition("?")[0]
    if scheme == "sklearn":
        return "embedded"
    if name in decoded:
        return "decoded"
    if scheme == "torchvision":
        local = Path(str(dataset.options.get("local", "")) or "absent")
        known = data_dir() / dict(FOLDERS).get(rest, rest)
        return "downloaded" if known.exists() or local.is_dir() else ""
    if scheme == "hf":
        return "downloaded" if (hub_cache() / f"datasets--{rest.replace('/', '--')}").is_dir() else ""
    if scheme == "plugin":
        return "provided by its plugin"
    return "local files" if local_path(rest).exists() else ""


# ---- runs -----------------------------------------------------------------------------------


def _writes(root: Path) -> Iterator[Finding]:
    """What keeps a training from writing and locking a run folder."""
    from zoo.runs.lock import VARIABLE, check_locks

    if problem := unwritable(root):
        said = f"runs {root}: {problem}; training cannot begin"
        fix = "train in a folder that you can write, or give zoo train --output"
        yield Finding("runs", "writes", "error", said, fix)
        return
    folder = existing(root)
    try:
        check_locks(folder)
    except OSError as error:
        by_file = os.environ.get(VARIABLE) == "files"
        said = f"files of {folder} cannot be locked ({error.strerror})"
        if by_file:
            yield Finding("runs", "locks", "ok", f"{said}; {VARIABLE}=files: a file stands for the lock")
            return
        fix = f"train on another file system, or set {VARIABLE}=files: a file then stands for the lock"
        yield Finding("runs", "locks", "error", f"{said}; training cannot begin", fix)


def runs(root: Path) -> Iterator[Finding]:
    """Check for run folders that are damaged or unfinished, and for remains of interrupted writes."""
    from zoo.runs.find import find

    yield from _writes(root)
    if not root.is_dir():
        yield Finding("runs", "runs", "ok", f"no runs below {root}/", data={"runs": 0})
        return
    all_runs, problems = find((), root)
    stopped = [run for run in all_runs if run.state == "stopped"]
    training = sum(run.state == "training" for run in all_runs)
    text = f"{plural(len(all_runs), 'run')} below {root}/" + (f", {training} of them in training" if training else "")
    yield Finding("runs", "runs", "ok", text, data={"runs": len(all_runs), "training": training})
    for problem in problems:
        fix = "restore it from a copy, or remove its folder; other runs are not affected"
        yield Finding("runs", "damaged", "warning", problem, fix)
    for run in all_runs:
        if problem := damage_of_weights(run.folder):
            fix = "its weights are lost: restore the folder from a copy"
            if any((run.folder / CHECKPOINTS).glob("best-*")):
                fix = f"restore the weights from its checkpoints: zoo train --resume {quote(str(run.folder))}"
            yield Finding("runs", "damaged", "warning", problem, fix)
    if stopped:
        names = [run.name for run in stopped]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield Finding(
            "runs",
            "unfinished",
            "note",
            f"unfinished runs: {', '.join(names[:SHOWN])}{more}",
            f"zoo train --resume {quote(str(stopped[0].folder))}   or: zoo runs --remove --state stopped",
            {"unfinished": names},
        )
    leftovers = [path for path in root.rglob(f"{TEMPORARY}*") if not training]
    if leftovers:
        text = f"{plural(len(leftovers), 'file')} of interrupted writes, such as {leftovers[0]}"
        fix = f"find {root} -name '{TEMPORARY}*' -exec rm -r {{}} +"
        yield Finding("runs", "temporary", "note", text, fix)
