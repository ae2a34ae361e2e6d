"""What compiling costs and saves on this machine: tried once for a model and a batch, and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from zoo.base.files import make_folder, write_text
from zoo.base.paths import cache_dir
from zoo.errors import DeviceError
from zoo.models.device import Hardware, describe, mean_seconds, synchronize
from zoo.runs.record import RunRecord
from zoo.train.speed.compiled import ASSUMED_SECONDS, Compiler

FORMAT = 1
STEPS = 9


class Trial(NamedTuple):
    """What was measured: seconds until the first compiled step was done, and of each step after it."""

    seconds: float
    step: float


class Trials:
    """The trials of a machine: one file in the cache folder for each device and version of torch.

    Attributes:
        failed: why the last trial gave nothing; "" if it did.
    """

    def __init__(self, record: RunRecord, hardware: Hardware, measure: Callable[[], Trial]) -> None:
        """Look up nothing yet.

        Args:
            record: of the run; its model, image size and batch size say what is compiled. measure: makes a trial.
        """
        here = json.dumps([FORMAT, describe(hardware.device), torch.__version__])
        what = [record.build, record.sizes, record.settings.batch_size, record.settings.dropout]
        how = [hardware.precision, hardware.channels_last]
        self.measure, self.failed = measure, ""
        self.path = cache_dir() / "compile" / f"{hashlib.sha256(here.encode()).hexdigest()[:24]}.json"
        self.key = hashlib.sha256(msgspec.json.encode([what, how], order="deterministic")).hexdigest()[:24]

    def known(self) -> Trial | None:
        """What an earlier trial of this model and batch gave."""
        return _read(self.path).get(self.key)

    def expected(self) -> float:
        """Seconds that a trial will take: the median of those that were made here; before the first, an assumption."""
        return statistics.median([trial.seconds for trial in _read(self.path).values()] or [ASSUMED_SECONDS])

    def made(self) -> Trial | None:
        """Try it now and keep what was found; None where the compiler fails."""
        try:
            trial = self.measure()
        except DeviceError as error:
            self.failed = str(error)
            return None
        kept = {**_read(self.path), self.key: trial}
        try:
            make_folder(self.path.parent)
            write_text(self.path, json.dumps({key: list(one) for key, one in kept.items()}))
        except OSError:
            pass  # the next run tries it again
        return trial


def _read(path: Path) -> dict[str, Trial]:
    """The trials in a file; none where there is no such file, or a damaged one."""
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[float, float]])
    except (OSError, msgspec.DecodeError):
        return {}
    return {key: Trial(*row) for key, row in rows.items()}


def try_compiled(module: nn.Module, shape: tuple[int, ...], hardware: Hardware) -> Trial:
    """Compile a forward and backward pass as a run in the mode "default" does, and time it.

    The compiler keeps what it made on the disk, so that a run which compiles afterwards waits less.

    Args:
        module: in training mode, on the device; its gradients and running statistics change.
        shape: of the random images, (B, C, H, W).
    Raises:
        DeviceError: the compiler fails.
    """
    images = torch.rand(shape, device=hardware.device).to(memory_format=hardware.memory_format)
    compiler = Compiler("default", hardware.device)
    forward = compiler(module, graphs=True)

    def step(images: Tensor) -> None:
        compiler.next_step()
        with hardware.autocast():
            loss = forward(images).float().square().mean()
        loss.backward()
        module.zero_grad()

    began = time.perf_counter()
    step(images)
    synchronize(hardware.device)
    seconds = time.perf_counter() - began
    took = [mean_seconds(lambda: step(images), 1, hardware.device) for _ in range(STEPS + 3)]
    return Trial(seconds, statistics.median(took[3:]))
