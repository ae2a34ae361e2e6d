"""ExecuTorch programs (.pte), whose operators XNNPACK computes on the CPU of a phone or a board where it has them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import PluginError
from zoo.plugin import ToExport, install_line

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

FACTS = "zoo_json"
"""The method of the program that returns the metadata as JSON."""


class ExecuTorch:
    """Writes and runs such programs.

    Attributes:
        largest_batch: ExecuTorch plans its memory when it writes a program, and so has to know the most images.
    """

    largest_batch = 64

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        """Write the program, with the metadata as a method `zoo_json` beside `forward`.

        Returns:
            The version of ExecuTorch, and the largest batch that the program takes.
        """
        with _quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            edge: Any = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods={FACTS: json.dumps(dict(about.metadata))}
            )
            path.write_bytes(edge.to_executorch().buffer)
        return {"executorch": _version(), "batches of at most": about.batch or self.largest_batch}

    def runner(self, path: Path) -> Callable[[Tensor], Tensor]:
        """The program, loaded by ExecuTorch's own runtime."""
        with _quiet():
            from executorch.runtime import Runtime

            method: Any = Runtime.get().load_program(path).load_method("forward")

        def run(images: Tensor) -> Tensor:
            with _quiet():
                (logits,) = method.execute([images.contiguous()])
            return logits.clone()  # the next call writes into the same memory

        return run


def executorch_program() -> ExecuTorch:
    """The exporter of the format "executorch".

    Raises:
        PluginError: ExecuTorch is not installed.
    """
    try:
        missing = find_spec("executorch.exir") is None
    except ImportError:
        missing = True
    if missing:
        raise PluginError(f"ExecuTorch files need executorch: {install_line('executorch')}")
    return ExecuTorch()


def _version() -> str:
    try:
        return version("executorch")
    except PackageNotFoundError:
        return "of unknown version"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines of the runtime, which it writes to the descriptor of stderr, and without warnings."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
