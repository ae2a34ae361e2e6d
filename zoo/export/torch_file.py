"""A traced program as torch saves it (.pt2), and the file loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.export import ExportedProgram

from zoo.export.agree import Run
from zoo.export.graph import ExportError, first

FACTS: Final = "zoo.json"
"""The extra file of the archive with what ONNX has as metadata."""


def write(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """Write the program; `torch.export.load` reads it where hybrid-zoo is not installed.

    Raises:
        ExportError: torch cannot save it.
    """
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # the paths of this machine
    try:
        torch.export.save(program, path, extra_files={FACTS: json.dumps(metadata, ensure_ascii=False)})
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"cannot be saved by torch.export: {first(error)}") from error


def runner(path: Path) -> Run:
    """The file, loaded again.

    Raises:
        ExportError: torch cannot load what it saved.
    """
    try:
        module = torch.export.load(path).module()
    except Exception as error:
        raise ExportError(f"the written program cannot be loaded: {first(error)}") from error

    def run(images: Tensor) -> Tensor:
        try:
            with torch.inference_mode():
                logits: Tensor = module(images)
        except Exception as error:
            raise ExportError(f"the program cannot run a batch of {len(images)}: {first(error)}") from error
        return logits

    return run
