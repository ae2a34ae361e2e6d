"""What calls give, and the calls themselves, can be kept, copied and sent to other processes; tables do not change."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.base.tables import Table
from zoo.catalogue.model_rows import ModelTable
from zoo.export.write import Exported
from zoo.hub.search import Hit, Hits
from zoo.runs.api import Run
from zoo.studies.api import Sweep
from zoo.studies.bench.benched import Bench
from zoo.studies.report.written import Report

WAYS = (copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value)))


@pytest.mark.parametrize("way", WAYS)
def test_tables_of_all_kinds_are_copied_and_pickled(way: Callable[[Any], Any]) -> None:
    table = Table([{"a": 1, "b": [2]}, {"a": None}])
    assert way(table) == table
    models = way(ModelTable([{"name": "cnn"}], ["timm"]))
    assert (models.column("name"), models.namespaces) == (["cnn"], ("timm",))
    assert way(Hits([Hit("me/x", 1, (), ())])).hits[0].repo == "me/x"


def test_a_table_does_not_change_whatever_is_done_to_what_it_gives() -> None:
    given: dict[str, Any] = {"changes": {"lr": 1}, "files": ["a"]}
    table = Table([given])
    given["changes"]["lr"] = 2
    for row in (table[0], table.rows[0], next(iter(table)), {"changes": table.column("changes")[0], "files": []}):
        row["changes"]["lr"] = 3
        row["files"].append("b")
    assert table[0] == {"changes": {"lr": 1}, "files": ["a"]}
    with pytest.raises(AttributeError, match="does not change"):
        del table._rows  # type: ignore[attr-defined]


def test_a_row_is_given_without_copying_the_others() -> None:
    class OneByOne(Table):
        @property
        def rows(self) -> tuple[dict[str, Any], ...]:
            raise AssertionError("all rows were copied for one of them")

    table = OneByOne([{"a": number} for number in range(3)])
    assert [table[row]["a"] for row in range(len(table))] == [0, 1, 2]
    assert [row["a"] for row in reversed(table)] == [2, 1, 0]
    assert (table.column("a"), len(table[1:])) == ([0, 1, 2], 2)


def test_results_can_be_members_of_sets() -> None:
    document = {"sweep": {"folder": "x", "trials": 1}, "trials": [], "importance": {}, "recipe": ""}
    report = Report(Path("r.html"), 1, ("a",), 0)
    exported = Exported.__new__(Exported)
    assert len({Sweep(document), Bench({}), report, exported}) == 4
    run = Run("a", Path("runs/a"), None, ({"epoch": 1},), {"test": {}}, "finished", 0.0)  # type: ignore[arg-type]
    assert {run: 1}[copy.copy(run)] == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_sweep_is_copied_and_pickled_with_what_it_holds(way: Callable[[Any], Any]) -> None:
    from types import MappingProxyType

    sweep = Sweep(MappingProxyType({"sweep": {"folder": "x"}, "trials": [{"number": 0}]}), stopped=True)
    again = way(sweep)
    assert (again.as_dict(), again.stopped) == (sweep.as_dict(), True)


@pytest.mark.parametrize("way", WAYS)
def test_a_package_that_is_a_call_is_pickled_as_functions_are(way: Callable[[Any], Any]) -> None:
    assert way(zoo.runs) is zoo.runs
    assert way(zoo.predict) is zoo.predict
