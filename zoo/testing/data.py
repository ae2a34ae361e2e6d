"""Checks of datasets and listeners."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.paths import data_dir
from zoo.base.text import plural
from zoo.catalogue.plugins import import_factory
from zoo.catalogue.registry import Registry
from zoo.errors import DataError, PluginError
from zoo.plugin.contract import Component
from zoo.testing.subject import Failed, Skipped

if TYPE_CHECKING:
    from zoo.data.split import ImageData


def check_component(name: str, registry: Registry) -> str:
    """The factory gives images and labels, the same ones when it is asked again."""
    return _check(f"plugin:{name}", registry)


def check_dataset(name: str, registry: Registry) -> str:
    """The catalogue's dataset loads, and holds nothing that cannot be trained on."""
    return _check(name, registry)


CHECKS = (("loads", check_dataset),)
"""Name and function of every check of a dataset of the catalogue."""


def _check(spec: str, registry: Registry) -> str:
    from zoo.data.checks import check

    try:
        found, again = _afresh(spec, registry), _afresh(spec, registry)
    except DataError as error:
        if any(word in str(error).lower() for word in ("offline", "network", "cannot be reached")):
            raise Skipped(str(error)) from None
        raise
    errors = [finding.message for finding in check(found) if finding.level == "error"]
    if errors:
        raise Failed("; ".join(errors))
    if found.fingerprint != again.fingerprint:
        raise Failed("gives other images or labels when it is loaded again; seed its random numbers")
    return f"{len(found.train):,} train, {len(found.test):,} test, {plural(len(found.classes), 'class')}"


def _afresh(spec: str, registry: Registry) -> ImageData:
    """Load with an empty cache of decoded images, downloads staying where they are."""
    from zoo.data.load import load

    kept, downloads = os.environ.get("ZOO_CACHE_DIR"), data_dir()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZOO_CACHE_DIR"] = folder
        try:
            return load(spec, registry, data_dir=downloads)
        finally:
            os.environ.pop("ZOO_CACHE_DIR")
            if kept is not None:
                os.environ["ZOO_CACHE_DIR"] = kept


def check_listener(name: str, component: Component) -> str:
    """It takes the events of a short run without an exception."""
    try:
        factory = import_factory(component.factory, name)
        with tempfile.TemporaryDirectory() as folder:
            _tell(factory(folder=Path(folder)))
    except PluginError as error:
        if isinstance(error.__cause__, ImportError):
            raise Skipped(str(error)) from None
        raise
    return "start, epoch, end"


def _tell(listener: Any) -> None:
    row = {"epoch": 1, "train_loss": 2.0, "train_top1": 0.1, "val_loss": 2.1, "val_top1": 0.2, "lr": 1e-3}
    events = (("start", ({"model": "m"}, 1)), ("epoch", (row, True)), ("end", ({"test": {"top1": 0.2}},)))
    for event, values in events:
        method, before = getattr(listener, event, None), copy.deepcopy(values)
        if method is not None:
            method(*values)
        if values != before:
            raise Failed(f"{event}() changes what it is given, which other listeners are given too; copy it")
