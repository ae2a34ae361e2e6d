"""What a run goes through that lives for weeks: its folder is moved, it is extended, stopped early, asked for again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import own_things
import pytest
import torch

import zoo
from zoo.base.files import WriteError
from zoo.catalogue.registry import load_registry
from zoo.runs.before import BEFORE
from zoo.runs.compare import facts
from zoo.runs.find import read
from zoo.runs.folder import read_metrics, read_result, read_weights, write_weights
from zoo.runs.load import load
from zoo.runs.lock import NAME
from zoo.runs.record import CHECKPOINTS, RECORD, SOURCE, WEIGHTS, RunRecord, configuration, write_record
from zoo.train.events import Listener
from zoo.train.given import again
from zoo.train.loop import Saving, Stop
from zoo.train.plan import Plan, resolve
from zoo.train.position import Position, restored
from zoo.train.run_options import Request
from zoo.train.runner import Watch, finish, train_in
from zoo.train.start import continued, plan_from, plan_of

FEW: dict[str, Any] = {"limit_train": 100, "batch_size": 32, "limit_test": 50, "dataset": "digits", "device": "cpu"}


@pytest.fixture
def plan() -> Plan:
    return resolve(Request(model="cnn-baseline", epochs=2, **FEW))


class AfterEpoch(Listener):
    """Does something once, after the first epoch."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        if row["epoch"] == 1:
            self.act()


# ---- its folder ----------------------------------------------------------------------------------------


def test_a_run_whose_folder_is_moved_stops_and_goes_on_where_it_is(plan: Plan, tmp_path: Path) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    watch = Watch(listener=AfterEpoch(lambda: folder.rename(moved)), saving=Saving(0, 1))
    with pytest.raises(WriteError, match="was moved or removed while it was trained"):
        train_in(folder, plan, watch)
    assert not folder.exists()  # nothing of it is where nobody looks for it
    finish(moved, lambda: continued(moved), Watch())
    train_in(tmp_path / "whole", plan, Watch())
    assert (moved / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert [row["epoch"] for row in read_metrics(moved)] == [1, 2]


def test_a_run_does_not_write_into_another_one_that_is_where_it_was(plan: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def replace() -> None:
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (folder / RECORD).write_text("of another run")
        (folder / NAME).write_text('{"pid": 1, "host": "another", "since": 0}')

    with pytest.raises(WriteError, match="is another run's folder now"):
        train_in(folder, plan, Watch(listener=AfterEpoch(replace), saving=Saving(0, 1)))
    assert sorted(path.name for path in folder.iterdir()) == [NAME, RECORD]


# ---- what it selects -----------------------------------------------------------------------------------


def test_the_weights_are_the_result_s_after_a_kill_between_weights_and_checkpoint(tmp_path: Path) -> None:
    settings = ("select=top1", "lr=1e-9")  # so that no epoch is better than the first one
    plan, folder = resolve(Request(model="cnn-baseline", epochs=2, settings=settings, **FEW)), tmp_path / "run"
    with pytest.raises(Stop):
        train_in(folder, plan, Watch(stop=lambda: 15 * (len(read_metrics(folder)) == 1)))
    first = read_weights(folder)
    write_weights(folder, {name: tensor + 1 for name, tensor in first.items()}, plan.record)  # of a later epoch
    result = finish(folder, lambda: continued(folder), Watch())
    assert result is not None
    assert result["selection"]["epoch"] == 1
    assert all(torch.equal(tensor, first[name]) for name, tensor in read_weights(folder).items())


# ---- killed at once ------------------------------------------------------------------------------------


def test_a_run_that_began_with_weights_of_this_machine_goes_on_after_a_kill_in_its_first_steps(tmp_path: Path) -> None:
    base = tmp_path / "base"
    train_in(base, resolve(Request(model="cnn-baseline", epochs=1, **FEW)), Watch())
    request = Request(model="cnn-baseline", epochs=1, weights=str(base), **FEW)

    def begun(folder: Path, *, saved: bool) -> Path:
        with pytest.raises(KeyError):
            train_in(folder, plan_of(request), Watch(stop=lambda: {}["killed before the first step"]))
        if not saved:
            shutil.rmtree(folder / CHECKPOINTS)
        return folder

    train_in(tmp_path / "whole", plan_of(request), Watch())
    whole = (tmp_path / "whole" / WEIGHTS).read_bytes()
    folder = begun(tmp_path / "run", saved=True)
    finish(folder, lambda: continued(folder), Watch())
    assert (folder / WEIGHTS).read_bytes() == whole
    folder = begun(tmp_path / "early", saved=False)
    asked = {**FEW, "dataset": "digits", "epochs": 1, "weights": base}
    zoo.train("cnn-baseline", output=folder, resume=True, **asked)
    assert (folder / WEIGHTS).read_bytes() == whole


# ---- extended ------------------------------------------------------------------------------------------


def test_the_finished_run_of_code_of_one_s_own_can_be_opened_while_it_is_extended(tmp_path: Path) -> None:
    folder = own_things.train(tmp_path / "run", own_things.plan_with(f"{own_things.write_nets(tmp_path)}:MyNet"))
    longer = continued(folder, epochs=4, given=again(dataset=own_things.ARRAYS))
    with pytest.raises(Stop):
        train_in(folder, longer, Watch(stop=lambda: 15 * (len(read_metrics(folder)) == 3)))
    assert load(folder / BEFORE, load_registry()) is not None
    finish(folder, lambda: continued(folder, given=again(dataset=own_things.ARRAYS)), Watch())
    assert not (folder / BEFORE).exists()
    assert load(folder, load_registry()) is not None


def test_a_run_that_other_code_was_to_extend_and_did_not_has_its_own_code_again(tmp_path: Path) -> None:
    file = own_things.write_nets(tmp_path)
    folder = own_things.train(tmp_path / "run", own_things.plan_with(f"{file}:MyNet"))
    source, copies = file.read_text(), sorted((folder / SOURCE).rglob("*.py"))
    assert any(copy.read_text() == source for copy in copies)
    file.write_text(source.replace("nn.Flatten()", "nn.Flatten(1)") + "\nEDITED = True\n")
    given = again(model=f"{file}:MyNet", dataset=own_things.ARRAYS)

    def fail() -> int:
        raise RuntimeError("the machine fails")

    with pytest.raises(RuntimeError):
        train_in(folder, continued(folder, epochs=4, given=given), Watch(stop=fail))
    assert any(copy.read_text() == source for copy in copies)
    assert load(folder, load_registry()) is not None


@pytest.fixture
def falling() -> Plan:
    return resolve(Request(model="cnn-baseline", epochs=2, settings=("schedule=cosine",), **FEW))


def test_a_run_that_was_extended_says_so_and_its_repetition_warns(falling: Plan, tmp_path: Path) -> None:
    folder, said = tmp_path / "run", []
    train_in(folder, falling, Watch())
    assert "extended" not in read_result(folder)
    plan_from(str(folder), {}, warn=said.append)
    assert said == []
    with pytest.raises(Stop):
        train_in(folder, continued(folder, epochs=4), Watch(stop=lambda: 15 * (len(read_metrics(folder)) == 3)))
    finish(folder, lambda: continued(folder), Watch())  # which extends it no second time
    assert read_result(folder)["extended"] == [{"epoch": 3, "epochs": 4, "before": 2}]
    plan_from(str(folder), {}, warn=said.append)
    how = "from epoch 3 on planned for 4 epochs, before for 2 epochs"
    assert [line.partition("; ")[0] for line in said] == [f"{folder}: was extended ({how})"]
    assert facts(read(folder))["run", "schedule"] == how


def test_a_run_with_a_constant_rate_that_was_extended_is_the_longer_run(tmp_path: Path) -> None:
    plan, longer = (
        resolve(Request(model="cnn-baseline", epochs=epochs, settings=("schedule=constant",), **FEW))
        for epochs in (1, 2)
    )
    folder, said = tmp_path / "run", []
    train_in(folder, plan, Watch())
    train_in(folder, continued(folder, epochs=2), Watch())
    train_in(tmp_path / "at once", longer, Watch())
    ours, theirs = read_weights(folder), read_weights(tmp_path / "at once")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert "extended" not in read_result(folder)
    plan_from(str(folder), {}, warn=said.append)
    assert said == []


def test_a_checkpoint_of_an_earlier_version_is_extended_by_more_epochs_alone(falling: Plan) -> None:
    def extended(begun: RunRecord) -> list[dict[str, Any]]:
        position = asdict(Position(epoch=1, total=4))
        return restored({"position": position, "configuration": configuration(begun)}, falling.record, 8).extended

    shorter = msgspec.structs.replace(falling.record, settings=msgspec.structs.replace(falling.recipe, epochs=1))
    assert extended(shorter) == [{"epoch": 2, "epochs": 2, "before": 1}]
    assert extended(falling.record) == []
    assert extended(msgspec.structs.replace(falling.record, precision="bf16")) == []  # as on another device


# ---- its name ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "encoding", "printed"),
    [("\udcff", "utf-8:strict", b"\xff"), ("\u98a8", "cp1252", rb"\u98a8"), ("\u98a8", "utf-8", b"\xe9\xa2\xa8")],
)
def test_a_run_s_folder_is_printed_whatever_its_name_and_the_terminal_s_encoding(
    name: str, encoding: str, printed: bytes, plan: Plan, tmp_path: Path
) -> None:
    try:
        (tmp_path / name).mkdir()
    except OSError:
        pytest.skip("no file of this system is called so")
    train_in(tmp_path / name, plan, Watch())
    command = [sys.executable, "-m", "zoo", "train", "--resume", name]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, timeout=200)
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr.decode(errors="replace")


# ---- no space ------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
def test_where_nothing_can_be_written_a_run_can_be_removed_and_a_lock_names_its_file(
    plan: Plan, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_record(folder, plan.record)
    full = "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    locked = f"from zoo.runs.lock import *\nfrom pathlib import Path\nRunLock(Path({str(folder)!r})).__enter__()"
    removed = f"from zoo.cli import main\nmain(['runs', '--remove', {str(folder)!r}, '--yes'])"
    done = [subprocess.run([sys.executable, "-c", full + code], capture_output=True) for code in (locked, removed)]
    assert f"WriteError: {folder / NAME}: cannot be written: ".encode() in done[0].stderr
    assert done[1].returncode == 0, done[1].stderr.decode()
    assert not folder.exists()
