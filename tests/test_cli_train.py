"""The commands train, eval and predict as real processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hub_server.runs import own_caches
from PIL import Image

from zoo.cli import cli, main
from zoo.errors import InputError, RunError


def zoo(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zoo", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("trained")
    done = zoo("train", "cnn-baseline", "--dataset", "digits", "--epochs", "2", "--output", base / "run", cwd=base)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(base / "run")
    assert "next: zoo eval" in done.stderr.splitlines()[-2]
    return base / "run"


def test_what_to_do_next_can_be_pasted_into_a_shell_whatever_the_folder_is_called(tmp_path: Path) -> None:
    few = ("--dataset", "digits", "--limit-train", "50", "--limit-test", "20", "--device", "cpu")
    done = zoo("train", "cnn-baseline", *few, "--epochs", "1", "--output", "my runs/it's one", cwd=tmp_path)
    assert done.stdout == "my runs/it's one\n"
    after, other = done.stderr.splitlines()[-2:]
    assert shlex.split(after) == ["next:", "zoo", "eval", "my runs/it's one"]
    assert shlex.split(other) == ["or:", "zoo", "predict", "my runs/it's one", "IMAGE"]


def test_eval_agrees_with_the_record_to_the_last_digit(run_folder: Path, tmp_path: Path) -> None:
    done = zoo("eval", run_folder, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    recorded = json.loads((run_folder / "result.json").read_text())
    assert json.loads(done.stdout)["top1"] == recorded["test"]["top1"]
    assert "same as recorded" in done.stderr


def test_eval_fails_when_the_record_says_something_else(run_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    result = json.loads((copy / "result.json").read_text())
    result["test"]["correct"] += 1
    (copy / "result.json").write_text(json.dumps(result))
    done = zoo("eval", copy, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")


def test_predict_prints_the_top_classes_and_names_a_corrupt_image(run_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 30), (200, 10, 10)).save(tmp_path / "red.png")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    done = zoo("predict", run_folder, "red.png", "bad.png", "--json", cwd=tmp_path)
    assert done.returncode == 1
    row = json.loads(done.stdout)
    assert row["image"] == "red.png"
    assert len(row["classes"]) == 5
    assert "bad.png" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "hybrid-alt-11", "--dataset", "digits"], "hybrid-alt-1"),
        (["train", "hybrid-alt-1", "--dataset", "digit"], "digits"),
        (["train", "hybrid-alt-1", "--dataset", "digits", "--set", "recipe.lrr=3"], "allowed: "),
        (["train", "hybrid-alt-1", "--dataset", "folder:nowhere"], "nowhere"),
        (["train", "hybrid-alt-1", "--dataset", "digits", "--device", "cuda:7"], "cuda:7"),
        (["train", "hybrid-alt-1", "--dataset", "digits", "--output", "full"], "not empty"),
        (["eval", "nowhere"], "no run folder"),
        (["traim"], "did you mean train"),
    ],
)
def test_bad_input_is_one_line_and_a_non_zero_exit(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command line has its own
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]
    with pytest.raises(SystemExit):
        main([*words, "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_bad_input_ends_the_process_with_one_line_and_its_exit_code(tmp_path: Path) -> None:
    done = zoo("train", "hybrid-alt-11", "--dataset", "digits", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]*hybrid-alt-1[^\n]*\n", done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_stops_cleanly_and_keeps_the_best_weights(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zoo", "train", "cnn-baseline", "--dataset", "digits", "--epochs", "5000"]
    command += ["--set", "recipe.select=top1", "--output", "run"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "the best weights so far are saved in it" in said
    assert "Traceback" not in said
    assert zoo("eval", "run", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_real_cifar10_trains_end_to_end_and_the_loss_falls(cifar10_parquet: Path, tmp_path: Path) -> None:
    spec = f"parquet:{cifar10_parquet / 'plain_text'}"
    words = ["--limit-train", "160", "--limit-test", "40", "--epochs", "2", "--batch-size", "16"]
    done = zoo("train", "hybrid-alt-1", "--dataset", spec, *words, "--output", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["parameters"] == 4_719_167
    again = zoo("eval", "run", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["top1"] == result["test"]["top1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", 'recipe.freeze=["stm.*"]'], r"recipe\.freeze: 'stm\.\*' matches no parameter"),
        (["--set", "recipe.optimizer=timm:lionn"], "no optimizer named 'timm:lionn'"),
        (["--set", 'recipe.groups=[{ match = "stm.*" }]'], r"recipe\.groups\[0\]\.match: 'stm\.\*' matches no"),
        (["--weights", ""], "--weights is empty; give weights"),
        (["--dataset", ""], "--dataset is empty; give a dataset"),
    ],
)
def test_what_cannot_be_trained_is_said_before_there_is_a_folder(words: list[str], said: str, tmp_path: Path) -> None:
    command = ["train", "cnn-baseline", "--dataset", "digits", "--output", str(tmp_path / "run"), *words]
    with pytest.raises(InputError, match=said):
        CliRunner().invoke(cli, command, standalone_mode=False, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


# ---- runs that are extended, and what is left of one ------------------------------------------------


def called(*words: str | Path) -> Any:
    return CliRunner().invoke(cli, list(map(str, words)), standalone_mode=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("short")
    words = ["--limit-train", "200", "--epochs", "2", "--dataset", "digits", "--output", folder / "run"]
    with own_caches(folder):
        done = called("train", "cnn-baseline", *words)
    assert done.exit_code == 0, done.exception
    return folder / "run"


@pytest.fixture
def short(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, in the folder that the test works in."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_a_run_that_is_extended_is_not_finished_before_its_end(short: Path) -> None:
    command = [sys.executable, "-m", "zoo", "train", "--resume", "run", "--epochs", "50000"]
    with subprocess.Popen(command, cwd=short.parent, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while len((short / "metrics.jsonl").read_text().splitlines()) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert not (short / "result.json").exists()
    trained = len((short / "metrics.jsonl").read_text().splitlines())
    few = called("train", "--resume", "run", "--epochs", str(trained))
    assert f"{trained} epochs have already been trained in run" in str(few.exception)
    assert "epochs = 50000" in (short / "run.toml").read_text()
    done = called("train", "--resume", "run", "--epochs", str(trained + 2))
    assert done.exit_code == 0, done.exception
    assert json.loads((short / "result.json").read_text())["train"]["epochs"] == trained + 2
    assert "the same as recorded" in called("eval", "run").stderr


def test_to_resume_a_finished_run_succeeds_so_that_a_loop_around_it_ends(short: Path) -> None:
    done = called("train", "--resume", "run")
    assert (done.exit_code, done.stdout) == (0, "run\n"), done.exception
    assert "this run is finished; extend it with --epochs N, N above 2" in done.stderr
    for epochs in ("1", "2"):
        refused = called("train", "--resume", "run", "--epochs", epochs)
        assert refused.exit_code != 0
        assert "this run is finished" in str(refused.exception)


def test_lost_weights_are_written_again_from_the_checkpoint(short: Path) -> None:
    whole = (short / "model.safetensors").read_bytes()
    for damage in (None, whole[:1000]):
        (short / "model.safetensors").unlink()
        if damage:
            (short / "model.safetensors").write_bytes(damage)
        assert "restore the weights from its checkpoints: zoo train --resume" in called("doctor", "--runs", ".").stdout
        assert called("train", "--resume", "run").exit_code == 0
        assert (short / "model.safetensors").read_bytes() == whole


def test_a_run_that_was_cut_off_inside_an_epoch_is_not_extended(short: Path) -> None:
    words = ["--limit-train", "200", "--batch-size", "32", "--max-steps", "3", "--dataset", "digits"]
    assert called("train", "cnn-baseline", *words, "--output", "cut").exit_code == 0
    said = str(called("train", "--resume", "cut", "--epochs", "60").exception)
    assert "limited to 3 steps (--max-steps)" in said


def test_options_of_another_run_are_refused_whatever_their_value(short: Path) -> None:
    words = ["--seed", "0", "--protocol", "clean", "--set", "lr=1"]
    said = str(called("train", "--resume", "run", "--epochs", "3", *words).exception)
    for word in words[::2]:
        assert word in said
    assert "--data-dir, --epochs, --device and --workers can" in said


@pytest.mark.parametrize("text", ["[]", "{}", '{"test": 5}', '{"test": {"correct": 9, "count": 8}}', "{"])
def test_a_result_that_is_none_is_a_damaged_run(short: Path, text: str) -> None:
    (short / "result.json").write_text(text)
    for command in (["eval", "run"], ["package", "run", "--no-predictions"]):
        error = called(*command).exception
        assert isinstance(error, RunError)
        assert "run/result.json: damaged: " in str(error)


def test_a_run_is_read_in_any_locale(short: Path) -> None:
    record = short / "run.toml"
    record.write_text(record.read_text("utf-8").replace('"0",', '"gänse",', 1), "utf-8")
    assert "gänse" in record.read_text("utf-8")
    script = (
        "import pathlib; from zoo.runs.record import read_record; "
        "print(ascii(read_record(pathlib.Path('run')).data.classes[0]))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=short.parent, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "'g\\xe4nse'\n", done.stderr


@pytest.mark.slow
def test_quiet_says_nothing_and_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["-q", "train", "cnn-baseline", "--dataset", "digits", "--max-steps", "1", "--output"]
    done = zoo(*words, "run", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "run\n", "")
    done = zoo(*words, "file/run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: file/run: Not a directory\n")
