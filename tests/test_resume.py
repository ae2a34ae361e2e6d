"""What an interrupted run ends as: the run that nobody interrupted, or a clear refusal."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from run_modules import load_run

from zoo.base.files import WriteError
from zoo.errors import RunError, ZooError
from zoo.runs.folder import read_metrics, read_result
from zoo.runs.record import CHECKPOINTS, read_record, write_record
from zoo.studies.reproduce.recorded import commits
from zoo.train import checkpoint
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.plan import replan, resolve
from zoo.train.run_options import Request

HARNESS = Path(__file__).with_name("kill_harness.py")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks its processes")


def harness(script: str, tmp_path: Path, timeout: float = 880) -> dict[str, Any]:
    """Run a script against the harness in a process of its own (forking wants one without threads)."""
    path = tmp_path / "script.py"
    path.write_text(
        f"import sys, json, shutil\nsys.path.insert(0, {str(HARNESS.parent)!r})\nimport kill_harness as k\n"
        f"home = k.prepared_home()\ntry:\n"
        + "".join(f"    {line}\n" for line in script.splitlines())
        + "finally:\n    shutil.rmtree(home, ignore_errors=True)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=timeout, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("least", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_kills_at_random_moments_end_as_the_run_that_nobody_killed(least: int, tmp_path: Path) -> None:
    script = f"""report = k.series({least}, 3, 7, home, lambda line: None)
print(json.dumps([report.runs, report.kills, report.inside_writes, report.different]))"""
    kills_runs: Any = harness(script, tmp_path)
    runs_, kills, inside, different = kills_runs
    assert different == []
    assert kills >= least
    assert runs_ >= least // 3
    assert inside >= least // 6


@pytest.mark.timeout(900)
@pytest.mark.parametrize("least", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_kills_of_runs_that_stream_shards_end_as_the_run_that_nobody_killed(least: int, tmp_path: Path) -> None:
    script = f"""every = k.shards(home)
report = k.series({least}, 2, 5, home, lambda line: None, every if {least} > 9 else every[:2])
print(json.dumps([report.runs, report.kills, report.inside_writes, report.different]))"""
    found: Any = harness(script, tmp_path)
    runs_, kills, _, different = found
    assert different == []
    assert kills >= least
    assert runs_ >= least // 2


@pytest.mark.timeout(900)
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["victim-adam", "victim-early"])
def test_a_resume_that_forgets_one_piece_is_found_out(recipe: str, tmp_path: Path) -> None:
    step = 50 if recipe == "victim-early" else 23  # its best epoch is over by then
    script = f"""recipe, found = {recipe!r}, {{}}
k.finish(home / "whole", recipe, 1, home / "log")
for what in ("nothing", *k.DROPS):
    folder = home / what
    assert k.launch(k.command(folder, recipe, 1, 5), home / "log", k.die_before_step({step})) == -9
    assert k.launch(k.again(folder, recipe, 1), home / "log", k.forget(what)) == 0, (home / "log").read_text()
    found[what] = k.compare(home / "whole", folder)
print(json.dumps(found))"""
    found = harness(script, tmp_path)
    assert found.pop("nothing") == ""
    if recipe == "victim-early":  # has no averaging
        assert found.pop("averaging") == ""
        assert found["best-so-far"] != ""
    else:
        found.pop("best-so-far")  # its best epoch comes after the kill
    assert all(found.values()), found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigterm_at_random_steps_resumes_exactly(tmp_path: Path) -> None:
    script = """import random, os, signal
luck, recipe, found = random.Random(3), "victim-sgd", []
k.finish(home / "whole", recipe, 1, home / "log")
for number in range(6):
    folder, step = home / str(number), luck.randrange(1, 34)
    def prepare(step=step):
        from zoo.train import loop
        take = loop.Trainer._step
        def stepping(self, rows):
            if self.at.total == step:
                os.kill(os.getpid(), signal.SIGTERM)
            take(self, rows)
        loop.Trainer._step = stepping
    status = k.launch(k.command(folder, recipe, 1, 0), home / "log", prepare)
    k.finish(folder, recipe, 1, home / "log")
    found.append([status, k.compare(home / "whole", folder)])
print(json.dumps(found))"""
    assert harness(script, tmp_path) == [[143, ""]] * 6


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the harness's victim that was stopped in its second epoch, with two checkpoints."""
    sys.path.insert(0, str(HARNESS.parent))
    import kill_harness

    sys.path.remove(str(HARNESS.parent))
    (tmp_path / "registry.toml").write_text(kill_harness.REGISTRY)
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(tmp_path))
    torch.set_num_threads(1)
    request = Request(
        model="victim", recipe="victim-adam", dataset="digits", limit_train=300, limit_test=100, device="cpu"
    )
    plan = resolve(request)
    folder = tmp_path / "run"
    write_record(folder, plan.record)
    asked = iter([0] * 14 + [15] * 9)
    with pytest.raises(Stop):
        Trainer(plan, folder, stop=lambda: next(asked), saving=Saving(0, 6)).fit()
    return folder


def resume(folder: Path) -> dict[str, Any]:
    plan = replan(read_record(folder))
    trainer = Trainer(plan, folder)
    found = checkpoint.newest(folder / CHECKPOINTS)
    assert found is not None
    trainer.restore(found.state)
    trainer.fit()
    return dict(load_run(folder).state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_found(stopped: Path, tmp_path: Path) -> None:
    folder = stopped / CHECKPOINTS
    newest = checkpoint.newest(folder)
    assert newest is not None
    whole, luck, said = newest.path.read_bytes(), random.Random(5), []
    for _ in range(200):
        place, bit = luck.randrange(len(whole)), luck.randrange(8)
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        newest.path.write_bytes(damaged)
        found = checkpoint.newest(folder, said.append)
        assert found is not None
        assert found.path != newest.path
    assert len(said) == 200
    assert all("damaged" in line and newest.path.name in line for line in said)


def test_the_checkpoint_before_a_damaged_one_still_ends_exactly(stopped: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(stopped, twin)
    newest = checkpoint.newest(twin / CHECKPOINTS)
    assert newest is not None
    newest.path.write_bytes(newest.path.read_bytes()[:-1])
    assert same(resume(stopped), resume(twin))


def test_when_every_checkpoint_is_damaged_it_says_so(stopped: Path) -> None:
    for path in (stopped / CHECKPOINTS).iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunError, match="all checkpoints are damaged"):
        checkpoint.newest(stopped / CHECKPOINTS)


def test_only_the_newest_two_checkpoints_are_kept(stopped: Path) -> None:
    names = sorted(p.name[:8] for p in (stopped / CHECKPOINTS).iterdir() if p.name[0] == "0")
    assert names == ["00000012", "00000014"]
    assert not list((stopped / CHECKPOINTS).glob(".zoo-tmp-*"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_at_every_write_leaves_the_last_checkpoint(stopped: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        _fill_at_every_write(stopped, disk / "run")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@contextlib.contextmanager
def _caught() -> Iterator[list[str]]:
    said: list[str] = []
    try:
        yield said
    except ZooError as error:
        said.append(str(error))


def _fill_at_every_write(stopped: Path, folder: Path) -> None:
    expected = resume(shutil.copytree(stopped, folder.parent.parent / "expected"))
    filler, number, failures = folder.parent / "filler", 0, 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stopped, folder)
        with _full_at_write(number, filler) as writes, _caught() as failed:
            resume(folder)
        filler.unlink(missing_ok=True)
        for error in failed:
            failures += 1
            assert re.search(f"^{folder}.*No space left", error)
        assert not list(folder.rglob(".zoo-tmp-*"))
        assert same(resume(folder) if failed else dict(load_run(folder).state_dict()), expected), number
        if len(writes) <= number:
            break
        number += 1
    assert failures == number >= 8  # every write was made to fail once, and none passed unnoticed


@contextlib.contextmanager
def _full_at_write(number: int, filler: Path) -> Iterator[list[str]]:
    """Fill the disk just before the write of that number (from 0); the list names the writes."""
    seen: list[str] = []
    write, opened = Path.write_bytes, Path.open

    def count(path: Path) -> None:
        seen.append(path.name)
        if len(seen) == number + 1:
            with opened(filler, "wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)
                    file.flush()

    def write_bytes(self: Path, data: Any) -> int:
        count(self)
        with opened(self, "wb") as file:
            return file.write(data)

    def open_(self: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if mode[0] in "wa":
            count(self)
        return opened(self, mode, *more, **options)

    Path.write_bytes, Path.open = write_bytes, open_
    try:
        yield seen
    finally:
        Path.write_bytes, Path.open = write, opened


def test_a_read_only_folder_is_named(stopped: Path, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("not a folder")
    from zoo.base.files import write_text

    with pytest.raises(WriteError, match="file/inner: cannot be written"):
        write_text(target / "inner", "text")


TRAIN = ("train", "victim", "--recipe", "victim-adam", "--dataset", "digits", "--device", "cpu", "--output", "run")


@contextlib.contextmanager
def training(folder: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A real training process in `folder`, ended with the block."""
    from zoo.base.files import write_text

    sys.path.insert(0, str(HARNESS.parent))
    import kill_harness

    sys.path.remove(str(HARNESS.parent))
    write_text(folder / "registry.toml", kill_harness.REGISTRY)
    command = [sys.executable, "-m", "zoo", *TRAIN, *more]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background ignores it
    try:
        started = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with started as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("delay", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_from_the_first_moment(number: signal.Signals, delay: float, tmp_path: Path) -> None:
    with training(tmp_path, "--epochs", "9999") as process:
        time.sleep(delay)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode in (128 + number, -number)  # a shell shows both as 128 + number
    if process.returncode > 0:
        assert "Traceback" not in said


def test_sigusr1_saves_and_goes_on(tmp_path: Path) -> None:
    with training(tmp_path, "--epochs", "400", "--checkpoint-seconds", "0") as process:
        wait_for(tmp_path / "run" / "metrics.jsonl", process)
        time.sleep(0.5)
        assert not list((tmp_path / "run").glob("checkpoints/0*"))
        process.send_signal(signal.SIGUSR1)
        wait_for(tmp_path / "run" / "checkpoints", process)
        rows = len(read_metrics(tmp_path / "run"))
        deadline = time.monotonic() + 60
        while len(read_metrics(tmp_path / "run")) <= rows + 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(read_metrics(tmp_path / "run")) > rows + 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143


def test_another_torch_or_thread_count_is_said_before_it_goes_on(stopped: Path) -> None:
    import msgspec

    from zoo.catalogue.registry import load_registry
    from zoo.train.environment import differences

    record, registry = read_record(stopped), load_registry()
    assert differences(record, registry) == []
    changed = {**record.environment, "threads": "99", "torch": "1.0"}
    lines = differences(msgspec.structs.replace(record, environment=changed), registry)
    assert [line.split()[0] for line in lines] == ["torch", "threads"]
    assert lines[1].endswith("and was 99")


def test_the_result_says_by_what_else_a_run_went_on(stopped: Path) -> None:
    import msgspec

    record = read_record(stopped)
    begun = {**record.environment, "commit": "0123456789ab", "numpy": "1.0"}
    write_record(stopped, msgspec.structs.replace(record, environment=begun))
    resume(stopped)
    result, now = read_result(stopped), record.environment
    assert result["environment"] == begun
    assert result["resumed"] == [{"epoch": 2, "commit": now.get("commit", ""), "numpy": now["numpy"]}]
    row = {"runs": [{"result": result}]}
    assert commits(row) == ["0123456789ab", *filter(None, [now.get("commit")])]
    finished = checkpoint.newest(stopped / CHECKPOINTS)
    assert finished is not None
    write_record(stopped, msgspec.structs.replace(record, environment={**begun, "numpy": "2.0"}))
    trainer = Trainer(replan(read_record(stopped)), stopped)
    trainer.restore(finished.state)
    assert trainer.at.resumed == result["resumed"]  # nothing is left to train


def test_a_run_that_goes_on_in_the_same_way_says_nothing_of_it(stopped: Path) -> None:
    resume(stopped)
    assert "resumed" not in read_result(stopped)


def test_a_finished_run_can_be_extended(stopped: Path) -> None:
    resume(stopped)
    plan = replan(read_record(stopped), epochs=6)
    trainer = Trainer(plan, stopped)
    found = checkpoint.newest(stopped / CHECKPOINTS)
    assert found is not None
    trainer.restore(found.state)
    result = trainer.fit()
    assert result["train"]["epochs"] == 6
    assert [row["epoch"] for row in read_metrics(stopped)] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_ran_out_of_patience_can_be_extended(stopped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "early"
    request = Request(
        model="victim",
        recipe="victim-adam",
        dataset="digits",
        limit_train=300,
        settings=("patience=1", "select=top1", "lr=1e-9"),
    )
    plan = resolve(request)
    write_record(folder, plan.record)
    assert Trainer(plan, folder).fit()["train"]["epochs"] == 2  # the second was no better
    longer = replan(plan.record, epochs=plan.recipe.epochs + 3)
    other = {"channels_last": not plan.record.channels_last}  # as on a device of another kind
    moved = replace(plan, record=msgspec.structs.replace(plan.record, **other))
    for epochs, plan_again in ((2, plan), (2, moved), (3, longer)):  # its patience begins anew, and is as short
        trainer = Trainer(plan_again, folder)
        found = checkpoint.newest(folder / CHECKPOINTS)
        assert found is not None
        trainer.restore(found.state)
        assert trainer.fit()["train"]["epochs"] == epochs
