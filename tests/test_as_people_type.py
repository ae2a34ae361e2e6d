"""The command line as people type it: help without options, -q anywhere, a word in the wrong place."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from click_tree import commands
from PIL import Image

from zoo.catalogue.registry import find_model, load_registry
from zoo.catalogue.tree_check import arguments
from zoo.cli import cli
from zoo.errors import InputError, SpecError, UnknownNameError, ZooError
from zoo.plugin.contract import GIVEN


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


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("info cnn-baseline --json --picture tree.svg", "leave out one of them"),
        ("list digits --hub --sort published", "leave out --sort"),
        ("new plugin waves --family vit --from train.py", "leave out --family"),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(
    line: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = typed(line).exception
    assert isinstance(refused, InputError)
    assert answer in str(refused)
    assert not list(tmp_path.iterdir())


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
    said = str(typed("info timm/test_vit.nope --build").exception)
    assert said.endswith("timm's test_vit has no tag 'nope'; it has test_vit.r160_in1k")


# ---- the world around ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["[registry]\nx = 1\n", "<html>\n", 'name = "General"\n[packages.a]\nname = "b"\n'])
def test_another_programs_registry_toml_stops_nothing_and_is_said(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry.toml").write_text(text)
    assert any("another program's" in problem for problem in load_registry().problems)
    done = typed("list hybrid-alt-1")
    assert done.exception is None
    assert "registry.toml is left out" in done.stderr
    assert isinstance(typed("info registry.toml#mine").exception, SpecError)
    (tmp_path / "mine").mkdir()
    (tmp_path / "registry.toml").rename(tmp_path / "mine/registry.toml")
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(tmp_path / "mine"))
    assert isinstance(typed("list hybrid-alt-1").exception, SpecError), "in the user's own folder it is the user's"


@pytest.mark.parametrize("text", ["[modles.x]\n", "[models\n", "recipe.x = = 1\n"])
def test_a_registry_toml_that_is_nearly_ours_is_still_an_error(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry.toml").write_text(text)
    with pytest.raises(SpecError):
        load_registry()


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    """The pipe is closed before the list is written."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "zoo", "list"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="the current folder cannot be deleted there")
@pytest.mark.parametrize("words", ["runs", "eval last", "train cnn-baseline"])
def test_every_command_names_the_folder_that_was_deleted(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PWD", str(gone))
    gone.rmdir()
    try:
        refused = typed(words).exception
    finally:
        os.chdir(tmp_path)
    assert isinstance(refused, ZooError)
    assert str(refused) == f"the current folder {gone} was deleted; change into one that exists (cd)"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("--epochs 0", "--epochs must be at least 1, given 0"),
        ("--lr -1", "--lr: expected `float` > 0.0, given -1.0"),
        ("--set recipe.lr=-1", "recipe cnn-to-others.lr: expected `float` > 0.0, given -1"),
    ],
)
def test_a_wrong_value_is_called_by_the_option_that_gave_it(words: str, answer: str) -> None:
    assert str(typed(f"train cnn-baseline --dataset digits {words}").exception) == answer


def test_the_advice_to_use_digits_is_given_only_where_a_model_is_to_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    assert "--dataset digits" in str(typed(f"train cnn-baseline --data-dir {tmp_path}").exception)
    answer = str(typed(f"datasets check cifar10 --data-dir {tmp_path}").exception)
    assert answer.endswith("connect to the network, or name its folder with --data-dir")


def test_earlier_pictures_are_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("captum")
    monkeypatch.chdir(tmp_path)
    sizes = "--epochs 1 --limit-train 40 --limit-test 20"
    assert typed(f"train cnn-baseline --dataset digits {sizes} --output runs/a -q").exception is None
    Image.new("RGB", (8, 8)).save("p.png")
    Image.new("RGB", (8, 8), "red").save("q.png")
    assert typed("predict a p.png --explain seen").exception is None
    before = Path("seen/p.explained.png").read_bytes()
    Path("q.png").replace("p.png")
    assert "seen/p-2.explained.png" in typed("predict a p.png --explain seen").stdout
    assert Path("seen/p.explained.png").read_bytes() == before


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("nets.waves:Net", "nets/waves.py:Net"),
        ("nets.waves.Net", "nets/waves.py:Net"),
        ("nets.waves", "nets/waves.py:NAME"),
        ("resnet", "resnet.py:NAME"),
        ("resnet:", "resnet.py:NAME"),
    ],
)
def test_code_in_a_file_that_is_named_as_in_an_import_is_told_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, written: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    for file in ("nets/waves.py", "resnet.py"):
        (tmp_path / file).touch()
    with pytest.raises(UnknownNameError) as caught:
        find_model(word)
    assert str(caught.value).startswith(f"no model named {word!r}")
    assert str(caught.value).endswith(f"for the code in a file write {written}")
    assert ("resnet18" in str(caught.value)) == ("resnet" in word)
