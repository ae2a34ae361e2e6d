"""A whole source as one table: each published result, and ours beside it as they were recorded; nothing is trained.

Ours come from three places: the records of `zoo reproduce` in the folder of results, the weights of the catalogue, and
the catalogue's entries `measured`, for whoever has no such folder. A measurement that stands in several of them is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Measured, Model, Published, TrainedWeights
from zoo.catalogue.weights import AT, find_weights_of
from zoo.errors import InputError, ZooError
from zoo.runs.folder import read_result
from zoo.studies.reproduce.recorded import commits, read_tables
from zoo.studies.reproduce.rows import Ask, Row, rows_of
from zoo.studies.reproduce.standing import standing

PAPER_COLUMNS = (
    *("model", "dataset", "published_top1", "top1", "difference", "by", "seeds", "spread", "standing"),
    *("images", "device", "commit", "note"),
)
"""The columns that a terminal, a notebook and the documentation show."""

CLOSE = 5e-5
"""How far the catalogue's rounded accuracy may be from that of the same measurement in a record."""

_OF_TRAINING = (
    *("seeds", "first_seed", "budget", "recipe", "dataset", "epochs", "limit_train", "limit_test", "protocol"),
    *("device", "runs", "data_dir", "checkpoint_seconds"),
)


def is_whole_source(target: str, registry: Registry) -> bool:
    """Whether a target is a source with all its tables."""
    return target in registry.sources


def refuse_training_options(ask: Ask, how: Sequence[str] = ()) -> None:
    """Refuse options that decide a training where nothing is trained.

    Args:
        how: other options that were given, by their names.
    Raises:
        InputError: names the first, and what to do.
    """
    plain = Ask(target=ask.target)
    given = [name.replace("_", "-") for name in _OF_TRAINING if getattr(ask, name) != getattr(plain, name)]
    given += how
    if given:
        raise InputError(
            f"{ask.target} is a whole source, which is shown as it is recorded, without training, so "
            f"--{given[0]} has no meaning; add --train to train its rows, or name one table of it"
        )


def paper_rows(ask: Ask, registry: Registry, results: Path) -> list[dict[str, Any]]:
    """The rows of a source: for each published result, one row for each measurement of ours, or one that says why not.

    Args:
        ask: its `target` is a source; `only` selects rows. results: the folder of the records.
    Returns:
        Tables of plain data with the columns `PAPER_COLUMNS` and "protocol", "recipe", "record", "published_as".
        Accuracies, `difference` and `spread` are fractions; `seeds` is a number; `by` is "source", "best", or the
        recipe's name; `standing` is as `zoo.studies.reproduce.standing` says.
    """
    stored = list(_stored(results))
    return [line for row in rows_of(ask, registry) for line in _lines(row, stored, registry)]


def _lines(row: Row, stored: Sequence[dict[str, Any]], registry: Registry) -> Iterator[dict[str, Any]]:
    published = row.published or Published(dataset=row.dataset)
    measured = [_recorded(line) for line in stored if _is_of(line, row, published)]
    model = registry.model(row.model)
    if not row.weights:  # a row that begins with pretrained weights shares its model with one that does not
        for other in (*_of_weights(row, model, registry), *_of_catalogue(row, model)):
            if not any(_is_same(other, known) for known in measured):
                measured.append(other)
    measured.sort(key=lambda line: (line["protocol"] != "paper", -line["top1"]))
    for line in measured or [{"note": published.not_measured or row.why_not}]:
        yield _line(row, published, model, line)


def _line(row: Row, published: Published, model: Model, ours: dict[str, Any]) -> dict[str, Any]:
    top1, known = ours.get("top1"), published.top1
    by = {row.recipe: "source", published.best or model.best: "best"}
    difference = top1 - known if top1 is not None and known is not None else None
    return {
        "model": row.name,
        "dataset": row.dataset,
        "published_top1": known,
        "top1": top1,
        "difference": difference,
        "by": by.get(ours["recipe"], ours["recipe"]) if ours.get("recipe") else "",
        "seeds": ours.get("seeds", 0),
        "spread": ours.get("spread"),
        "standing": standing(difference, ours.get("spread"), ours.get("seeds", 0)),
        "images": ours.get("images", ""),
        "device": ours.get("device", ""),
        "commit": ours.get("commit", ""),
        "note": ours.get("note", ""),
        "protocol": ours.get("protocol", ""),
        "recipe": ours.get("recipe", ""),
        "record": ours.get("record", ""),
        "published_as": published.published_as,
    }


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same = all(one[key] == other[key] for key in ("protocol", "recipe"))
    return same and abs(one["top1"] - other["top1"]) < CLOSE


# ---- the records ------------------------------------------------------------------------------


def _stored(results: Path) -> Iterator[dict[str, Any]]:
    """The rows of all tables in the folder that were measured in full, with their file's name."""
    for path, rows in read_tables(results):
        for row in rows:
            if row["budget"] == "full" and row["top1"] is not None:
                yield {**row, "record": path.as_posix()}


def _is_of(line: dict[str, Any], row: Row, published: Published) -> bool:
    mine = (line["model"], line["dataset"], line["source"], line["variant"])
    return mine == (row.model, row.dataset, row.source, "") and line["published_as"] == published.published_as


def _recorded(line: dict[str, Any]) -> dict[str, Any]:
    """What a record of `zoo reproduce` says."""
    environments = [run["result"]["environment"] for run in line["runs"]]
    kept = {key: line[key] for key in ("top1", "spread", "protocol", "recipe", "record")}
    return kept | {
        "seeds": len(line["seeds"]),
        "images": images_name(line["images"]),
        "device": ", ".join(dict.fromkeys(each.get("device", "") for each in environments)),
        "commit": ", ".join(commits(line)),
        "note": line.get("note", ""),
    }


def images_name(spec: str) -> str:
    """A short name for the images of a SPEC: the last two parts of its path, without options."""
    _, mark, rest = spec.partition(":")
    return "/".join((rest if mark else spec).partition("?")[0].split("/")[-2:])


# ---- the catalogue ----------------------------------------------------------------------------


def _of_weights(row: Row, model: Model, registry: Registry) -> Iterator[dict[str, Any]]:
    """What the packages of the model's weights say; those that are not installed say what their entry does."""
    for entry in model.weights:
        if entry.dataset == row.dataset:
            result = _result(row.model, entry, registry)
            kept = {key: getattr(entry, key) for key in ("top1", "protocol", "recipe", "note")}
            kept |= {"device": result["environment"].get("device", "") if result else ""}
            kept |= {"commit": ", ".join(commits({"runs": [{"result": result}]})) if result else ""}
            yield kept | {"seeds": 1, "images": entry.dataset, "record": entry.where}


def _result(name: str, entry: TrainedWeights, registry: Registry) -> dict[str, Any] | None:
    try:
        found = find_weights_of(f"{name}{AT}{entry.dataset}", registry)
        if found is None or not Path(found.reference).is_dir():
            return None
        result: dict[str, Any] = read_result(Path(found.reference))
    except ZooError:
        return None
    return result if "environment" in result else None


def _of_catalogue(row: Row, model: Model) -> Iterator[dict[str, Any]]:
    for entry in model.measured:
        if entry.dataset == row.dataset:
            kept: dict[str, Any] = {key: getattr(entry, key) for key in Measured.__struct_fields__}
            yield kept
