"""An exporter of ours or of a plugin, guarded: whatever it raises is one line, and stdout stays the command's."""

from __future__ import annotations

import contextlib
import errno
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from zoo.base.streams import printing_to
from zoo.base.text import first_line
from zoo.catalogue.plugins import import_factory
from zoo.errors import InputError, PluginError, ZooError
from zoo.export.agree import BATCHES, Run
from zoo.export.graph import ExportError, first
from zoo.plugin.contract import Component
from zoo.plugin.exporter import Exporter, ToExport

NO_PLACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors that say something of the disk, not of the exporter."""


class Exporting:
    """One format, ready to write.

    Attributes:
        name: of the format. suffix: how its files' names end.
        largest_batch: the most images that a file of any batch takes at once; None: any number.
    """

    def __init__(self, component: Component, exporter: Exporter) -> None:
        self.name, self.suffix, self.exporter = component.name, component.suffix, exporter
        self.largest_batch: int | None = _largest_batch(component.name, exporter)

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        """Write a program.

        Returns:
            What the exporter says of the file.
        Raises:
            ExportError: it cannot be written in this format. OSError: the file cannot be written.
        """
        with _one_line(f"{about.model}: cannot be written as {self.name}"):
            details = dict(self.exporter.write(program, path, about) or {})
        if not path.is_file():
            raise ExportError(f"{about.model}: the exporter {self.name} wrote no file")
        self._check(details, path, about.model)
        return details

    def _check(self, details: Mapping[str, object], path: Path, model: str) -> None:
        """Refuse what cannot be shown or put in its place, or would take another file's place."""
        whole = {"opset": int}
        for of, what in details.items():
            if not isinstance(what, whole.get(of, str | int)):
                said, wanted = f"{of}: {type(what).__name__}", "a whole number" if of in whole else "a text or a number"
                raise ExportError(f"{model}: the exporter {self.name} says {said} of its file; expected {wanted}")
        stem = path.name.removesuffix(self.suffix)
        for other in set(path.parent.iterdir()) - {path}:
            if not other.is_file() or not other.name.startswith(f"{stem}."):
                raise ExportError(
                    f"{model}: the exporter {self.name} wrote {other.name} beside its file; allowed there: files "
                    f"whose names begin with {stem}."
                )

    def runner(self, path: Path) -> Run:
        """Load a file that was written; what it gives is float (B, K).

        Raises:
            ExportError: it cannot be loaded; or, when it is called, run.
        """
        with _one_line(f"the written {self.name} file cannot be loaded"):
            run = self.exporter.runner(path)

        def guarded(images: Tensor) -> Tensor:
            with _one_line(f"the {self.name} file cannot run a batch of {len(images)}"), torch.inference_mode():
                return torch.as_tensor(run(images))

        return guarded


def start(component: Component, *, opset: int | None = None) -> Exporting:
    """Make an exporter, before a model is built for it.

    Args:
        opset: given to an exporter that has such an option.
    Raises:
        InputError: it has no such option, or cannot be started. PluginError: its library is missing.
    """
    factory = import_factory(component.factory, component.name)
    options: Mapping[str, int] = {} if opset is None else {"opset": opset}
    if options.keys() - inspect.signature(factory).parameters.keys():
        raise InputError(f"--opset is ONNX's; leave it out with --format {component.name}")
    try:
        with printing_to(sys.stderr):
            exporter = factory(**options)
    except ZooError:
        raise
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"--format {component.name} cannot be started: {why}") from error
    for method in ("write", "runner"):
        if not callable(getattr(exporter, method, None)):
            raise PluginError(f"the exporter {component.name} has no method {method}(); see zoo.plugin.Exporter")
    return Exporting(component, exporter)


def _largest_batch(name: str, exporter: Exporter) -> int | None:
    most = getattr(exporter, "largest_batch", None)
    if most is not None and (not isinstance(most, int) or most < max(BATCHES)):
        raise PluginError(
            f"the exporter {name} has largest_batch = {most!r}; expected None, or a number of images, at least "
            f"{max(BATCHES)}: a file of any batch is run with {', '.join(map(str, BATCHES))}"
        )
    return most


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        with printing_to(sys.stderr):
            yield
    except ZooError:
        raise
    except OSError as error:
        if error.errno in NO_PLACE:
            raise
        raise ExportError(f"{what}: {first(error)}") from error
    except (Exception, SystemExit) as error:
        raise ExportError(f"{what}: {first(error)}") from error
