"""Choosing among runs: by model, dataset and state, the best of each, and in an order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from zoo.errors import InputError, UnknownNameError
from zoo.runs.find import Run, State, best_of_each, folders_of, row_of

Order = Literal["name", "model", "dataset", "top1", "loss", "parameters", "epochs", "seconds", "modified", "state"]


def chosen(
    runs: Sequence[Run],
    words: Sequence[str],
    *,
    model: str = "",
    dataset: str = "",
    state: State | None = None,
    best: bool = False,
    sort: Order | Literal["given"] = "name",
) -> list[Run]:
    """The runs that match, in order.

    Args:
        words: by which the runs were found: their order is "given".
        model, dataset: a glob, or a part of the name. best: only the best run of each model, dataset and protocol.
        sort: top-1 and dates from the largest, other numbers from the smallest, text from a to z, unknown last.
    Raises:
        UnknownNameError: a model or a dataset that neither a run has nor the catalogue.
        InputError: a state or an order that there is not.
    """
    refuse_words(state, sort)
    refuse_unknown("model", model, {run.record.model for run in runs})
    refuse_unknown("dataset", dataset, {run.record.data.spec for run in runs})
    left = [
        run
        for run in runs
        if matches(run.record.model, model) and matches(run.record.data.spec, dataset) and state in (None, run.state)
    ]
    left = best_of_each(left) if best else left
    return as_given(left, words) if sort == "given" else sorted(left, key=key_of(sort))


def matches(value: str, pattern: str) -> bool:
    """Whether a name matches a glob, or contains the text."""
    glob = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    return not pattern or fnmatchcase(value, glob)


def refuse_words(state: str | None, sort: str) -> None:
    """Refuse a state or an order that there is not.

    Raises:
        InputError: names those that there are.
    """
    for name, value, allowed in (
        ("state", state, (None, *get_args(State))),
        ("sort", sort, (*get_args(Order), "given")),
    ):
        if value not in allowed:
            words = ", ".join(word for word in allowed if word)
            raise InputError(f"{name} {value!r} is not known; allowed: {words}")


def refuse_unknown(option: str, pattern: str, values: set[str]) -> None:
    """Refuse a model or a dataset that neither a run has nor the catalogue.

    Raises:
        UnknownNameError: names those that runs have.
    """
    if not pattern or any(matches(value, pattern) for value in values):
        return
    from zoo.catalogue.registry import load_registry

    registry = load_registry()
    if any(matches(name, pattern) for name in (registry.models if option == "model" else registry.datasets)):
        return
    hint = "" if values else "there are no runs; `zoo train MODEL --dataset NAME` creates one below runs/"
    raise UnknownNameError(f"run with the {option}", pattern, values, hint)


def key_of(sort: str) -> Callable[[Run], Any]:
    """Sort key: text from a to z, top-1 and dates from the largest, other numbers from the smallest, unknown last."""

    def key(run: Run) -> tuple[bool, Any, str]:
        if sort == "name":
            return False, run.name, run.name
        row = row_of(run)
        value = row["map"] if sort == "top1" and row["top1"] is None else row[sort]
        if value is not None and sort in ("top1", "modified"):
            value = -value
        return value is None, 0 if value is None else value, run.name

    return key


def as_given(runs: Sequence[Run], words: Sequence[str]) -> list[Run]:
    """The runs in the order of the words that name them; others last."""
    places = [folders_of(word) for word in words]

    def place(run: Run) -> int:
        folder = run.folder.resolve()
        return next((i for i, folders in enumerate(places) if folder in folders), len(places))

    return sorted(runs, key=place)
