"""`zoo.train` and `zoo.resume` do what the command does, and nothing else."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import zoo
from zoo.base.files import WriteError
from zoo.cli import cli
from zoo.errors import InputError, ZooError
from zoo.models.precision import usual_torch
from zoo.train.run_options import Request, options

FEW: dict[str, Any] = {
    "dataset": "digits",
    "limit_train": 60,
    "limit_test": 40,
    "batch_size": 16,
    "device": "cpu",
    "precision": "fp32",
    "seed": 3,
}
WORDS = [w for key, value in FEW.items() for w in (f"--{key.replace('_', '-')}", str(value))]


def command(*words: object) -> Any:
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("train", "energy", "environment")}


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "command"
    done = command("train", "cnn-baseline", *WORDS, "--epochs", 2, "--set", "recipe.ema=0.9", "--output", folder)
    assert done.exit_code == 0, done.output
    return folder


def test_the_call_trains_what_the_command_trains_and_leaves_the_process_as_it_was(
    by_command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    before, threads, handlers = torch.get_rng_state(), torch.get_num_threads(), []

    class Watcher:
        def epoch(self, row: dict[str, Any], best: bool) -> None:
            handlers.append(signal.getsignal(signal.SIGINT))

    run = zoo.train(
        "cnn-baseline", **FEW, epochs=2, settings={"ema": 0.9}, output=tmp_path / "call", listeners=[Watcher()]
    )
    assert weights(run.folder) == weights(by_command)
    assert run.record.settings == zoo.Run.open(by_command).record.settings
    assert without_times(run.result or {}) == without_times(json.loads((by_command / "result.json").read_text()))
    assert run.state == "finished"
    assert capsys.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert handlers == [signal.default_int_handler] * 2


@pytest.mark.parametrize("first", ["call", "command"])
def test_either_goes_on_with_what_the_other_began(first: str, by_command: Path, tmp_path: Path) -> None:
    class Leave:
        def epoch(self, row: dict[str, Any], best: bool) -> None:
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    run = zoo.train(
        "cnn-baseline", **FEW, epochs=2, settings=["ema=0.9"], output=folder, listeners=[Leave()], interrupt="stop"
    )
    assert (run.state, run.result, len(run.rows)) == ("stopped", None, 1)
    if first == "call":
        assert command("train", "--resume", folder).exit_code == 0
    else:
        assert zoo.resume(folder).state == "finished"
    assert weights(folder) == weights(by_command)


def test_a_finished_run_is_returned_as_it_is_and_can_be_extended(by_command: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(by_command, tmp_path / "run"))
    run = zoo.resume(str(folder))
    assert (len(run.rows), weights(folder)) == (2, weights(by_command))
    longer = run.resume(epochs=3)
    assert [row["epoch"] for row in longer.metrics] == [1, 2, 3]
    assert len(run.rows) == 2  # what was read before does not change
    assert len(run.reread().rows) == 3


@pytest.mark.parametrize("how", ["stop", "raise"])
def test_ctrl_c_stops_between_two_steps_where_that_is_asked_for(how: Any, tmp_path: Path) -> None:
    class Press:
        def epoch(self, row: dict[str, Any], best: bool) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    arguments: dict[str, Any] = {**FEW, "epochs": 3, "output": tmp_path / "run", "listeners": [Press()]}
    if how == "raise":
        with pytest.raises(KeyboardInterrupt):
            zoo.train("cnn-baseline", **arguments, interrupt=how)
    else:
        assert zoo.train("cnn-baseline", **arguments, interrupt=how).state == "stopped"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_is_repeated_by_the_call(by_command: Path, tmp_path: Path) -> None:
    run = zoo.train(from_run=by_command, epochs=2, output=tmp_path / "again")
    assert weights(run.folder) == weights(by_command)
    other = zoo.train(from_run=zoo.Run.open(by_command), seed=0, epochs=2, output=tmp_path / "other")
    assert other.record.seed == 0


def test_the_arguments_of_the_call_are_the_options_of_a_run() -> None:
    parameters = inspect.signature(zoo.train).parameters
    assert set(options()) <= set(parameters)
    assert set(Request.__struct_fields__) - set(parameters) == set()
    for name in options():
        assert parameters[name].default in (None, False, ()), name
        assert name in (zoo.train.__doc__ or ""), name
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "cnn-basline"}, "did you mean"),
        ({"model": "cnn-baseline", "epochs": "2"}, r"zoo.train: epochs is '2' \(str\); allowed: int | None"),
        ({"model": "cnn-baseline", "seed": 1.5}, r"seed is 1.5 \(float\)"),
        ({"model": "cnn-baseline", "epochs": True}, r"epochs is True \(bool\)"),
        ({"model": "cnn-baseline", "listeners": object()}, "listeners is <object"),
        ({"model": "cnn-baseline", "stop": 1}, r"stop is 1 \(int\)"),
        ({"model": "cnn-baseline", "output": 5}, r"output is 5 \(int\)"),
        ({"model": "cnn-baseline", "epoch": 1}, "did you mean epochs"),
        ({"model": "cnn-baseline", "epochs": 0}, "--epochs must be at least 1, given 0"),
        ({"model": "cnn-baseline", "limit_train": 0}, "must be at least 1"),
        ({"model": "cnn-baseline", "settings": "ema=0.9"}, r"settings is 'ema=0.9' \(str\)"),
        ({"model": "cnn-baseline", "settings": {"emma": 0.9}}, "emma"),
        ({"model": "cnn-baseline", "settings": {"ema": object}}, "not JSON serializable"),
        ({"model": "cnn-baseline", "settings": [("ema", 0.9)]}, r"settings: holds \('ema', 0.9\); give a table"),
        ({"model": "cnn-baseline", "settings": 3}, r"settings is 3 \(int\)"),
        ({"model": "cnn-baseline", "settings": {"ema=0.9\nlr": 5}}, "is no key of a recipe"),
        ({"model": "cnn-baseline", "seed": "three"}, r"seed is 'three' \(str\); allowed: int"),
        ({"model": "cnn-baseline", "interrupt": "save"}, "interrupt 'save': allowed: auto, stop, raise"),
        ({}, "give a MODEL to train"),
        ({"model": "cnn-baseline", "from_run": "x"}, "already says what to train"),
        ({"from_run": "no-such-run"}, "no run folder 'no-such-run'"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        zoo.train(**{"dataset": "digits", **arguments})
    assert isinstance(caught.value, ZooError)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_numbers(by_command: Path, tmp_path: Path) -> None:
    few = {**FEW, "seed": np.int64(3), "batch_size": np.uint8(16), "device": torch.device("cpu")}
    run = zoo.train("cnn-baseline", **few, epochs=2, settings={"ema": np.float64(0.9)}, output=tmp_path / "run")
    assert weights(run.folder) == weights(by_command)


def test_an_output_that_cannot_be_made_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/run: Not a directory"):
        zoo.train("cnn-baseline", **FEW, epochs=1, output=tmp_path / "file" / "run")


def test_what_is_not_on_this_machine_cannot_be_resumed() -> None:
    with pytest.raises(InputError, match="only a run on this machine can be resumed"):
        zoo.resume("hf://me/run")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"protocol": "x"}, "--protocol 'x': allowed: clean, paper"),
        ({"compile": "x"}, "--compile 'x': allowed: auto, off"),
        ({"interrupt": "x"}, "interrupt 'x': allowed: auto, stop, raise"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds must be at least 0, given -1"),
        ({"checkpoint_steps": -1}, "checkpoint_steps must be at least 0"),
        ({"log": "nothing"}, "no logger named 'nothing'"),
    ],
)
def test_what_the_parser_refuses_is_refused_by_the_call_before_a_folder_is_made(
    wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ZooError, match=said):
        zoo.train("cnn-baseline", **FEW, epochs=1, output=tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


CPU_PRODUCTS = (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)  # type: ignore[attr-defined]  # torch does not type them


@contextmanager
def as_some_programs_have_it(how: str) -> Iterator[None]:
    if how == "float64":
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)
        return
    if how == "bf16 products":
        before = [place.fp32_precision for place in CPU_PRODUCTS]
        torch.set_float32_matmul_precision("medium")
        torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]  # as above
        asked = [place.fp32_precision for place in CPU_PRODUCTS]
        try:
            yield
            assert [place.fp32_precision for place in CPU_PRODUCTS] == asked
        finally:
            torch.set_float32_matmul_precision("highest")
            for place, precision in zip(CPU_PRODUCTS, before, strict=True):
                place.fp32_precision = precision
        return
    contexts: dict[str, Any] = {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "device": lambda: torch.device("meta"),
    }
    with contexts[how]():
        yield


@pytest.mark.parametrize("how", ["float64", "no_grad", "inference_mode", "autocast", "device", "bf16 products"])
def test_whatever_a_program_has_set_in_torch_the_results_are_those_of_the_command(
    how: str, by_command: Path, tmp_path: Path
) -> None:
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    model = zoo.load(by_command)
    usual = model.predict(image), zoo.explain(model, image)[0].saliency, model.transform(image)
    with as_some_programs_have_it(how):
        run = zoo.train("cnn-baseline", **FEW, epochs=2, settings={"ema": 0.9}, output=tmp_path / "run")
        again = zoo.load(by_command)
        assert zoo.evaluate(by_command).same_as_recorded
        assert (again.predict(image), again.transform(image).dtype) == (usual[0], torch.float32)
        assert np.array_equal(zoo.explain(again, image)[0].saliency, usual[1])
        assert torch.get_default_dtype() is (torch.float64 if how == "float64" else torch.float32)
    assert weights(run.folder) == weights(by_command)
    assert torch.equal(again.transform(image), usual[2])


def test_products_of_fp32_are_exact_whatever_a_program_has_set_in_torch() -> None:
    with as_some_programs_have_it("bf16 products"), usual_torch():
        assert [place.fp32_precision for place in CPU_PRODUCTS] == ["ieee", "ieee"]
    torch.backends.fp32_precision = "bf16"  # type: ignore[attr-defined]  # as above
    with usual_torch():
        assert "bf16" not in [place.fp32_precision for place in CPU_PRODUCTS]
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]  # as above
    assert "bf16" not in [place.fp32_precision for place in CPU_PRODUCTS]  # it is not kept as a choice of its own


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_a_script_under_torchrun_trains_what_the_command_trains(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = tmp_path / "script.py"
    train = f"zoo.train('cnn-baseline', **{FEW}, epochs=1, output=sys.argv[1])"
    script.write_text(f"import sys, zoo\nprint({train}.state)\n")
    command = ("-m", "zoo", "train", "cnn-baseline", *WORDS, "--epochs", "1", "--output", str(tmp_path / "it"))
    for given, said in (((script, tmp_path / "call"), ["finished"] * 2), (command, [str(tmp_path / "it")])):
        done = subprocess.run([*torchrun, *map(str, given)], capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == said
    assert weights(tmp_path / "call") == weights(tmp_path / "it")


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_a_script_under_torchrun_trains_again_and_again_also_after_a_mistake(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, zoo\n"
        "for number, optimizer in enumerate(('sgd', 'none', 'adam')):\n"
        "    how = {'settings': {'optimizer': optimizer}, 'output': sys.argv[1] + str(number)}\n"
        "    try:\n"
        f"        zoo.train('cnn-baseline', **{FEW}, epochs=1, **how)\n"
        "    except zoo.ZooError:\n"
        "        pass\n"
    )
    done = subprocess.run([*torchrun, script, tmp_path / "run"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("run*")) == ["run0", "run2"]
