"""Versions: what hybrid-zoo needs beside what is installed. From metadata alone, nothing is imported."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from zoo.base.did_you_mean import did_you_mean
from zoo.base.version import __version__
from zoo.catalogue.plugins import OURS
from zoo.cli.doctor.finding import Finding

EXTRAS: Final = (
    ("energy", "the energy of a training"),
    ("explain", "what a model looked at"),
    ("export", "ONNX files"),
    ("ray", "sweeps over several machines"),
    ("report", "HTML reports"),
    ("robustness", "accuracy on corrupted images"),
    ("serve", "a page and an HTTP endpoint"),
    ("sweep", "sweeps"),
    ("tensorboard", "TensorBoard"),
    ("trackio", "Trackio"),
    ("wandb", "Weights & Biases"),
)
"""What each extra is for; those for developers are left out."""

VARIABLES: Final = (
    "ZOO_CACHE_DIR",
    "ZOO_CONFIG_DIR",
    "ZOO_DATA_DIR",
    "ZOO_DISABLE_PLUGINS",
    "ZOO_KEEP_HEAP",
    "ZOO_LOAD_PLUGINS",
    "ZOO_PLUGIN_SECONDS",
    "ZOO_TEST_DATA",
)
_INTERNAL: Final = ("ZOO_COMPLETE", "ZOO_PROCESSES_DIR")


def look() -> Iterator[Finding]:
    """hybrid-zoo, Python, what it needs, and its extras."""
    here = f"{platform.system()} {platform.machine()}"
    said = f"hybrid-zoo {__version__}, Python {platform.python_version()}, {here}"
    data = {"hybrid-zoo": __version__, "python": platform.python_version(), "system": here}
    yield Finding("versions", "hybrid-zoo", "ok", said, data=data)
    try:
        needs = [Requirement(text) for text in requires(OURS) or ()]
    except (PackageNotFoundError, InvalidRequirement):
        yield Finding(
            "versions",
            "installation",
            "error",
            "hybrid-zoo runs from a folder and is not installed: no plugin can be found",
            "in its checkout: pip install -e .",
        )
        return
    yield from _needed([need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})])
    yield from _extras(needs)
    yield from _pair()


def _needed(needs: list[Requirement]) -> Iterator[Finding]:
    wrong = [(need, _problem(need)) for need in needs]
    there = {need.name: found for need in needs if (found := _version(need.name))}
    shown = ", ".join(f"{name} {there[name]}" for name in ("torch", "torchvision", "timm") if name in there)
    if not any(problem for _, problem in wrong):
        said = f"{shown}; all {len(needs)} needed libraries are here"
        yield Finding("versions", "needed", "ok", said, data=there)
    for need, problem in wrong:
        if problem:
            yield Finding(
                "versions", need.name, "error", problem, f"pip install '{need.name}{need.specifier}'"
            )


def _extras(needs: list[Requirement]) -> Iterator[Finding]:
    absent: list[str] = []
    for extra, purpose in EXTRAS:
        mine = [n for n in needs if n.marker is not None and _of_extra(n, extra)]
        problems = {need.name: problem for need in mine if (problem := _problem(need))}
        old = [problem for name, problem in problems.items() if _version(name)]
        if old:
            fix = f"pip install -U '{OURS}[{extra}]'"
            yield Finding("versions", extra, "warning", f"extra {extra} ({purpose}): {old[0]}", fix)
        elif problems:
            absent.append(extra)
    if absent:
        known = dict(EXTRAS)
        said = "extras not installed: " + ", ".join(f"{name} ({known[name]})" for name in absent)
        yield Finding(
            "versions",
            "extras",
            "note",
            said,
            f"if wanted: pip install '{OURS}[{','.join(absent)}]'",
            {"absent": absent},
        )


def _of_extra(need: Requirement, extra: str) -> bool:
    assert need.marker is not None
    return need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""})


def _problem(need: Requirement) -> str:
    """Why a requirement is not met; "" where it is."""
    there = _version(need.name)
    if there is None:
        return f"{need.name} is missing (needed: {need.name}{need.specifier})"
    if not need.specifier.contains(there, prereleases=True):
        return f"{need.name} {there} is here, {need.specifier} is needed"
    return ""


def _pair() -> Iterator[Finding]:
    """torchvision's operators are built for one torch; its metadata, and the builds' names, say which."""
    torch, vision = _version("torch"), _version("torchvision")
    if torch is None or vision is None:
        return
    fix = "install both anew, from one index: pip install --force-reinstall torch torchvision"
    for text in requires("torchvision") or ():
        need = Requirement(text)
        if (
            need.name == "torch"
            and need.marker is None
            and not need.specifier.contains(torch, prereleases=True)
        ):
            said = f"torchvision {vision} is for torch{need.specifier}; torch {torch} is here"
            yield Finding("versions", "torchvision", "error", said, fix)
            return
    ours, theirs = Version(torch).local, Version(vision).local
    if ours and theirs and ours != theirs:
        said = f"torch is a build for {ours}, torchvision one for {theirs}"
        yield Finding("versions", "torchvision", "warning", said, fix)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def settings() -> Iterator[Finding]:
    """The environment variables that hybrid-zoo reads, and those that look as if it did."""
    mine = {k: v for k, v in sorted(os.environ.items()) if k.startswith("ZOO_") and k not in _INTERNAL}
    for name in mine:
        if name not in VARIABLES:
            fix = did_you_mean(name, VARIABLES, 1, 0.6) or f"known: {', '.join(VARIABLES)}"
            yield Finding("settings", name, "warning", f"{name} is set, and nothing reads it", fix)
    known = {k: v for k, v in mine.items() if k in VARIABLES}
    if known:
        said = "set: " + ", ".join(f"{name}={value}" for name, value in known.items())
        yield Finding("settings", "variables", "ok", said, data=known)
