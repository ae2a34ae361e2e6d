"""trackio and Weights & Biases, whose interfaces are alike: init, log, finish."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.errors import PluginError
from zoo.plugin import install_line
from zoo_loggers.scalars import of_epoch, of_record, of_result

PROJECT = "hybrid-zoo"


class Tracker:
    """One run of a tracker, begun when training begins."""

    def __init__(self, library: Any, options: Mapping[str, Any]) -> None:
        self.library, self.options, self.run, self.last = library, options, None, 0

    def start(self, record: Mapping[str, Any], parameters: int) -> None:
        """Begin the run with what is trained."""
        config = {**of_record(record), "parameters": parameters}
        self.run = self.library.init(project=PROJECT, config=config, **self.options)

    def epoch(self, row: Mapping[str, Any], best: bool) -> None:
        """Log the epoch's numbers."""
        del best
        self.last = int(row["epoch"])
        self.library.log(of_epoch(row), step=self.last)

    def end(self, result: Mapping[str, Any]) -> None:
        """Log the result, and end the run."""
        if self.run is None:
            return
        if final := of_result(result):
            self.library.log(final, step=self.last + 1)
        self.library.finish()


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise PluginError(f"the logger {name} needs its library: {install_line(name)}") from error


def trackio(*, folder: Path) -> Tracker:
    """The listener of a run for trackio.

    Args:
        folder: the run folder; its name is the run's.
    """
    return Tracker(_library("trackio"), {"name": folder.resolve().name})


def wandb(*, folder: Path) -> Tracker:
    """The listener of a run for Weights & Biases; WANDB_MODE=offline keeps it in the run folder.

    Args:
        folder: the run folder; its name is the run's.
    """
    return Tracker(_library("wandb"), {"name": folder.resolve().name, "dir": str(folder)})
