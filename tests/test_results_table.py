"""results/results.csv: every published and every recorded result, as the catalogue and the records have it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import results_table
from benchmarks.results_table import COLUMNS, ROOT, TABLE, rows, text, with_flops
from zoo.catalogue.registry import Registry, load_registry

AGAIN = "run `python benchmarks/results_table.py`"


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(TABLE.read_text("utf-8"))))


def has(table: list[dict[str, str]], **wanted: Any) -> bool:
    """Whether a row has these cells; accuracies as far as the catalogue rounds them."""
    top1 = wanted.pop("top1")
    same = [row for row in table if all(row[key] == str(value) for key, value in wanted.items())]
    return any(abs(float(row["top1"] or 0) - (top1 or 0)) < 1e-4 for row in same)


def test_the_table_is_what_the_catalogue_and_the_records_say(table: list[dict[str, str]], registry: Registry) -> None:
    made = csv.DictReader(io.StringIO(text(rows(registry, ROOT / "results"))))
    assert list(made.fieldnames or ()) == list(COLUMNS)
    assert list(made) == [row | {"flops": ""} for row in table], AGAIN


@pytest.mark.slow
def test_the_whole_file_is_made_again(registry: Registry) -> None:
    assert text(with_flops(rows(registry, ROOT / "results"), registry)) == TABLE.read_text("utf-8"), AGAIN


def test_flops_are_those_of_the_catalogues_models(table: list[dict[str, str]], registry: Registry) -> None:
    some = [row for row in rows(registry, ROOT / "results") if row["model"] == "cnn-baseline"]
    counted = [str(row["flops"]) for row in with_flops(some, registry)]
    assert counted == [row["flops"] for row in table if row["model"] == "cnn-baseline"]
    (other,) = with_flops([some[-1] | {"kind": "ours", "parameters": 1}], registry)
    assert other["flops"] is None
    assert "flops" not in with_flops([{"model": "no-such", "dataset": "cifar10"}], registry)[0]


def test_every_published_and_measured_result_of_the_catalogue_is_there(
    table: list[dict[str, str]], registry: Registry
) -> None:
    for name, model in registry.models.items():
        for row in model.published:
            facts = {"kind": "published", "model": name, "dataset": row.dataset, "top1": row.top1}
            assert has(table, **facts), facts
        for one in model.measured:
            facts = {"kind": "ours", "model": name, "dataset": one.dataset, "protocol": one.protocol}
            facts |= {"recipe": one.recipe, "record": one.record, "top1": one.top1}
            assert has(table, **facts), facts


def recorded() -> Iterator[tuple[str, Any]]:
    """Every accuracy that a record states as a model's result, with the record's name.

    A benchmark's record has means of other figures as well (seconds, recipes on data made for it).
    """

    def walk(value: Any, keys: tuple[str, ...]) -> Iterator[Any]:
        if isinstance(value, dict):
            yield from (value[key] for key in keys if isinstance(value.get(key), float))
            for inside in value.values():
                yield from walk(inside, keys)

    for path in sorted((ROOT / "results").glob("*.json")):
        read = json.loads(path.read_text("utf-8"))
        if isinstance(read, dict) and {"summary", "peers"} <= read.keys():  # of a speedrun, which sums up seconds too
            yield path.name, read["summary"]["top1"]["mean"]
            continue
        study = isinstance(read, dict) and "table" in read
        benchmark = isinstance(read, dict) and str(read.get("command")).startswith("python benchmarks/")
        stated = walk(read, ("top1_mean",) if benchmark else ("top1_mean", "mean"))
        yield from ((path.name, top1) for top1 in ([row["top1"] for row in read["rows"]] if study else stated))


def test_every_record_of_an_accuracy_is_there(table: list[dict[str, str]]) -> None:
    found = list(recorded())
    assert len(found) == len([row for row in table if row["kind"] == "ours" and row["commit"]])
    for name, top1 in found:
        assert has(table, record=f"results/{name}", top1=top1), (name, top1)


def test_weights_stand_beside_their_result_or_in_a_row_of_their_own(registry: Registry) -> None:
    dataset = "cifar10-grayscale"
    model, recipe = registry.models["cnn-baseline"], "best-small-cnn-5x"
    (top1,) = (one.top1 for one in model.measured if (one.dataset, one.recipe) == (dataset, recipe))
    known = {"dataset": dataset, "recipe": recipe, "protocol": "clean", "top1": top1}
    entry = SimpleNamespace(**known, record="results/cnn-to-others.json", where="wheel:a.safetensors")
    found = rows(registry, ROOT / "results")
    count = len(found)
    results_table._add(found, results_table._with_weights("cnn-baseline", model, entry))
    assert len(found) == count
    (row,) = [row for row in found if row.get("weights") == f"cnn-baseline@{dataset} (wheel:a.safetensors)"]
    assert row["commit"]
    results_table._add(
        found,
        results_table._with_weights(
            "cnn-baseline", model, SimpleNamespace(**known | {"top1": 0.8}, record="", where="x")
        ),
    )
    assert len(found) == count + 1
