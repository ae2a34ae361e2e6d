"""A traced program as torch saves it (.pt2), and the file loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import torch
from torch.export import ExportedProgram

from zoo.export.agree import Run
from zoo.plugin.exporter import ToExport

FACTS: Final = "zoo.json"
"""The extra file of the archive with what ONNX has as metadata."""


class TorchProgram:
    """Writes and loads such files."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        """Write the program; `torch.export.load` reads it where hybrid-zoo is not installed.

        Returns:
            The version of torch.export.
        """
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)  # the paths of this machine
        extra = {FACTS: json.dumps(dict(about.metadata), ensure_ascii=False)}
        torch.export.save(program, path, extra_files=extra)
        return {"torch.export": str(torch.__version__)}

    def runner(self, path: Path) -> Run:
        """The file, loaded again."""
        run: Run = torch.export.load(path).module()
        return run


def torch_program() -> TorchProgram:
    """The exporter of the format "torch"."""
    return TorchProgram()
