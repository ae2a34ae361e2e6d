"""Export: trace, write, run what was written, and only then put it in its place."""

from __future__ import annotations

import html
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from zoo.base.files import WriteError, write_text
from zoo.base.text import printable
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier
from zoo.export import onnx_file, torch_file
from zoo.export.agree import Agreement, Run, Tolerance, agreement
from zoo.export.facts import PREPARED, Takes, describe, facts
from zoo.export.graph import ExportError, trace
from zoo.export.int8 import INT8, Int8Images, Quantized, quantize

Format = Literal["onnx", "torch"]
SUFFIXES = (("onnx", ".onnx"), ("torch", ".pt2"))


@dataclass(frozen=True, repr=False, eq=False)
class Exported:
    """What was written; `zoo.export` returns one.

    Attributes:
        path: of the file.
        files: the file, and beside it the one with its weights where one file cannot hold them, and a JSON file
            with the metadata.
        format: "onnx" or "torch". model: its name. parameters: how many it has.
        bytes: of the file and its weights. opset: of ONNX; None for torch.
        agreement: how far its logits lie from the module's; None where it was not checked.
        quantized: what integers of 8 bits cost in accuracy; None for a file in floats.
        metadata: as it stands in the file. usage: what the input is, in one sentence.
    """

    path: Path
    files: tuple[Path, ...]
    format: Format
    model: str
    parameters: int
    bytes: int
    opset: int | None
    agreement: Agreement | None
    metadata: dict[str, str]
    usage: str
    quantized: Quantized | None = None

    def as_dict(self) -> dict[str, Any]:
        """What `zoo export --json` prints."""
        return {
            "path": str(self.path),
            "files": [str(path) for path in self.files],
            "format": self.format,
            "model": self.model,
            "parameters": self.parameters,
            "bytes": self.bytes,
            "opset": self.opset,
            "agreement": self.agreement.as_dict() if self.agreement else None,
            "int8": self.quantized.as_dict() if self.quantized else None,
            "metadata": dict(self.metadata),
        }

    def __repr__(self) -> str:
        """The file, what is in it, and how well it agrees."""
        kind = f"ONNX, opset {self.opset}" if self.opset else "torch.export"
        differs = "not checked" if self.agreement is None else f"differs from torch by {self.agreement.largest:.1e}"
        return printable(f"Exported({self.path}: {self.model}, {kind}, {self.bytes:,} bytes, {differs})")

    def _repr_html_(self) -> str:
        """The same, and what the file takes."""
        return f"<div>{html.escape(repr(self))}<br>takes {html.escape(self.usage)}</div>"


def suffix(format: Format) -> str:
    """How the file of a format is called."""
    return dict(SUFFIXES)[format]


def export(
    classifier: Classifier,
    output: Path,
    *,
    origin: Mapping[str, str] = MappingProxyType({}),
    format: Format = "onnx",
    opset: int | None = None,
    batch: int | None = None,
    takes: Takes = PREPARED,
    check: bool = True,
    tolerance: float = Tolerance,
    int8: Int8Images | None = None,
) -> Exported:
    """Write a model as ONNX or as a torch.export program; a file that is there is replaced.

    Args:
        origin: what is known of its weights, for the file's metadata; see `zoo.export.facts.origin_of`.
        opset: of ONNX; None: torch's default.
        batch: how many images each call takes; None: any number, from 1.
        takes: what the file takes, by the name of its input: see `zoo.export.facts`.
        check: run the file over random images, at batches of 1, 2 and 5 where any number is allowed, and
            compare with the module.
        tolerance: the largest difference of a logit that is allowed, times the largest logit where that is
            over 1.
        int8: what an ONNX file in integers is calibrated and measured on; None: it stays in floats.
    Raises:
        InputError: a wrong option, or a library that is missing.
        ExportError: the model cannot be exported, or the file does not agree; nothing is kept then.
        WriteError: the file cannot be written.
    """
    check_options(output, format, opset, batch)
    metadata = facts(classifier, origin, takes=takes, batch=batch)
    usage = describe(classifier, takes=takes)
    program = trace(classifier, batch=batch, takes=takes)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".zoo-tmp-") as temporary:
            written = Path(temporary) / output.name
            if format == "onnx":
                opset = onnx_file.write(program, written, opset, metadata, usage, takes)
            else:
                torch_file.write(program, written, metadata)
            checked = None
            if check:
                checked = _checked(classifier, written, format, batch, takes, tolerance)
            quantized = None
            if int8 is not None:
                quantized = quantize(written, classifier, int8, takes)
                metadata = {**metadata, "zoo.int8": INT8}
            size = sum(path.stat().st_size for path in Path(temporary).iterdir())
            _write_facts(written.with_name(f"{output.name}.json"), metadata, usage)
            files = _move(Path(temporary), output)
    except OSError as error:
        raise WriteError(f"{output}: cannot be written: {error.strerror or error}") from error
    return Exported(
        path=output,
        files=files,
        format=format,
        model=classifier.name,
        parameters=classifier.parameter_count,
        bytes=size,
        opset=opset,
        agreement=checked,
        metadata=metadata,
        usage=usage,
        quantized=quantized,
    )


def check_options(output: Path, format: Format, opset: int | None, batch: int | None) -> None:
    """Refuse what `export` would refuse, before a model is built for it.

    Raises:
        InputError: a wrong option, or a library that is missing.
    """
    if batch is not None and batch < 1:
        raise InputError(f"--batch {batch}: a batch has at least 1 image; or --batch dynamic")
    if format not in get_args(Format):
        raise InputError(f"--format {format!r}; allowed: {', '.join(get_args(Format))}")
    if format == "torch" and opset is not None:
        raise InputError("--opset is ONNX's; leave it out with --format torch")
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; name a file: {output / f'model{suffix(format)}'}")
    if output.suffix != suffix(format):
        raise InputError(f"--output {output}: a file of format {format} ends in {suffix(format)}")
    if format == "onnx":
        onnx_file.check_libraries(opset)


def _checked(
    classifier: Classifier, written: Path, format: Format, batch: int | None, takes: Takes, tolerance: float
) -> Agreement:
    run: Run = onnx_file.runner(written) if format == "onnx" else torch_file.runner(written)
    measured = agreement(classifier, run, batch=batch, takes=takes)
    if not measured.within(tolerance):
        raise ExportError(
            f"{classifier.name}: the exported logits differ from torch's by up to {measured.largest:.2e} (largest "
            f"logit {measured.scale:.2e}; allowed: {tolerance:g} of it); nothing was kept; --no-check keeps it anyway"
        )
    return measured


def _write_facts(path: Path, metadata: Mapping[str, str], usage: str) -> None:
    """Write the metadata as JSON, for whoever deploys the file and does not open it first."""
    table = {key.removeprefix("zoo."): value for key, value in metadata.items()}
    table |= {key: json.loads(table[key]) for key in ("input", "output", "classes")}
    write_text(path, json.dumps({"usage": usage, **table}, ensure_ascii=False, indent=2) + "\n")


def _move(folder: Path, output: Path) -> tuple[Path, ...]:
    """Put the files in their place, the one that names the other last."""
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: name == output.name)
    for name in names:
        os.replace(folder / name, output.parent / name)
    return tuple(output.parent / name for name in reversed(names))
