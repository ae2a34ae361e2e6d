"""TensorBoard: event files in the folder `tensorboard` of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import PluginError
from zoo.plugin import install_line
from zoo_loggers.scalars import of_epoch, of_record, of_result

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise PluginError(f"the logger tensorboard needs its library: {install_line('tensorboard')}") from error


class TensorBoard:
    """Writes scalars for each epoch."""

    def __init__(self, folder: Path) -> None:
        self.writer = SummaryWriter(str(folder / "tensorboard"))
        self.epochs = 0

    def start(self, record: Mapping[str, Any], parameters: int) -> None:
        """Write what is trained."""
        facts = {**of_record(record), "parameters": parameters}
        self.writer.add_text("run", f"```\n{json.dumps(facts, indent=2)}\n```")

    def epoch(self, row: Mapping[str, Any], best: bool) -> None:
        """Write the epoch's numbers."""
        del best
        self.epochs = int(row["epoch"])
        for name, value in of_epoch(row).items():
            self.writer.add_scalar(name, value, self.epochs)
        self.writer.flush()

    def end(self, result: Mapping[str, Any]) -> None:
        """Write the result, and close the file."""
        for name, value in of_result(result).items():
            self.writer.add_scalar(name, value, self.epochs)
        self.writer.close()


def tensorboard(*, folder: Path) -> TensorBoard:
    """The listener of a run.

    Args:
        folder: the run folder.
    """
    return TensorBoard(folder)
