"""Datasets that a plugin brings: `plugin:PLUGIN.COMPONENT`."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from zoo.base.explain import explain
from zoo.base.streams import printing_to
from zoo.base.text import plural
from zoo.catalogue.plugins import import_factory
from zoo.catalogue.registry import Origin, load_registry
from zoo.data.sources.source import Opened, Request, Rows, array_rows, item_rows
from zoo.data.types import Item
from zoo.errors import DataError, InputError, PluginError, ZooError
from zoo.plugin.contract import ImageSplits

RECORD = "run.toml"
"""In the folder of a run: what trainings write below the working directory makes no images."""

MOST_FILES = 5000
"""Files of a folder whose size and time are looked at; a folder of downloads may hold whole datasets."""


@dataclass(frozen=True)
class PluginSource:
    """What a plugin's dataset factory returns, once it is asked.

    Attributes:
        modules: top-level names of the modules that have its code.
        given: whether the user chose `data_dir`; all datasets share the usual one.
    """

    name: str
    factory: Callable[..., Any]
    origin: Origin
    options: dict[str, Any]
    data_dir: Path
    modules: frozenset[str] = frozenset()
    given: bool = False

    @classmethod
    def make(cls, request: Request) -> PluginSource:
        """The source for `plugin:PLUGIN.COMPONENT`.

        Raises:
            UnknownNameError, InputError: no such component, not a dataset, or an option it does not take.
        """
        registry, name = load_registry(), request.rest
        component = registry.component(name)
        if component.kind != "dataset":
            raise InputError(f"plugin:{name}: {name} is a {component.kind}; a dataset is needed here")
        factory = import_factory(component.factory, name)
        parameters = inspect.signature(factory).parameters
        allowed = [p for p in parameters if p != "data_dir"]
        unknown = sorted(set(request.options) - set(allowed))
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            raise InputError(
                f"plugin:{name}: unknown option {', '.join(unknown)}; allowed: {', '.join(allowed) or 'none'}"
            )
        options = _converted(name, factory, request.options)
        places = component.factory.partition(":")[0], str(getattr(factory, "__module__", ""))
        modules = frozenset(place.partition(".")[0] for place in places)
        origin = registry.origin("component", name)
        return cls(name, factory, origin, options, request.data_dir, modules, request.given)

    def identity(self) -> dict[str, Any]:
        """Component, distribution, options, and the files of its package and of a chosen folder, which make the images.

        What others download into the usual folder makes no other images.
        """
        who = [self.origin.distribution, self.origin.version, _stamps(_code(self.modules))]
        files = _stamps(_below(self.data_dir)) if self.given else []
        data = {"data_dir": str(self.data_dir.absolute()), "files": files}
        return {"scheme": "plugin", "name": self.name, "from": who, "options": self.options, **data}

    def open(self) -> Opened:
        """Both splits, as the factory gives them.

        Raises:
            DataError: the plugin cannot get its data. PluginError: it returns something else.
        """
        try:
            with printing_to(sys.stderr):  # stdout is for a command's result, and downloads like to talk
                splits = self.factory(data_dir=self.data_dir, **self.options)
        except ZooError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(
                f"plugin:{self.name} ({self.origin}): {type(error).__name__}: {str(error).strip()[:300]}"
            ) from error
        if not isinstance(splits, ImageSplits):
            raise PluginError(
                f"plugin:{self.name}: its factory must return zoo.plugin.ImageSplits, got {type(splits).__name__}"
            )
        rows = [self._rows(getattr(splits, side), side) for side in ("train", "test")]
        return Opened(rows[0], rows[1], tuple(map(str, splits.classes)))

    def _rows(self, split: Any, side: str) -> Rows:
        name = f"plugin:{self.name} ({side})"
        try:
            images, labels = split
            count, wanted = len(images), len(labels)
        except (TypeError, ValueError):
            raise PluginError(f"{name}: expected (images, labels)") from None
        if count != wanted or not count:
            raise DataError(f"{name}: {plural(count, 'image')} for {plural(wanted, 'label')}")
        if isinstance(images, Sequence) and isinstance(images[0], bytes | str | Path):
            items: Sequence[Item] = [Path(item) if isinstance(item, str) else item for item in images]
            files = tuple(item for item in items if isinstance(item, Path))
            return replace(item_rows(items, labels, lambda i: f"{name}, image {i}"), files=files)
        return array_rows(np.asarray(images), labels, name)


def _code(names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """The files of modules and packages by their names: code, and data that lie beside it."""
    for module in filter(None, map(sys.modules.get, sorted(names))):
        file = getattr(module, "__file__", None)
        if folders := list(getattr(module, "__path__", ())):
            yield from (found for folder in folders for found in _below(Path(folder)))
        elif file:
            yield file, Path(file)


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below a folder by their paths in it, the upper levels first; no more than `MOST_FILES`.

    A folder may be a link to where there is room; one that leads to where the search has been is not entered again.
    """
    level, left, entered = [folder], MOST_FILES, {os.path.realpath(folder)}
    while level and left:
        entries = sorted((e for one in level for e in _listed(one)), key=lambda entry: entry.path)
        files = [Path(entry) for entry in entries if entry.is_file()][:left]
        yield from ((path.relative_to(folder).as_posix(), path) for path in files)
        places = {os.path.realpath(entry): Path(entry) for entry in entries if entry.is_dir()}
        level = [path for real, path in places.items() if real not in entered]
        entered |= places.keys()
        left -= len(files)


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name != "__pycache__"]
            return [] if any(entry.name == RECORD for entry in found) else found
    except OSError:  # absent, or not ours to read: its factory says so if it needs it
        return []


def _stamps(files: Iterable[tuple[str, Path]]) -> list[list[Any]]:
    """Name, size and time of files, without those that another process has just removed."""
    found = []
    for name, path in files:
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append([name, status.st_size, status.st_mtime_ns])
    return found


def _converted(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options in the types that the factory's annotations ask for; after "?" in a SPEC all are texts."""
    try:
        hints = typing.get_type_hints(factory)
    except (NameError, TypeError):
        return options
    converted = dict(options)
    for key, value in options.items():
        try:
            converted[key] = msgspec.convert(value, hints.get(key, Any), strict=False)
        except msgspec.ValidationError as error:
            raise InputError(explain(error, hints[key], value, f"plugin:{name}: {key}")) from None
        except TypeError:
            continue  # an annotation that msgspec does not know says nothing about values
    return converted
