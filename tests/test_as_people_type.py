"""The command line as people type it: help without options, -q anywhere, a word in the wrong place."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from click_tree import commands

from zoo.catalogue.registry import load_registry
from zoo.catalogue.tree_check import GIVEN, arguments
from zoo.cli import cli
from zoo.errors import InputError, UnknownNameError


def typed(words: str) -> Result:
    return CliRunner().invoke(cli, words.split(), standalone_mode=False, prog_name="zoo")


# ---- help ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["", "new", "-q", "help", "help new"])
def test_a_group_without_a_command_prints_its_help_as_help(words: str) -> None:
    done = typed(words)
    assert done.exception is None
    assert done.stdout.startswith("Usage: zoo")
    assert "\nCommands:\n" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("words", ["train", "datasets check", "new plugin"])
def test_help_of_a_command_is_what_its_option_prints(words: str) -> None:
    assert typed(f"help {words}").stdout == typed(f"{words} --help").stdout


@pytest.mark.parametrize(
    ("words", "answer"),
    [("help nosuch", "no command named 'nosuch'"), ("help train me", "`zoo train` has no command 'me'")],
)
def test_help_of_no_command_is_refused(words: str, answer: str) -> None:
    assert answer in str(typed(words).exception)


# ---- quiet -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [context.command_path for context in commands()])
def test_every_command_has_a_quiet_option(path: str) -> None:
    words = path.removeprefix("zoo").strip()
    assert "-q, --quiet" in typed(f"{words} --help").stdout


@pytest.mark.parametrize("words", ["-q list --dataset digits", "list --dataset digits -q", "list -q --dataset digits"])
def test_quiet_is_the_same_before_and_after_the_command(words: str) -> None:
    assert typed(words.replace("-q", "")).stderr != ""
    assert typed(words).stderr == ""


def test_quiet_reaches_the_commands_of_a_group_from_everywhere(tmp_path: Path) -> None:
    for number, words in enumerate(("-q new plugin {}", "new -q plugin {}", "new plugin {} -q", "new plugin {}")):
        done = typed(f"{words.format('waves')} --output {tmp_path}/{number}")
        assert done.exception is None
        assert ("next:" in done.stderr) == ("-q" not in words)


# ---- a word in the wrong place -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("train resnet18 folder:x", "'folder:x': a dataset is given by an option: zoo train ... --dataset folder:x"),
        ("train resnet18 digits", "zoo train ... --dataset digits"),
        ("sweep resnet18 photos", "zoo sweep ... --dataset photos"),
        ("eval here digits", "zoo eval ... --on digits"),
    ],
)
def test_a_dataset_without_its_option_is_answered_with_the_option(
    words: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here/run.toml").touch()
    refused = typed(words).exception
    assert isinstance(refused, InputError)
    assert answer in str(refused)


def test_any_other_word_too_many_is_refused_as_before() -> None:
    assert "Got unexpected extra arguments (foo bar)" in str(typed("train resnet18 foo bar").exception)


# ---- lists of nothing --------------------------------------------------------------------------


def test_a_dataset_that_no_model_is_built_for_is_a_dataset_all_the_same() -> None:
    done = typed("list --dataset digits --json")
    assert done.exception is None
    assert json.loads(done.stdout) == []
    assert "zoo train MODEL --dataset digits" in done.stderr
    assert "did you mean digits?" in str(typed("list --dataset digitz").exception)


def test_a_selection_of_runs_that_leaves_none_is_not_answered_by_no_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "`zoo train MODEL --dataset NAME` creates one" in str(typed("runs --model nosuch").exception)
    sizes = "--epochs 1 --limit-train 40 --limit-test 20"
    assert typed(f"train cnn-baseline --dataset digits {sizes} --output runs/a -q").exception is None
    for words, answer in (("--model cnn-baselin-", "did you mean cnn-baseline?"), ("--dataset digitz", "digits?")):
        refused = typed(f"runs {words}").exception
        assert isinstance(refused, UnknownNameError)
        assert answer in str(refused)
    for words in ("--model cnn --state training", "--model resnet18", "--dataset cifar10"):
        done = typed(f"runs {words}")
        assert done.exception is None
        assert "no run is left by these options" in done.stderr


# ---- misspelled trees --------------------------------------------------------------------------

TOML = """
[models.mine]
summary = "x"
family = "cnn"
recipe = "default"
build = { use = "hybrid.classifier", body = { use = "cnn.residual", widths = [32, 32] } }
"""


@pytest.mark.parametrize("more", ["", " --json", " --tree", " --picture tree.png"])
@pytest.mark.parametrize(
    ("right", "wrong", "answer"),
    [
        ("widths", "wdths", "mine: build.body: 'cnn.residual' takes no argument 'wdths'; allowed: widths"),
        ("cnn.residual", "cnn.residul", "mine: build.body.use: no component named 'cnn.residul'; did you mean cnn.res"),
        ("hybrid.cl", "hybird.cl", "mine: build.use: no component named 'hybird.classifier'; did you mean hybrid.cl"),
    ],
)
def test_info_refuses_a_misspelled_tree(
    right: str, wrong: str, answer: str, more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text(TOML)
    assert typed(f"info my.toml#mine{more}").exception is None
    (tmp_path / "my.toml").write_text(TOML.replace(right, wrong))
    refused = typed(f"info my.toml#mine{more}").exception
    assert isinstance(refused, InputError)
    assert answer in str(refused)


def test_arguments_read_from_the_source_are_those_of_the_factory() -> None:
    from zoo.catalogue.plugins import import_factory

    read = 0
    for use, component in load_registry().components.items():
        if (names := arguments(component.factory)) is not None and component.kind in GIVEN:
            assert names == tuple(inspect.signature(import_factory(component.factory, use)).parameters)
            read += 1
    assert read > 15


@pytest.mark.parametrize("factory", ["json:loads", "json.decoder:JSONDecoder", "no_such_module:f", "math:sin"])
def test_what_the_source_does_not_tell_is_not_guessed(factory: str) -> None:
    assert arguments(factory) is None


def test_a_name_with_a_namespace_is_answered_with_the_namespaces() -> None:
    assert "models whose name has a / begin with timm/ or torchvision/" in str(typed("info vitpt/Nope").exception)
    assert "(timm.model): no timm model named 'Nope'" in str(typed("info timm/Nope --build").exception)
