"""Models as files for other runtimes: ONNX and torch.export, each held against the module that it came from."""

from zoo.export.agree import Agreement, Tolerance
from zoo.export.target import Target, from_catalogue, from_run
from zoo.export.write import Exported, Format, export

__all__ = [
    "Agreement",
    "Exported",
    "Format",
    "Target",
    "Tolerance",
    "export",
    "from_catalogue",
    "from_run",
]
