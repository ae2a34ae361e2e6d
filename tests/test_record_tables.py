"""Many runs are read fast, and nothing is shown that their folders no longer say."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.base.stamps import read_checked, write_checked
from zoo.errors import RunError
from zoo.runs.find import find, read, row_of
from zoo.runs.folder import append_metrics, read_result
from zoo.runs.lock import RunLock
from zoo.runs.record_tables import LEAST_NEW, RecordTables, kept_tables

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "weights" / "hybrid-alt-1-digits"
RUNS = LEAST_NEW + 10
ROW = '{"epoch": 9, "val_top1": 0.5, "seconds": 3}\n'


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs, as the working folder; they have been listed, so that their tables are kept."""
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for number in range(RUNS):
        add(tmp_path / "runs" / f"run-{number:03}", number)
    assert len(listed()) == RUNS
    return tmp_path / "runs"


def add(folder: Path, seed: int) -> None:
    """A finished run, but for its weights."""
    folder.mkdir(parents=True)
    for name in ("result.json", "metrics.jsonl"):
        shutil.copyfile(PACKAGE / name, folder / name)
    record = (PACKAGE / "run.toml").read_text()
    assert "\nseed = 0\n" in record
    (folder / "run.toml").write_text(record.replace("\nseed = 0\n", f"\nseed = {100 + seed}\n"))


def listed() -> list[dict[str, Any]]:
    runs, problems = find([])
    return [row_of(run) for run in runs] + [{"name": problem} for problem in problems]


def listed_afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """As `listed`, where nothing is kept."""
    with monkeypatch.context() as patch:
        patch.setenv("ZOO_CACHE_DIR", str(tmp_path / "empty"))
        return listed()


def rewritten(path: Path, old: str, new: str) -> None:
    """Put a text of the same length into a file, with the same times: only its bytes tell."""
    text, status = path.read_text(), path.stat()
    assert old in text
    assert len(old) == len(new)
    path.write_text(text.replace(old, new, 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# ---- a table is that of tomllib --------------------------------------------------------------

LINES = (
    *("[a]", "[[a]]", "[a.b]", "[ a ]", '["a"]', "[1]", "[1],", "[1.5],", "[b]", "[[b.c]]", "[b.a]", "[x] # note"),
    *('x = """', '"""', "y = '''", "'''", "m = [", "]", "], [", "k = 1", "k.x = 1.0", "a = 2", "b = {c = 3}"),
    *("d = 1979-05-27", "n = nan", f"big = {10**30}", "s = '\\u00e9'", "# [a]", "", "t = 07:32:00"),
)


def outcome(read: Callable[[bytes], Any], data: bytes) -> str:
    try:
        return repr(read(data))
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


def by_tomllib(data: bytes) -> Any:
    return tomllib.loads(data.decode())


@settings(max_examples=600, deadline=None)
@given(st.lists(st.lists(st.sampled_from(LINES), max_size=12), min_size=1, max_size=3))
def test_any_file_has_the_table_or_the_fault_that_tomllib_finds(files: list[list[str]]) -> None:
    tables = RecordTables()
    for _ in range(2):  # read, and known
        for file in files:
            data = "\n".join(file).encode()
            assert outcome(tables.parse, data) == outcome(by_tomllib, data)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_records_of_our_packages_are_read_as_tomllib_reads_them(end: bytes) -> None:
    tables = RecordTables()
    for path in sorted((ROOT / "weights").glob("*/run.toml")):
        data = path.read_bytes().replace(b"\n", end)
        assert repr(tables.parse(data)) == repr(by_tomllib(data))
    assert tables.new == 11


def test_a_header_inside_a_text_starts_no_section() -> None:
    data = b'[data]\nm = """\n[other]\nk = 1\n[data.z]\n"""\n'
    assert RecordTables().parse(data) == {"data": {"m": "[other]\nk = 1\n[data.z]\n"}}


def test_a_date_keeps_its_zone() -> None:
    data = b"[a]\nx = 2026-01-01T00:00:00+02:00\n"
    assert repr(RecordTables().parse(data)) == repr(tomllib.loads(data.decode()))


def test_what_was_read_is_nobodys_to_change() -> None:
    tables = RecordTables()
    tables.parse(b"[build]\nof = [1]\n")["build"]["of"].append(2)
    tables.parse(b"[build]\nof = [1]\n")["build"]["of"].append(3)
    tables.parse(b"x = 1\n[build]\nof = [1]\n")["build"]["of"].append(4)
    for first in (b"", b"x = 1\n", b"x = 2\n"):
        assert tables.parse(first + b"[build]\nof = [1]\n")["build"] == {"of": [1]}


# ---- every way in which a run changes is seen ------------------------------------------------


def train_on(folder: Path) -> None:
    (folder / "result.json").unlink()
    append_metrics(folder, json.loads(ROW))


def grow(folder: Path) -> None:
    train_on(folder)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(ROW[:20])  # as while the line is being written


CHANGES: dict[str, Callable[[Path], object]] = {
    "record": lambda folder: rewritten(folder / "run.toml", "\nseed = 103\n", "\nseed = 104\n"),
    "recipe": lambda folder: rewritten(folder / "run.toml", "epochs = ", "epochs =9"),
    "damaged": lambda folder: rewritten(folder / "run.toml", "[build]", "[build "),
    "no model": lambda folder: rewritten(folder / "run.toml", "use = ", "usa = "),
    "no record": lambda folder: (folder / "run.toml").unlink(),
    "result": lambda folder: rewritten(folder / "result.json", '"top1": 0.9', '"top1": 0.1'),
    "no result": lambda folder: (folder / "result.json").unlink(),
    "an epoch": train_on,
    "half an epoch": grow,
    "removed": shutil.rmtree,
    "renamed": lambda folder: folder.rename(folder.with_name("another")),
    "moved below": lambda folder: shutil.move(folder, folder.parent / "deep" / folder.name),
    "exchanged": lambda folder: (folder.rename(folder.with_name("x")), (folder.parent / "run-004").rename(folder)),
    "one more": lambda folder: add(folder.with_name("one-more"), 999),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_is_shown_at_once(what: str, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listed()
    CHANGES[what](many / "run-003")
    after = listed()
    assert after != before
    assert after == listed_afresh(monkeypatch, tmp_path)


def test_a_run_that_is_being_trained_is_said_so_while_it_is(many: Path) -> None:
    for holds in (True, False):
        with RunLock(many / ("run-003" if holds else "run-004")):
            assert {row["name"]: row["state"] for row in listed()}["run-003"] == ("training" if holds else "finished")


def test_each_of_several_damaged_runs_is_named(many: Path) -> None:
    for name in ("run-001", "run-002", "run-003"):
        rewritten(many / name / "run.toml", "use = ", "usa = ")
    assert sum("the run folder is damaged" in row["name"] for row in listed()) == 3


def test_a_run_that_was_read_does_not_follow_its_folder(many: Path) -> None:
    run = read(many / "run-003")
    count = len((many / "run-003/metrics.jsonl").read_text().splitlines())
    append_metrics(many / "run-003", json.loads(ROW))
    assert len(run.rows) == count
    assert len(read(many / "run-003").rows) == count + 1


# ---- what is kept ----------------------------------------------------------------------------


def kept_file(folder: Path) -> Path:
    (path,) = (folder / "cache" / "runs").iterdir()
    return path


def new_files(many: Path) -> int:
    """How many records the next listing has to parse."""
    tables = kept_tables(many)
    for folder in many.iterdir():
        tables.parse((folder / "run.toml").read_bytes())
    return tables.new


def test_the_second_listing_parses_no_record(many: Path) -> None:
    assert new_files(many) == 0


def test_few_new_runs_are_parsed_and_not_kept(many: Path, tmp_path: Path) -> None:
    before = kept_file(tmp_path).stat().st_mtime_ns
    add(many / "one-more", 999)
    assert len(listed()) == RUNS + 1
    assert kept_file(tmp_path).stat().st_mtime_ns == before
    assert new_files(many) == 1


def test_what_no_run_says_any_more_is_forgotten_and_a_part_of_the_runs_forgets_nothing(many: Path) -> None:
    shutil.rmtree(many / "run-000")
    for number in range(LEAST_NEW):
        add(many / f"next-{number:03}", 500 + number)
    assert len(find(["next-*"])[0]) == LEAST_NEW
    assert len(kept_tables(many).files) == RUNS + LEAST_NEW
    for number in range(LEAST_NEW):
        add(many / f"last-{number:03}", 5000 + number)
    listed()
    assert len(kept_tables(many).files) == len(list(many.iterdir())) == RUNS - 1 + 2 * LEAST_NEW


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"finger", b"fungus")),
        lambda path: write_checked(str(path), msgspec.msgpack.encode(["another", "form"])),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_cache_is_as_good_as_none(
    damage: Callable[[Path], object], many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(kept_file(tmp_path))
    assert listed() == listed_afresh(monkeypatch, tmp_path)


def test_a_cache_that_cannot_be_written_is_done_without(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = listed()
    (many.parent / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE_DIR", str(many.parent / "file" / "cache"))
    assert listed() == expected


def test_without_a_home_folder_nothing_is_kept(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = listed()
    monkeypatch.setenv("ZOO_CACHE_DIR", "~nobody-of-this-name/cache")
    assert listed() == expected
    assert not (many.parent / "~nobody-of-this-name").exists()


def test_several_processes_list_at_once(many: Path, tmp_path: Path) -> None:
    kept_file(tmp_path).unlink()
    command = [sys.executable, "-m", "zoo", "runs", "--json"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) for _ in range(3)]
    outputs = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert [row["name"] for row in json.loads(outputs.pop())] == [row["name"] for row in listed()]
    assert not outputs
    assert read_checked(str(kept_file(tmp_path)))
    assert new_files(many) == 0


def test_who_reads_what_is_kept_never_meets_half_of_a_new_file(many: Path, tmp_path: Path) -> None:
    before = kept_file(tmp_path).read_bytes()
    os.link(kept_file(tmp_path), tmp_path / "opened")  # as a process has it that has opened it
    for number in range(LEAST_NEW):
        add(many / f"next-{number:03}", 500 + number)
    listed()
    assert (tmp_path / "opened").read_bytes() == before != kept_file(tmp_path).read_bytes()


def test_a_run_and_a_link_to_it_are_one(many: Path) -> None:
    (many / "zz").symlink_to(many / "run-003", target_is_directory=True)
    assert [row["name"] for row in listed()] == sorted(path.name for path in many.iterdir() if path.name != "zz")


# ---- JSON ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"test": {"loss": null, "top1": 1e400}, "val_loss": NaN, "other": null}',
        '{"test": {"loss": NaN, "top1": -Infinity, "correct": 100000000000000000000000000000000}}',
        '{"test": {"name": "\\ud800", "loss": 0.1, "loss": 0.30000000000000004}}',
        '{"test": {"name": "null", "loss": null, "deep": [{"a_loss": null, "a": null}]}}',
    ],
)
def test_a_result_is_what_json_reads_and_a_loss_of_null_is_no_number(text: str, tmp_path: Path) -> None:
    def losses(table: dict[str, Any]) -> dict[str, Any]:
        return {k: math.nan if v is None and k.endswith("loss") else v for k, v in table.items()}

    (tmp_path / "result.json").write_text(text)
    assert repr(read_result(tmp_path, checked=False)) == repr(json.loads(text, object_hook=losses))


def test_rows_end_at_the_first_that_is_none(many: Path) -> None:
    path = many / "run-003" / "metrics.jsonl"
    for last in (ROW[:20], "[" * 100_000, '{"epoch": 2'):
        path.write_text(ROW + "[1]\n" + last + "\n" + ROW)
        rows = read(path.parent).rows
        assert rows == (json.loads(ROW),)
        assert rows[-1]["epoch"] == 9
    path.write_bytes(b'{"epoch": "\xff"}\n')
    with pytest.raises(RunError, match="cannot be read"):
        read(path.parent)
