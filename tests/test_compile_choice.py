"""When a run compiles: if a trial on this machine says that it pays, and one trial is enough for each model."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from zoo.errors import DeviceError
from zoo.models.device import Hardware
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import Request
from zoo.train.speed.compile_trials import Trial, Trials, try_compiled
from zoo.train.speed.compiled import ASSUMED_SECONDS, Choice, Pace, choose

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    request = Request(model="cnn-baseline", dataset="digits", device="cpu", limit_train=64, limit_test=20, epochs=1)
    return resolve(request)


class Compiling:
    """A compiler that takes and gives what it was told, or fails; counts its trials."""

    def __init__(self, seconds: float = 30.0, step: float = 0.1, fails: str = "") -> None:
        self.trial, self.fails, self.count = Trial(seconds, step), fails, 0

    def __call__(self) -> Trial:
        self.count += 1
        if self.fails:
            raise DeviceError(self.fails)
        return self.trial


def choice(
    plan: Plan,
    compiling: Compiling,
    plain: float,
    recorded: float | None = None,
    wanted: str = "auto",
    on: str = "cuda",
) -> Choice:
    trials = Trials(plan.record, plan.hardware, compiling)
    return choose(wanted, torch.device(on), 1000, lambda: Pace(plain, recorded, "it reads the device"), trials)


def test_a_long_run_tries_the_compiler_once_and_uses_it_where_it_saves_more_than_it_costs(plan: Plan) -> None:
    compiling = Compiling(30.0, 0.4)
    expected = "default: compiling took 30 s in a trial and saves 600 s of about 1000 s"
    assert choice(plan, compiling, 1.0) == ("default", expected)
    assert choice(plan, compiling, 1.0) == ("default", expected)
    assert choice(plan, compiling, 1.0, 0.42).mode == "graph"  # 20 s are not worth 30
    assert choice(plan, compiling, 0.01).why == (
        "off: compiling took 30 s in a trial and saves -390 s of about 10 s; no CUDA graph: it reads the device"
    )
    assert compiling.count == 1


def test_a_short_run_tries_nothing_unless_the_machine_is_known_to_compile_quickly(plan: Plan) -> None:
    compiling = Compiling(2.0, 0.001)
    assert choice(plan, compiling, 0.1, 0.05) == (
        "graph",
        "graph: a step takes 50.00 ms, 100.00 ms without; the run takes about 50 s, and trying the compiler about 60 s",
    )
    assert compiling.count == 0
    settings = msgspec.structs.replace(plan.record.settings, batch_size=7)
    elsewhere = Trials(msgspec.structs.replace(plan.record, settings=settings), plan.hardware, compiling)
    assert (elsewhere.expected(), elsewhere.made(), elsewhere.expected()) == (ASSUMED_SECONDS, compiling.trial, 2.0)
    assert choice(plan, compiling, 0.1, 0.05).mode == "default"
    assert compiling.count == 2


def test_a_trial_is_of_one_model_batch_precision_and_device(plan: Plan) -> None:
    compiling = Compiling()
    Trials(plan.record, plan.hardware, compiling).made()
    settings = msgspec.structs.replace(plan.record.settings, batch_size=7)
    others = [
        (msgspec.structs.replace(plan.record, settings=settings), plan.hardware),
        (plan.record, plan.hardware._replace(precision="fp16")),
        (plan.record, plan.hardware._replace(channels_last=not plan.hardware.channels_last)),
    ]
    assert all(Trials(record, hardware, compiling).known() is None for record, hardware in others)
    again = msgspec.structs.replace(plan.record, seed=9)
    assert Trials(again, plan.hardware, compiling).known() == compiling.trial


def test_a_compiler_that_fails_is_not_used_and_tried_again_by_the_next_run(plan: Plan) -> None:
    broken = Compiling(fails="the model could not be compiled (no gcc)")
    found = choice(plan, broken, 1.0, 0.5)
    assert found.mode == "graph"
    assert "could not be compiled (no gcc)" in found.why
    assert choice(plan, Compiling(), 1.0, 0.5).mode == "default"


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": "b"}', b"\xff"])
def test_a_damaged_file_of_trials_is_as_none(content: bytes, plan: Plan) -> None:
    trials = Trials(plan.record, plan.hardware, Compiling())
    trials.path.parent.mkdir(parents=True)
    trials.path.write_bytes(content)
    assert (trials.known(), trials.expected()) == (None, ASSUMED_SECONDS)
    assert trials.made() == trials.known() == Trial(30.0, 0.1)


def test_what_was_asked_for_is_done_and_a_cpu_compiles_nothing_by_itself(plan: Plan) -> None:
    compiling = Compiling()
    assert choice(plan, compiling, 1.0, on="cpu").mode == "off"
    assert choice(plan, compiling, 0.0, wanted="max").mode == "max"
    assert choice(plan, compiling, 1.0, 0.4, wanted="graph").mode == "graph"
    with pytest.raises(DeviceError, match=r"cannot be recorded as a CUDA graph \(it reads the device\)"):
        choice(plan, compiling, 1.0, wanted="graph")
    with pytest.raises(DeviceError, match="this run uses cpu"):
        choice(plan, compiling, 1.0, 0.4, wanted="graph", on="cpu")
    assert compiling.count == 0
    assert plan.hardware.compile == "off"


@pytest.mark.slow
def test_a_trial_compiles_a_real_step_and_times_it() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    weights = [parameter.detach().clone() for parameter in module.parameters()]
    trial = try_compiled(module, (8, 3, 8, 8), Hardware(CPU, "fp32", False))
    assert 0 < trial.step < trial.seconds
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))
