"""What calls give, and the calls themselves, can be kept, copied and sent to other processes; tables do not change."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.base.tables import Table
from zoo.catalogue.model_info import ModelInfo
from zoo.catalogue.model_rows import ModelTable
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import Model, Node
from zoo.data.findings import DatasetCheck, Finding
from zoo.errors import AbsentDataError, BadImagesError, UnknownNameError, ZooError
from zoo.evaluate.classifier import Score
from zoo.evaluate.measurement import Evaluation
from zoo.export.write import Exported
from zoo.hub.search import Hit, Hits
from zoo.hub.verify import Check, Verification
from zoo.predict.prediction import Explanation, Prediction
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


# ---- what others wrote -------------------------------------------------------------------------------

HOSTILE = "cat\x1b[2J\x07\udcff"


def test_what_a_terminal_is_shown_cannot_steer_it() -> None:
    none = np.zeros(1, np.float32)
    shown: list[object] = [
        Table([{HOSTILE: HOSTILE}]),
        Prediction(HOSTILE, (Score(HOSTILE, 0.5),), none),
        Explanation(HOSTILE, HOSTILE, "occlusion", HOSTILE, none, b""),
        Verification(HOSTILE, (Check(HOSTILE, True, HOSTILE),)),
        DatasetCheck(
            HOSTILE, "", "", (8, 8), (HOSTILE,), (1,), (1,), 0, 0, (Finding(level="error", kind="x", message=HOSTILE),)
        ),
        ModelInfo(HOSTILE, Model(summary=HOSTILE, family="", recipe="", build=Node(use="x")), load_registry(), {}),
        Evaluation(
            {"run": HOSTILE, "split": "test", "on": HOSTILE, "top1": 0, "correct": 0, "count": 1, "loss": 0},
            verdict=HOSTILE,
        ),
    ]
    for one in shown:
        text = repr(one)
        assert all(character.isprintable() for character in text.replace("\n", "")), ascii(text)
        assert "cat" in text


def _kinds(kind: type[ZooError]) -> set[type[ZooError]]:
    return {kind}.union(*(_kinds(below) for below in kind.__subclasses__() if below.__module__.startswith("zoo.")))


def test_an_error_that_comes_from_another_process_says_and_knows_the_same() -> None:
    made = [
        UnknownNameError("model", "ressnet", ["resnet"]),
        BadImagesError(["a.png: cut", "b.png: cut"]),
        AbsentDataError("no images", "give others"),
        *(kind("what happened") for kind in _kinds(ZooError) if kind.__init__ is ZooError.__init__),
    ]
    for error in made:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
