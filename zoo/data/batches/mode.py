"""Resident or streamed: whether a dataset's decoded images fit where they would lie, in numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from zoo.base.memory import host_memory
from zoo.base.text import plural
from zoo.errors import InputError

DataMode = Literal["auto", "resident", "stream"]

SHARE = 0.5
"""The part of the free memory that images may take; the rest is the model's."""


class Delivery(NamedTuple):
    """How the images of a dataset are to be delivered.

    Attributes:
        workers: processes that decode streamed files; None: by the cores. device: where they are needed.
    """

    mode: DataMode = "resident"
    workers: int | None = None
    device: str = "cpu"

    def check(self) -> None:
        """Refuse an unknown mode.

        Raises:
            InputError: lists the known ones.
        """
        if self.mode not in get_args(DataMode):
            raise InputError(f"no data mode named {self.mode!r}; allowed: {', '.join(get_args(DataMode))}")


class Fit(NamedTuple):
    """Whether all images fit, and the arithmetic in words."""

    fits: bool
    why: str


def fit(count: int, size: tuple[int, int], device: str, *, disk: Path | None, decoded: Callable[[], bool]) -> Fit:
    """Compare what the decoded images take with what is free.

    Args:
        count: images of all splits. size: (height, width). device: as torch names it.
        disk: folder of the decoded cache, where there has to be one. decoded: whether it is there already.
    """
    need = count * 3 * size[0] * size[1]
    sums = f"{plural(count, 'image')} x 3 x {size[0]} x {size[1]} bytes = {_gigabytes(need)}"
    free, where = _free(device)
    room = f"{_gigabytes(free)} free {where}, of which images may take {SHARE:.0%}"
    if need > SHARE * free:
        return Fit(False, f"{sums}; {room}")
    space = shutil.disk_usage(_existing(disk)).free if disk is not None else 0
    if disk is not None and need > SHARE * space and not decoded():
        return Fit(False, f"{sums}; {room}; {_gigabytes(space)} free for the decoded cache, {SHARE:.0%} of it ours")
    return Fit(True, f"{sums}; {room}")


def refuse_batch(batch: int, size: tuple[int, int], device: str) -> None:
    """Refuse a batch whose pixels alone do not fit, as float32.

    Raises:
        InputError: says the arithmetic.
    """
    need, (free, where) = batch * 3 * size[0] * size[1] * 4, _free(device)
    if need > free:
        raise InputError(
            f"a batch of {plural(batch, 'image')} of {size[1]}x{size[0]} pixels takes {_gigabytes(need)}, and "
            f"{_gigabytes(free)} are free {where}; give a smaller --image-size or --batch-size"
        )


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 5e6 else f"{count / 1e6:.2f} MB"


def _existing(folder: Path) -> Path:
    return folder if folder.is_dir() else _existing(folder.parent)


def _free(device: str) -> tuple[int, str]:
    """Bytes free on the device, and its name in words."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0], f"on {device}"
    return host_memory(), "in memory"
