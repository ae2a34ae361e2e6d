"""A traced program as an ONNX file, and the file run by ONNX Runtime."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from zoo.base.install import install_line
from zoo.base.streams import printing_to
from zoo.base.version import __version__
from zoo.errors import InputError
from zoo.export.agree import Run
from zoo.export.facts import OUTPUT
from zoo.export.graph import ExportError, first
from zoo.plugin.exporter import ToExport

NEEDED: Final = ("onnx", "onnxscript", "onnxruntime")
OLDEST: Final = 18
"""The oldest opset that torch's exporter has operators for."""

ONE_FILE: Final = 1_500_000_000
"""Bytes of weights that one file may hold: protobuf ends at 2 GiB. More lie beside it, in NAME.data."""


def missing_libraries() -> str:
    """Which libraries are missing, and how to install them; "" where none is."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"ONNX needs {', '.join(missing)}: {install_line('export')}" if missing else ""


def check_libraries(opset: int | None) -> None:
    """Refuse early, before anything is built.

    Raises:
        InputError: a library is missing, or there is no such opset.
    """
    if missing := missing_libraries():
        raise InputError(f"{missing}; or --format torch, which needs nothing")
    newest = importlib.import_module("onnx").defs.onnx_opset_version()
    if opset is not None and not OLDEST <= opset <= newest:
        raise InputError(f"--opset {opset}: torch's exporter and this onnx know {OLDEST} to {newest}")


def onnx(*, opset: int | None = None) -> Onnx:
    """The exporter of the format "onnx".

    Args:
        opset: the version of ONNX's operators; None: torch's own.
    Raises:
        InputError: see `check_libraries`.
    """
    check_libraries(opset)
    return Onnx(opset)


class Onnx:
    """Writes ONNX files by torch's exporter, and runs them by ONNX Runtime on the CPU."""

    def __init__(self, opset: int | None) -> None:
        self.opset = opset

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        """Write the program as ONNX.

        Returns:
            The opset.
        Raises:
            ExportError: an operator has no ONNX form in this opset.
        """
        with _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=self.opset,
                input_names=[about.input],
                output_names=[about.output],
                verbose=False,
            )
        assert made is not None
        model: Any = made.model
        got = int(model.opset_imports[""])
        if self.opset is not None and got != self.opset:
            raise ExportError(f"--opset {self.opset}: an operator of this model has no form in it; opset {got} has")
        _name(model, about)
        _save(model, path)
        return {"opset": got}

    def runner(self, path: Path) -> Run:
        """The file, checked against the standard and loaded."""
        return runner(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own lines: what matters is raised, or measured afterwards.

    stdout is ours, for the path of the file; onnxscript 0.6 prints there.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), printing_to(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _name(model: Any, about: ToExport) -> None:
    """Who made it and what it takes; without the paths of this machine that the exporter leaves in it."""
    metadata = about.metadata
    final = "sigmoid" if "zoo.thresholds" in metadata else "softmax"
    model.producer_name, model.producer_version = "hybrid-zoo", __version__
    model.graph.name = about.model
    model.doc_string = f"{about.model}: {about.usage}; `{about.output}`: float32, before {final}."
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in graph.all_nodes() if hasattr(graph, "all_nodes") else graph:
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    if about.batch is None:
        _name_batch(model, "batch")


def _name_batch(model: Any, batch: str) -> None:
    """The first axis of input and output under its name, which the exporter may have replaced by s77 or the like."""
    ir = importlib.import_module("onnx_ir")
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([batch, *list(value.shape)[1:]])


def _save(model: Any, path: Path) -> None:
    ir = importlib.import_module("onnx_ir")
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if weights > ONE_FILE:
        ir.save(model, path, external_data=f"{path.name}.data")
    else:
        ir.save(model, path)


def runner(path: Path) -> Run:
    """The file, checked against the standard and loaded by ONNX Runtime on the CPU.

    Raises:
        ExportError: it is no valid ONNX.
    """
    onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    try:
        onnx.checker.check_model(str(path), full_check=True)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"the written ONNX cannot be loaded: {first(error)}") from error
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        try:
            (logits,) = session.run([OUTPUT], {name: images.numpy()})
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot run a batch of {len(images)}: {first(error)}") from error
        return torch.from_numpy(logits)

    return run
