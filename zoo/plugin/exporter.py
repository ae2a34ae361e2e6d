"""What an exporter is, and what it is told: `zoo export --format NAME` of a plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram


class ToExport(NamedTuple):
    """What an exporter is told of the program that it writes.

    Attributes:
        model: its name. input, output: the names of the program's input and output.
        usage: what the input is, in one sentence.
        metadata: what a user of the file must know, as texts: "zoo.input" and "zoo.classes" are JSON. It stands in a
            JSON file beside the exported one anyway; write it into the file too where the format has a place for it.
        batch: images in each call; None: any number.
    """

    model: str
    input: str
    output: str
    usage: str
    metadata: Mapping[str, str]
    batch: int | None


class Exporter(Protocol):
    """What the factory of a component of the kind `exporter` returns; it need not inherit from this.

    The factory is called before the model is built: raise a `zoo.errors.PluginError` there (or where its module is
    imported) that says how to install what is missing. It may have an attribute `largest_batch`, an integer: a file
    of any batch then need not take more images at once.

    Whatever else the methods raise becomes one line, and nothing is kept of the file then.
    """

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> Mapping[str, str | int]:
        """Write a program to a file.

        Args:
            program: of torch.export: one tensor in, logits (batch, classes) of float32 out. The preprocessing that was
                asked for is inside, so that the input is floats (B, C, H, W) or bytes (B, H, W, C).
            path: the file, in a folder of its own; more files that lie in that folder afterwards are kept beside it if
                their names begin as its own does: "model.bin" beside "model.xml".
        Returns:
            What is only known now, in a few words by what it is of: {"opset": 20}. Messages and `--json` show it.
        """
        ...

    def runner(self, path: Path) -> Callable[[Tensor], Tensor]:
        """Load a file that was written.

        Returns:
            A function of a batch, as the program takes it, that gives the file's logits. `zoo export` compares them
            with torch's, for batches of 1, 2 and 5 where any number is allowed.
        """
        ...
