"""Checks of versions: required against installed libraries, by their metadata; nothing is imported."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from zoo.base.did_you_mean import did_you_mean
from zoo.base.install import install_line
from zoo.base.version import __version__
from zoo.catalogue.plugins import OURS
from zoo.cli.doctor.finding import Finding

EXTRAS: Final = (
    ("energy", "measuring the energy that training uses"),
    ("executorch", "ExecuTorch files"),
    ("explain", "explanations of predictions"),
    ("export", "ONNX files"),
    ("heif", "photographs in HEIC and HEIF"),
    ("ray", "sweeps over several machines"),
    ("report", "HTML reports"),
    ("robustness", "accuracy on corrupted images"),
    ("sign", "zoo publish --sign and zoo verify --key"),
    ("serve", "a web page and an HTTP endpoint"),
    ("sweep", "sweeps"),
    ("tensorboard", "TensorBoard"),
    ("trackio", "Trackio"),
    ("wandb", "Weights & Biases"),
)
"""The purpose of each extra, without those for developers."""

VARIABLES: Final = (
    "ZOO_CACHE_DIR",
    "ZOO_CONFIG_DIR",
    "ZOO_DATA_DIR",
    "ZOO_DISABLE_PLUGINS",
    "ZOO_KEEP_HEAP",
    "ZOO_LOAD_PLUGINS",
    "ZOO_LOCKS",
    "ZOO_PLUGIN_SECONDS",
    "ZOO_TEST_DATA",
)
_INTERNAL: Final = ("ZOO_COMPLETE", "ZOO_PROCESSES_DIR")


def look() -> Iterator[Finding]:
    """Check hybrid-zoo, Python, the required libraries and the extras."""
    here = f"{platform.system()} {platform.machine()}"
    text = f"hybrid-zoo {__version__}, Python {platform.python_version()}, {here}"
    data = {"hybrid-zoo": __version__, "python": platform.python_version(), "system": here}
    yield Finding("versions", "hybrid-zoo", "ok", text, data=data)
    try:
        needs = [Requirement(line) for line in requires(OURS) or ()]
    except (PackageNotFoundError, InvalidRequirement):
        yield Finding(
            "versions",
            "installation",
            "error",
            "hybrid-zoo runs from a folder without being installed, so that plugins are not found",
            "in the source folder: pip install -e .",
        )
        return
    yield from _needed([need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})])
    yield from _extras(needs)
    yield from _pair()


def _needed(needs: list[Requirement]) -> Iterator[Finding]:
    wrong = [(need, _problem(need)) for need in needs]
    present = {need.name: installed for need in needs if (installed := _version(need.name))}
    shown = ", ".join(f"{name} {present[name]}" for name in ("torch", "torchvision", "timm") if name in present)
    if not any(problem for _, problem in wrong):
        text = f"{shown}; all {len(needs)} required libraries are installed"
        yield Finding("versions", "needed", "ok", text, data=present)
    for need, problem in wrong:
        if problem:
            yield Finding("versions", need.name, "error", problem, f"pip install '{need.name}{need.specifier}'")


def _extras(needs: list[Requirement]) -> Iterator[Finding]:
    absent: list[str] = []
    for extra, purpose in EXTRAS:
        mine = [n for n in needs if n.marker is not None and _of_extra(n, extra)]
        problems = {need.name: problem for need in mine if (problem := _problem(need))}
        old = [problem for name, problem in problems.items() if _version(name)]
        if old:
            fix = install_line(extra).replace("pip install", "pip install -U", 1)
            yield Finding("versions", extra, "warning", f"extra {extra} ({purpose}): {old[0]}", fix)
        elif problems:
            absent.append(extra)
    if absent:
        known = dict(EXTRAS)
        text = "extras not installed: " + ", ".join(f"{name} ({known[name]})" for name in absent)
        yield Finding(
            "versions", "extras", "note", text, f"to install them: {install_line(*absent)}", {"absent": absent}
        )


def _of_extra(need: Requirement, extra: str) -> bool:
    assert need.marker is not None
    return need.marker.evaluate({"extra": extra}) and not need.marker.evaluate({"extra": ""})


def _problem(need: Requirement) -> str:
    """Why a requirement is not met; "" if it is."""
    installed = _version(need.name)
    if installed is None:
        return f"{need.name} is not installed (required: {need.name}{need.specifier})"
    if not need.specifier.contains(installed, prereleases=True):
        return f"{need.name} {installed} is installed, but {need.specifier} is required"
    return ""


def _pair() -> Iterator[Finding]:
    """Check that torchvision was built for the installed torch, by its metadata and the names of the builds."""
    torch, vision = _version("torch"), _version("torchvision")
    if torch is None or vision is None:
        return
    fix = "reinstall both from one index: pip install --force-reinstall torch torchvision"
    for text in requires("torchvision") or ():
        need = Requirement(text)
        if need.name == "torch" and need.marker is None and not need.specifier.contains(torch, prereleases=True):
            text = f"torchvision {vision} requires torch{need.specifier}, but torch {torch} is installed"
            yield Finding("versions", "torchvision", "error", text, fix)
            return
    ours, theirs = Version(torch).local, Version(vision).local
    if ours and theirs and ours != theirs:
        text = f"torch was built for {ours}, but torchvision for {theirs}"
        yield Finding("versions", "torchvision", "warning", text, fix)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def settings() -> Iterator[Finding]:
    """Check the ZOO_* environment variables: those that hybrid-zoo reads, and probable typos of them."""
    mine = {k: v for k, v in sorted(os.environ.items()) if k.startswith("ZOO_") and k not in _INTERNAL}
    for name in mine:
        if name not in VARIABLES:
            fix = did_you_mean(name, VARIABLES, 1, 0.6) or f"known: {', '.join(VARIABLES)}"
            yield Finding("settings", name, "warning", f"{name} is set, but no such setting exists", fix)
    known = {k: v for k, v in mine.items() if k in VARIABLES}
    if known:
        text = "set: " + ", ".join(f"{name}={value}" for name, value in known.items())
        yield Finding("settings", "variables", "ok", text, data=known)
