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
from typing import Any

from zoo.base.files import WriteError, write_text
from zoo.base.text import printable
from zoo.catalogue.export_formats import find_format
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier
from zoo.export.agree import Agreement, Tolerance, agreement
from zoo.export.exporting import Exporting, start
from zoo.export.facts import OUTPUT, PREPARED, Takes, describe, facts
from zoo.export.graph import ExportError, trace
from zoo.export.int8 import Int8Images, Quantized, quantize
from zoo.plugin.contract import Component
from zoo.plugin.exporter import ToExport


@dataclass(frozen=True, repr=False, eq=False)
class Exported:
    """What was written; `zoo.export` returns one.

    Attributes:
        path: of the file.
        files: the file, and beside it the one with its weights where one file cannot hold them, and a JSON file
            with the metadata.
        format: "onnx", "torch", or a plugin's. model: its name. parameters: how many it has.
        bytes: of the file and its weights. details: what the exporter says of the file, {"opset": 20}.
        agreement: how far its logits lie from the module's; None where it was not checked.
        quantized: what integers of 8 bits cost in accuracy; None for a file in floats.
        metadata: as it stands in the file. usage: what the input is, in one sentence.
    """

    path: Path
    files: tuple[Path, ...]
    format: str
    model: str
    parameters: int
    bytes: int
    details: Mapping[str, str | int]
    agreement: Agreement | None
    metadata: dict[str, str]
    usage: str
    quantized: Quantized | None = None

    @property
    def opset(self) -> int | None:
        """Of ONNX; None for other formats."""
        found = self.details.get("opset")
        return None if found is None else int(found)

    @property
    def kind(self) -> str:
        """What was written, in a few words: "opset 20"; the name of the format where its exporter says nothing."""
        return ", ".join(f"{of} {what}" for of, what in self.details.items()) or self.format

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
            "details": dict(self.details),
            "agreement": self.agreement.as_dict() if self.agreement else None,
            "int8": self.quantized.as_dict() if self.quantized else None,
            "metadata": dict(self.metadata),
        }

    def __repr__(self) -> str:
        """The file, what is in it, and how well it agrees."""
        kind = f"ONNX, opset {self.opset}" if self.opset else self.kind
        differs = "not checked" if self.agreement is None else f"differs from torch by {self.agreement.largest:.1e}"
        return printable(f"Exported({self.path}: {self.model}, {kind}, {self.bytes:,} bytes, {differs})")

    def _repr_html_(self) -> str:
        """The same, and what the file takes."""
        return f"<div>{html.escape(repr(self))}<br>takes {html.escape(self.usage)}</div>"


def export(
    classifier: Classifier,
    output: Path,
    *,
    origin: Mapping[str, str] = MappingProxyType({}),
    format: str | Component = "onnx",
    opset: int | None = None,
    batch: int | None = None,
    takes: Takes = PREPARED,
    check: bool = True,
    tolerance: float = Tolerance,
    int8: Int8Images | None = None,
) -> Exported:
    """Write a model as ONNX, as a torch.export program or by a plugin's exporter; a file that is there is replaced.

    Args:
        origin: what is known of its weights, for the file's metadata; see `zoo.export.facts.origin_of`.
        format: its name, or the exporter that writes it.
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
    exporting = check_options(output, format, opset, batch)
    metadata = facts(classifier, origin, takes=takes, batch=batch)
    usage = describe(classifier, takes=takes)
    program = trace(classifier, batch=batch, takes=takes, largest_batch=exporting.largest_batch)
    about = ToExport(classifier.name, takes, OUTPUT, usage, MappingProxyType(metadata), batch)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".zoo-tmp-") as temporary:
            written = Path(temporary) / output.name
            details = exporting.write(program, written, about)
            checked = None
            if check:
                checked = _checked(classifier, written, exporting, batch, takes, tolerance)
            quantized = None
            if int8 is not None:
                quantized = quantize(written, classifier, int8, takes)
                metadata = {**metadata, **quantized.facts()}
            size = sum(path.stat().st_size for path in Path(temporary).iterdir())
            _write_facts(written.with_name(f"{output.name}.json"), metadata, usage)
            files = _move(Path(temporary), output)
    except OSError as error:
        raise WriteError(f"{output}: cannot be written: {error.strerror or error}") from error
    return Exported(
        path=output,
        files=files,
        format=exporting.name,
        model=classifier.name,
        parameters=classifier.parameter_count,
        bytes=size,
        details=details,
        agreement=checked,
        metadata=metadata,
        usage=usage,
        quantized=quantized,
    )


def check_options(output: Path, format: str | Component, opset: int | None, batch: int | None) -> Exporting:
    """Refuse what `export` would refuse, before a model is built for it.

    Returns:
        What writes the format.
    Raises:
        InputError: a wrong option, no such format, or a library that is missing. PluginError: a plugin's is missing.
    """
    if batch is not None and not (isinstance(batch, int) and batch >= 1):
        raise InputError(f"--batch {batch}: a batch has at least 1 image; or --batch dynamic")
    component = format if isinstance(format, Component) else find_format(format)
    suffix = component.suffix
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder; name a file: {output / f'model{suffix}'}")
    if not output.name.endswith(suffix):
        raise InputError(f"--output {output}: a file of format {component.name} ends in {suffix}")
    return start(component, opset=opset)


def _checked(
    classifier: Classifier, written: Path, exporting: Exporting, batch: int | None, takes: Takes, tolerance: float
) -> Agreement:
    run = exporting.runner(written)
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
