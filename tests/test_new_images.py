"""`zoo eval --on`: classes of other images are matched by their names, and every class has a column of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from test_train import SMALL

from zoo.catalogue.registry import load_registry
from zoo.cli.shared.evaluation_tables import emit_accuracy
from zoo.data.load import load
from zoo.errors import InputError
from zoo.evaluate.classes import class_table
from zoo.evaluate.new_images import other_images, taken_by
from zoo.evaluate.one_pass import Predictions
from zoo.evaluate.predictions import write_predictions
from zoo.runs.record import RunRecord
from zoo.train.plan import resolve
from zoo.train.run_options import Request


def parquet_of(folder: Path, labels: list[Any], names: list[str] | None = None) -> str:
    """Parquet files of black digits, with these labels."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "PNG")
    table = pa.table({"image": [buffer.getvalue()] * len(labels), "label": labels})
    if names:
        features = {"label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir()
    for split in ("train", "test"):
        pq.write_table(table, folder / f"{split}.parquet")
    return f"parquet:{folder}"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """Of a run of the digits."""
    (user := tmp_path_factory.mktemp("user")).joinpath("registry.toml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CONFIG_DIR", str(user))
        return resolve(Request(model="tiny", device="cpu")).record


def placed(record: RunRecord, known: Sequence[str], spec: str) -> list[int]:
    """Where the classes of other images stand among those of a run."""
    named = msgspec.structs.replace(record.data, classes=tuple(known))
    other = msgspec.structs.replace(record, data=named)
    registry = load_registry()
    return other_images(taken_by(other, registry), registry, spec, "test").labels.tolist()


@pytest.mark.parametrize(
    ("known", "labels", "names", "says"),
    [
        ("123", ["0", "1", "2"], None, "its class '0' is none of the run's 3: 1, 2, 3"),
        ("123", [0, 1, 2], None, "its class '0' is none of the run's 3: 1, 2, 3"),
        ("6789", ["0", "1"], None, "its class '0' is none"),
        ("abc", ["0", "1"], None, "its class '0' is none"),
        ("abc", [0, 1], ["0", "1"], "its class '0' is none"),
        ("abc", [0, 3], None, "its class '0' is none"),
        ("abb", [0, 1], ["a", "b"], "several classes are called 'b'"),
        ("abc", [0, 1, 2], ["a", "b", "b"], "several classes are called 'b'"),
    ],
)
def test_names_that_say_otherwise_are_never_matched_by_number(
    known: str, labels: list[Any], names: list[str] | None, says: str, record: RunRecord, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        placed(record, known, parquet_of(tmp_path / "new", labels, names))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("known", "labels", "names", "places"),
    [
        ("abc", [2, 0], ["c", "b", "a"], [0, 2]),
        ("abc", [0, 1], ["c", "a", "unused"], [2, 0]),
        ("abc", [1, 0], None, [1, 0]),
        ("123", [2, 1], None, [1, 0]),
        ("aba", [2, 1, 0], ["a", "b", "a"], [2, 1, 0]),
        ("abb", [0, 0], ["a", "c"], [0, 0]),
    ],
)
def test_classes_are_matched_by_what_is_known_of_them(
    known: str, labels: list[int], names: list[str] | None, places: list[int], record: RunRecord, tmp_path: Path
) -> None:
    assert placed(record, known, parquet_of(tmp_path / "new", labels, names)) == places


def test_whether_classes_have_names_outlives_the_cache_and_alterations(tmp_path: Path) -> None:
    numbers, texts = parquet_of(tmp_path / "n", [0, 1]), parquet_of(tmp_path / "t", ["0", "1"])
    for more in ("", "", "?alter_test=flip"):
        assert [load(f"{spec}{more}").named for spec in (numbers, texts)] == [False, True]


@pytest.mark.parametrize("classes", [("a", "b", "a"), ("a", "a 0", "a"), ("a", "b", "c")])
def test_each_class_has_a_column_of_its_own(classes: tuple[str, ...], tmp_path: Path) -> None:
    shares = torch.eye(3)
    predictions = Predictions(torch.arange(3), torch.arange(3), shares)
    write_predictions(tmp_path / "p.parquet", predictions, classes, "parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    columns = table.column_names[-3:]
    assert len(set(columns)) == 3
    assert [table[name].to_pylist() for name in columns] == shares.tolist()
    assert columns == ["p_a", "p_b", "p_c"] or classes != ("a", "b", "c")


def classes_of_some(counts: list[list[int]]) -> dict[str, Any]:
    return class_table(torch.tensor(counts), ("a", "b", "c"))


@pytest.mark.filterwarnings("ignore:y_pred contains")
def test_balanced_accuracy_is_of_the_classes_that_have_images(capsys: pytest.CaptureFixture[str]) -> None:
    table = classes_of_some([[6, 2, 2], [1, 9, 0], [0, 0, 0]])
    labels, predicted = [0] * 10 + [1] * 10, [0] * 6 + [1] * 2 + [2] * 2 + [0] + [1] * 9
    assert table["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    out = {"split": "test", "tta": "none", "top1": 0.75, "top5": 1.0, "loss": 1.0, "correct": 15, "count": 20}
    emit_accuracy({**out, "classes": table}, 3)
    printed = capsys.readouterr().out
    assert "test balanced accuracy 75.00%: the mean recall of the 2 classes that have images" in printed
    emit_accuracy({**out, "classes": classes_of_some([[6, 2, 2], [1, 9, 0], [0, 0, 5]])}, 3)
    assert "balanced" not in capsys.readouterr().out


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (5, False), (6, True)])
def test_top_5_is_shown_where_it_says_something(classes: int, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    out = {"split": "test", "tta": "none", "top1": 0.75, "top5": 1.0, "loss": 1.0, "correct": 15, "count": 20}
    emit_accuracy(out, classes)
    assert ("top-5" in capsys.readouterr().out) == shown
