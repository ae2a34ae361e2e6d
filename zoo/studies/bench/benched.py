"""What `zoo.bench` gives: a row of measurements for each model; nothing here imports torch."""

from __future__ import annotations

import copy
import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.base.tables import Table
from zoo.base.text import plural
from zoo.errors import DeviceError, InputError

WHAT = ("train", "infer", "latency", "loop")
MODELS = ("cnn-baseline", "resnet18", "vit-cifar", "mixer-s8-32", "hybrid-alt-1")
"""What is measured if nobody says what."""

SHOWN = ("model", "parameters", "flops_forward", "train", "infer", "loop", "latency", "memory", "error")


@dataclass(frozen=True, repr=False, eq=False)
class Bench:
    """The speed of models on this machine.

    Attributes:
        document: all measurements, with the settings and the environment, as plain data: "environment" (versions and
            machine; None if nothing could be measured), "settings" (how it was measured) and "rows".
    """

    document: Mapping[str, Any]

    @property
    def rows(self) -> Table:
        """A row for each model.

        `parameters`, `flops_forward` and `flops_step` (FLOPs of one image), and a table for each measurement: `train`
        and `infer` (images per second, milliseconds per batch), `latency` (milliseconds of one image), `loop` (the
        training loop's speed as a share of its bare step's), `memory` (bytes), `matrix` (FLOP/s of a matrix product).
        A spread has median, q1, q3 and n. A model that could not be measured has only `model` and `error`.
        """
        return Table(self._rows)

    @property
    def errors(self) -> dict[str, str]:
        """Why models could not be measured, by their names."""
        return {row["model"]: row["error"] for row in self._rows if "error" in row}

    def check(self) -> None:
        """Refuse what is not whole.

        Raises:
            DeviceError: some models could not be measured; names them.
        """
        if failed := list(self.errors):
            count = plural(len(self._rows), "model")
            raise DeviceError(f"{len(failed)} of {count} could not be measured: {', '.join(failed)}")

    def as_dict(self) -> dict[str, Any]:
        """All measurements as plain data: what `zoo bench --json` prints."""
        return copy.deepcopy(dict(self.document))

    def to_csv(self) -> str:
        """The rows as CSV: nested names joined by dots, `error` last; lists are left out."""
        flat = [dict(_flat(row)) for row in self._rows]
        names = {name: None for row in flat for name in row if name != "error"}
        file = io.StringIO()
        writer = csv.DictWriter(file, [*names, "error"], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        return file.getvalue()

    @property
    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.document["rows"]
        return rows

    @property
    def _shown(self) -> Table:
        rows = [{**row, **{name: _median(row.get(name)) for name in WHAT}} for row in self._rows]
        there = [name for name in SHOWN if any(row.get(name) is not None for row in rows)]
        return Table([{**row, "memory": _most(row.get("memory"))} for row in rows], there)

    @property
    def _told(self) -> str:
        settings = self.document["settings"]
        return (
            f"{', '.join(settings['what'])} with batches of {settings['batch_size']}: images/s of train and infer, "
            "the loop's share of its step, ms of latency, bytes of memory; medians"
        )

    def __repr__(self) -> str:
        """The medians, a line for each model."""
        return f"{self._told}\n{self._shown!r}"

    def _repr_html_(self) -> str:
        """The medians, a row for each model."""
        return f"<p>{html.escape(self._told)}</p>{self._shown._repr_html_()}"


def bench_of(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Bench:
    """The rows of all processes; they ran on one machine, which is told once."""
    environment = next((row["environment"] for row in rows if "environment" in row), None)
    without = [{key: value for key, value in row.items() if key != "environment"} for row in rows]
    return Bench({"environment": environment, "settings": dict(settings), "rows": without})


def parts_of(what: str | Sequence[str]) -> tuple[str, ...]:
    """The measurements to take: "train,loop", or a sequence of names.

    Raises:
        InputError: there is no such measurement, or none was named.
    """
    words = what.split(",") if isinstance(what, str) else what
    parts = tuple(part.strip() for part in words if part.strip())
    unknown = [part for part in parts if part not in WHAT]
    if unknown or not parts:
        given = what if isinstance(what, str) else ",".join(what)
        raise InputError(f"--what {given!r}: no measurement named {(unknown or [''])[0]!r}; allowed: {', '.join(WHAT)}")
    return parts


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            pairs += _flat(inner, f"{prefix}{key}.")
        elif not isinstance(inner, list):
            pairs.append((f"{prefix}{key}", inner))
    return pairs


def _median(measured: Mapping[str, Any] | None) -> float | None:
    """The number of a measurement that people compare: images per second, the loop's share, or milliseconds."""
    if measured is None:
        return None
    spread = measured.get("share") or measured.get("images_per_second") or measured["milliseconds"]
    return float(spread["median"])


def _most(memory: Mapping[str, Any] | None) -> int | None:
    return None if memory is None else memory.get("train") or memory.get("infer")
