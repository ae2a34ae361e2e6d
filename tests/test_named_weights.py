"""NAME@DATASET: weights that are entries of the catalogue, taken wherever a run is."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from plugin_site import REGISTRY_HOOK, Site

import zoo
from zoo.catalogue.registry import load_registry
from zoo.catalogue.weights import find_weights_of, names_of_weights
from zoo.cli import cli
from zoo.errors import InputError, PackageError, SpecError, ZooWarning
from zoo.hub.entry import main, write_entry
from zoo.train.pretrained import find_weights

MODEL = """
[models.mine]
summary = "a small network"
family = "cnn"
recipe = "cnn-to-others"
dataset = "digits"
build = { use = "cnn.baseline" }

"""


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry file with a model, its package in a folder beside it, and the entry of its weights."""
    folder = tmp_path_factory.mktemp("stored")
    (folder / "registry.toml").write_text(MODEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trained = zoo.train("mine", epochs=2, limit_train=200, limit_test=60, output="run")
        zoo.package(trained, "weights/mine-digits", predictions=False)
        write_entry(Path("weights/mine-digits"), Path("registry.toml"))
    shutil.rmtree(folder / "run")
    return folder


@pytest.fixture
def here(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of the user's own with that registry file, and an image."""
    shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
    Image.linear_gradient("L").resize((8, 8)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TAKE_WEIGHTS = (
    ["eval", "WEIGHTS"],
    ["predict", "WEIGHTS", "photo.png"],
    ["export", "WEIGHTS", "--format", "torch", "--no-check"],
    ["verify", "WEIGHTS"],
    ["runs", "WEIGHTS"],
    ["train", "--from", "WEIGHTS", "--dataset", "digits", "--epochs", "1", "--limit-train", "40", "--output", "tuned"],
    ["train", "mine", "--weights", "WEIGHTS", "--epochs", "1", "--limit-train", "40", "--output", "tuned"],
)


@pytest.mark.parametrize("words", TAKE_WEIGHTS, ids=" ".join)
def test_every_command_that_takes_a_run_takes_the_name_of_weights(words: list[str], here: Path) -> None:
    done = run(*(word.replace("WEIGHTS", "mine@digits") for word in words))
    assert done.exception is None, done.output
    assert done.exit_code == 0


def test_a_name_alone_is_that_of_the_first_weights_and_a_run_comes_before_it(here: Path) -> None:
    said = run("predict", "mine", "photo.png", "--json")
    assert "mine: mine@digits" in said.stderr
    alone = json.loads(said.stdout)
    named = json.loads(run("predict", "mine@digits", "photo.png", "--json").stdout)
    assert alone == named
    assert zoo.load("mine").predict("photo.png") == zoo.load("mine@digits").predict("photo.png")

    other = zoo.train("mine", epochs=1, limit_train=40, limit_test=20, seed=3, output="runs/mine")
    assert zoo.load("mine").record.seed == other.record.seed == 3


def test_an_evaluation_calls_weights_by_their_name(here: Path) -> None:
    assert zoo.evaluate("mine@digits").as_dict()["run"] == "mine@digits"


def test_verify_holds_the_package_against_the_entry(here: Path) -> None:
    found = zoo.verify("mine@digits")
    assert found.holds
    assert [check.holds for check in found.checks if check.name == "catalogue"] == [True]

    file = here / "registry.toml"
    text = file.read_text()
    assert "test_images = 60\n" in text
    file.write_text(text.replace("test_images = 60\n", ""))  # as earlier versions wrote it
    assert zoo.verify("mine@digits").holds

    file.write_text(text.replace("seed = 0", "seed = 7").replace("apache-2.0", "mit"))
    failed = zoo.verify("mine@digits").failed
    assert failed is not None
    assert failed.name == "catalogue"
    assert failed.seen.endswith("differs from the catalogue's entry in seed, licence")


def test_other_weights_than_the_entry_states_are_said_to_be_so_once(here: Path) -> None:
    """Whoever packages another run into the folder has an entry with the accuracy of the weights before."""
    here = here.rename(here.with_name(f"{here.name} of mine"))
    os.chdir(here)
    file = here / "registry.toml"
    file.write_text(re.sub(r'(?m)^sha256 = ".*"$', f'sha256 = "{"7" * 64}"', file.read_text()))
    with pytest.warns(ZooWarning, match=r"mine@digits: the weights in .* are not those that .* states") as said:
        run("predict", "mine", "photo.png")
    assert len(said) == 1
    package = here / "weights" / "mine-digits"
    assert shlex.split(str(said[0].message))[-2:] == [str(package), str(file)]


def test_a_damaged_package_is_refused(here: Path) -> None:
    path = here / "weights" / "mine-digits" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackageError, match=r"model\.safetensors"):
        zoo.load("mine@digits")


def test_a_dataset_without_weights_and_absent_files_are_named(here: Path) -> None:
    with pytest.raises(InputError, match=r"mine has no weights for 'stl10'; it has mine@digits"):
        zoo.load("mine@stl10")
    with pytest.raises(InputError, match=r"vit-b16 has no weights for 'digits'; it has none"):
        zoo.evaluate("vit-b16@digits")
    shutil.rmtree(here / "weights")
    with pytest.raises(SpecError, match=r"weights.mine-digits does not exist"):
        zoo.predict("mine@digits", "photo.png")


@pytest.mark.parametrize("command", [["package", "mine@digits"], ["train", "--resume", "mine@digits"]], ids=" ".join)
def test_what_needs_a_run_says_that_these_are_weights(command: list[str], here: Path) -> None:
    before = sorted(here.rglob("*"))
    done = run(*command)
    assert isinstance(done.exception, InputError)
    assert sorted(here.rglob("*")) == before


def test_list_and_info_show_them(here: Path) -> None:
    row = next(row for row in zoo.models("mine").rows if row["name"] == "mine")
    assert row["weights"][0]["dataset"] == "digits"
    assert zoo.models("mine").short[0]["weights"] == ["digits"]
    assert "WEIGHTS" in run("list", "mine").stdout
    page = " ".join(run("info", "mine").stdout.split())
    assert f"mine@digits top-1 {row['weights'][0]['top1']:.2%} (95% interval" in page
    assert list(names_of_weights(load_registry()))[-1] == "mine@digits"


def test_a_record_names_them_and_is_repeated_from_them(here: Path) -> None:
    tuned = zoo.train("mine", weights="mine@digits", epochs=1, limit_train=40, limit_test=20, output="tuned")
    assert tuned.record.base_model == "mine@digits"
    again = zoo.train(from_run="tuned", output="again")
    assert again.record.base_sha256 == tuned.record.base_sha256
    assert find_weights("mine").origin == "mine@digits"  # what --pretrained takes


def test_an_entry_is_written_for_a_package_beside_the_file_only(
    here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (here / "registry.toml").read_text()
    main(["weights/mine-digits", "registry.toml"])
    assert capsys.readouterr().out in before
    assert (here / "registry.toml").read_text() == before
    elsewhere = shutil.copytree("weights/mine-digits", tmp_path_factory.mktemp("other") / "package")
    for arguments, words in (
        ([str(elsewhere), "registry.toml"], "does not lie below the folder"),
        (["weights", "registry.toml"], "is not a package"),
        (["weights"], "usage: "),
    ):
        with pytest.raises(SystemExit, match=words):
            main(arguments)


def test_a_plugin_brings_weights_in_its_registry_and_its_wheel(stored: Path, tmp_path: Path) -> None:
    site = Site(tmp_path / "site", tmp_path / "work")
    site.add("brings", REGISTRY_HOOK, toml=(stored / "registry.toml").read_text())
    shutil.copytree(stored / "weights", site.folder / "weights")
    Image.linear_gradient("L").resize((8, 8)).save(tmp_path / "photo.png")
    done = site.run("predict", "mine@digits", str(tmp_path / "photo.png"), "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["classes"]) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("wheel:weights/mine-digits", "wheel:../out"), "write wheel:FOLDER"),
        (lambda text: text.replace("wheel:weights/mine-digits", "hf://me/mine@main"), "all 40 digits"),
        (lambda text: text.replace('sha256 = "', 'sha256 = "x'), "sha256"),
        (lambda text: text + text[text.index("[[models") :], "2 entries for 'digits'"),
        (lambda text: text.replace('dataset = "digits"\nwhere', 'dataset = "digit"\nwhere'), "digit"),
    ],
    ids=["outside", "branch", "hash", "twice", "dataset"],
)
def test_a_wrong_entry_is_refused_by_what_is_wrong(change: Callable[[str], str], words: str, here: Path) -> None:
    file = here / "registry.toml"
    file.write_text(change(file.read_text()))
    with pytest.raises(SpecError, match=words):
        find_weights_of("mine@digits", load_registry())
