"""The environment of a run: versions, commit, device, number of processes."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from zoo.base import children
from zoo.base.version import __version__
from zoo.catalogue.provenance import changes
from zoo.catalogue.registry import Registry
from zoo.models.device import describe
from zoo.runs.record import DIRTY, RunRecord


def differences(record: RunRecord, registry: Registry) -> list[str]:
    """Differences that make a resumed run not bit-identical to an uninterrupted one, a line each."""
    now = environment(torch.device(record.device))
    before = {"processes": "1", **record.environment}
    changed = [
        f"{key} is now {now.get(key, 'absent')} and was {was}"
        for key, was in before.items()
        if key in ("torch", "threads", "device", "hybrid-zoo", "processes") and now.get(key) != was
    ]
    return changed + changes(record.plugins, registry)


def environment(device: torch.device) -> dict[str, str]:
    """Versions, commit and hardware, which a reader needs to judge a result."""
    facts = {"hybrid-zoo": __version__, "python": platform.python_version(), "device": describe(device)}
    facts["torch"] = str(torch.__version__)
    for package in ("torchvision", "timm", "numpy"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "absent"
    facts["threads"] = str(torch.get_num_threads())
    facts["processes"] = str(children.started_together())
    return facts | ({"commit": commit} if (commit := commit_of(CHECKOUT)) else {})


CHECKOUT = Path(__file__).resolve().parent.parent.parent
"""Where this code lies, if it runs from a checkout."""

OUTPUT = "results"
"""The folder of a checkout whose files say nothing about the code: `zoo reproduce` writes them after each run."""


def commit_of(checkout: Path) -> str:
    """The commit of a git checkout, in twelve digits, marked where its files were changed; "" if it is none.

    Files in `results` may differ, as they say nothing about the code.
    """
    if not (checkout / ".git").exists():
        return ""
    try:
        # GIT_DIR and the like name a repository of the user's, not ours.
        plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        run = partial(subprocess.run, capture_output=True, text=True, timeout=5, env=plain, cwd=checkout)
        named = run(["git", "describe", "--always", "--abbrev=12", "--exclude=*"], check=True)
        changed = run(["git", "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{OUTPUT}"], check=True)
        return named.stdout.strip() + (DIRTY if changed.stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return ""
