"""Code of one's own in the calls, from a notebook: what stands in no file."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from own_things import ARRAYS, IMAGES
from torch import nn

import zoo
from zoo.errors import InputError, ZooWarning
from zoo.runs import own_source
from zoo.train.plan import Plan

FEW: dict[str, Any] = {"dataset": ARRAYS, "epochs": 1, "batch_size": 6, "device": "cpu", "compile": "off"}


def typed() -> Any:
    """A function that no file has at its top."""

    def net(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, num_classes))

    return net


def scaled(num_classes: int, act: type[nn.Module] = nn.ReLU, factor: Any = 1) -> nn.Module:
    """A network in a file, whose parameters do not show what it computes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 9), act(), nn.Linear(9, num_classes), nn.Threshold(-99, factor))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (functools.partial(scaled, act=nn.Tanh), False),
        (functools.partial(scaled, factor=float("inf")), True),
        (functools.partial(lambda factor, num_classes: scaled(num_classes, factor=factor), 2), False),
        (functools.partial(scaled, factor=3), True),
    ],
)
def test_arguments_of_a_partial_are_those_of_the_model_that_is_opened_again(
    given: Any, kept: bool, tmp_path: Path
) -> None:
    run = zoo.train(given, **FEW, output=tmp_path / "run")
    for forget in (False, True):
        if forget:
            own_source._remembered().clear()  # another program
        if forget and not kept:
            with pytest.raises(InputError, match=r"arguments that no file holds: give it again"):
                zoo.load(run)
        opened = zoo.load(run, model=given) if forget and not kept else zoo.load(run)
        assert repr(opened.module) == repr(given(num_classes=3))
    assert bool(run.record.own and run.record.own[0].file) is kept
    own_source._remembered().clear()


@pytest.mark.parametrize("ready", [False, True])
def test_what_was_typed_in_is_at_hand_while_the_program_runs(ready: bool, tmp_path: Path) -> None:
    net = typed()(3) if ready else typed()
    run = zoo.train(net, **FEW, output=tmp_path / "run")
    assert run.evaluate().same_as_recorded
    assert len(run.predict([IMAGES[0]])) == 1
    assert len(zoo.resume(run, epochs=2).rows) == 2
    own_source._remembered().clear()  # another program
    with pytest.raises(InputError, match=r"give it again by zoo.load\(.*, model="):
        zoo.load(run)
    loaded = zoo.load(run, model=net)
    assert loaded.predict([IMAGES[0]])[0]
    assert zoo.evaluate(run).same_as_recorded
    own_source._remembered().clear()


def test_another_model_than_the_run_s_is_refused_in_one_line(tmp_path: Path) -> None:
    run = zoo.train(typed(), **FEW, output=tmp_path / "run")
    own_source._remembered().clear()

    def other(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.Linear(5, num_classes))

    for call, options in ((zoo.load, {}), (zoo.resume, {"epochs": 2})):
        with pytest.raises(zoo.ZooError, match=r"1\.weight|2\.bias") as caught:
            call(run, model=other, **options)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="give it again"):
            zoo.load(run)
        assert run.reread().record == run.record  # the run is as it was
    own_source._remembered().clear()


def flat(**options: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3, **options))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: flat().double(), r"Sequential: 1.weight is of torch.float64; give .*, module.float\(\)"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), "1.weight has no shape yet; call the module once"),
        (lambda: torch.jit.trace(flat(), torch.ones(1, 3, 6, 6)), "is compiled by torch.jit and cannot be trained"),
    ],
)
def test_a_module_that_cannot_be_trained_is_refused_in_one_line(model: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        zoo.train(model(), **FEW, output=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("every", [False, True])
def test_a_module_that_a_function_keeps_is_not_trained_itself(every: bool, tmp_path: Path) -> None:
    kept = flat()
    before = {key: value.clone() for key, value in kept.state_dict().items()}
    run = zoo.train((lambda **sizes: kept) if every else (lambda num_classes: kept), **FEW, output=tmp_path / "run")
    assert run.evaluate().same_as_recorded
    assert all(torch.equal(value, before[key]) for key, value in kept.state_dict().items())


def leave(images: Any, labels: Any) -> Any:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda images, labels: (images, labels + 3), "returned labels from 3 to 4; allowed: 0..2"),
        (lambda images, labels: (images, -1 - labels), "returned labels from -2 to -1; allowed: 0..2"),
        (lambda images, labels: images.to("meta"), "returned tensors of the device meta"),
        (leave, "failed: SystemExit: 3"),
    ],
)
def test_what_augment_does_wrong_is_said_in_one_line(augment: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        zoo.train(typed(), **FEW, augment=augment, output=tmp_path / "run")


@pytest.mark.parametrize("parts", [1, 2])
def test_labels_that_augment_changes_have_the_weights_of_their_new_classes(parts: int, tmp_path: Path) -> None:
    """A model that says the same of every image has the same loss of each, whatever they count."""

    def says_nothing(num_classes: int) -> nn.Module:
        net = flat()
        nn.init.zeros_(net[1].weight)
        nn.init.zeros_(net[1].bias)
        return net

    recipe = {"class_weights": {"0": 5.0, "1": 2.0}, "accumulate": parts, "lr": 1e-9, "label_smoothing": 0.0}
    run = zoo.train(
        says_nothing,
        **FEW,
        recipe=recipe,
        augment=lambda images, labels: (images, (labels + 1) % 3),
        output=tmp_path / "run",
    )
    assert run.rows[0]["train_loss"] == pytest.approx(math.log(3), rel=1e-5)


class Later(nn.Module):
    """Fails, or leaves, after some batches."""

    error: BaseException

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(108, num_classes), 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += not images.is_meta
        if self.seen > 3:
            raise self.error
        return self.layer(images.flatten(1))


def some_steps(plan: Plan, busy: int) -> tuple[Plan, str]:
    """As the timing of a step beside other processes."""
    module = plan.build()
    for _ in range(5):
        module(torch.ones(2, 3, 6, 6))
    return plan, ""


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("error", [ValueError("two\nlines"), SystemExit(3)])
def test_what_fails_in_the_middle_of_a_training_is_said_with_its_line(
    error: BaseException, timed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Later.error = error
    if timed:
        monkeypatch.setattr("zoo.train.call.beside_others", some_steps)
    said = f"own.Later: failed: {type(error).__name__}: {str(error).split()[0]} \\(test_calls_own.py, line "
    with pytest.raises(InputError, match=said) as caught:
        zoo.train(Later, **FEW, output=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_publishing_code_of_one_s_own_says_what_to_do_before_it_asks_for_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    run = zoo.train(typed(), **FEW, output=tmp_path / "run")
    with pytest.raises(InputError, match="zoo new plugin NAME --from"):
        run.push_to_hub("me/net")


@pytest.mark.parametrize("call", [zoo.part, zoo.info])
def test_a_class_where_a_name_is_taken_is_refused_in_one_line(call: Any) -> None:
    with pytest.raises(InputError, match="not a type"):
        call(Later)


def test_a_listener_that_fails_in_several_lines_is_warned_of_in_one(tmp_path: Path) -> None:
    class Fails:
        def epoch(self, row: dict[str, Any], best: bool) -> None:
            raise ValueError("two\nlines")

    with pytest.warns(ZooWarning) as caught:
        zoo.train(typed(), **FEW, listeners=[Fails()], output=tmp_path / "run")
    assert [str(w.message) for w in caught] == [
        "1 class has no validation image, of 3 (2)",
        "listener Fails failed and was switched off; the run continues (ValueError: two)",
    ]
