"""Energy used during a training, as measured by the hardware: GPUs by NVML, processors by RAPL.

Both count the whole device, including other work that it does meanwhile. If neither can be read, there is
no result. An interrupted run keeps the count of its last finished epoch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from zoo.base.files import write_text

FILE = "energy.json"
RAPL = Path("/sys/class/powercap")
JOULES_PER_WH = 3600.0


class Counter(NamedTuple):
    """An energy counter: its name, a function that reads joules, and the value at which it wraps (0: never)."""

    name: str
    read: Callable[[], float]
    wraps_at: float = 0.0


def counters(device: str, rapl: Path = RAPL) -> list[Counter]:
    """The readable counters for a run on `device` ("cpu", "cuda:0")."""
    readable = _nvml(device) if device.startswith("cuda") else []
    for zone in sorted(rapl.glob("*-rapl:*")) if rapl.is_dir() else ():
        if zone.name.count(":") == 1:  # a processor package; deeper zones are parts of it
            with contextlib.suppress(OSError, ValueError):
                read = partial(_joules, zone / "energy_uj")
                read()
                readable.append(Counter("rapl", read, _joules(zone / "max_energy_range_uj")))
    return readable


def _joules(file: Path) -> float:
    return float(file.read_text()) / 1e6


def _nvml(device: str) -> list[Counter]:
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return []
    return [Counter("nvml", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)]


class Meter:
    """Sums the counters from its creation on, starting from the sum that an earlier part of the run stored."""

    def __init__(self, folder: Path, sources: Sequence[Counter]) -> None:
        self.path, self.sources = folder / FILE, sources
        earlier = recorded(folder)
        self.joules = earlier["joules"] if earlier else 0.0
        self.last = [source.read() for source in sources]

    def keep(self) -> None:
        """Read the counters and write the sum to the folder; does nothing without counters."""
        if not self.sources:
            return
        now = [source.read() for source in self.sources]
        for source, before, after in zip(self.sources, self.last, now, strict=True):
            self.joules += after - before + (source.wraps_at if after < before else 0.0)
        self.last = now
        names = "+".join(dict.fromkeys(source.name for source in self.sources))
        write_text(self.path, json.dumps({"joules": round(self.joules, 3), "from": names}) + "\n")


def recorded(folder: Path) -> dict[str, Any] | None:
    """The joules that a run used, and the counters; None if nothing was measured."""
    try:
        stored: dict[str, Any] = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return stored
