"""The entry of trained weights is written into a registry file, and every other byte of the file stays."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.base.paths import builtin_registry
from zoo.catalogue.registry_edit import check_room, weights_in, with_weights, write_weights
from zoo.catalogue.spec import TrainedWeights
from zoo.errors import SpecError
from zoo.hub.entry import entry_text

MODEL = """summary = "a"
family = "cnn"
recipe = "cnn-to-others"
build = { use = "cnn.baseline" }
"""
FILE = f"""# mine

[models.first]  # the first
{MODEL}
[[models.first.published]]  # a table of its own
dataset = "digits"
note = '''
[models.second]
a line that only looks like a header'''
tops = [
  ["x"]
]

# about the second

[models . "second.1"]
{MODEL}# the last remark"""
FILE = FILE.replace("tops = [\n", "changes.list = [\n")


def entry(dataset: str = "digits", digit: str = "0") -> TrainedWeights:
    return TrainedWeights(
        dataset=dataset,
        where=f"hf://me/first-{dataset}@{digit * 40}",
        top1=0.9,
        interval=(0.85, 0.93),
        recipe="cnn-to-others",
        protocol="clean",
        seed=0,
        precision="fp32",
        bytes=1000,
        sha256=digit * 64,
        licence="mit",
    )


def added_lines(before: str, after: str) -> list[str]:
    """The lines that are new, of a text from which no line is missing."""
    changes = [line for line in difflib.ndiff(before.splitlines(True), after.splitlines(True)) if line[0] in "+-"]
    assert all(line.startswith("+") for line in changes), changes
    return [line[2:] for line in changes]


@pytest.mark.parametrize("model", ["first", "second.1"])
def test_an_entry_comes_right_after_its_model(model: str) -> None:
    block = entry_text(model, entry())
    written = with_weights(FILE, model, block, "registry.toml")
    assert "".join(filter(str.strip, added_lines(FILE, written))) == block
    table = tomllib.loads(written)["models"][model]
    assert table.pop("weights") == tomllib.loads(block)["models"][model]["weights"]
    assert table == tomllib.loads(FILE)["models"][model]
    after = written.partition(block)[2]
    assert after.startswith("\n# about the second" if model == "first" else "\n# the last remark")


def test_an_entry_is_replaced_by_one_for_the_same_dataset_and_joined_by_others() -> None:
    text = FILE
    for new in (entry("digits"), entry("cifar10"), entry("mnist")):
        text = with_weights(text, "first", entry_text("first", new), "registry.toml")
    other = with_weights(text, "first", entry_text("first", entry("cifar10", "7")), "registry.toml")
    assert other == text.replace(entry_text("first", entry("cifar10")), entry_text("first", entry("cifar10", "7")))
    datasets = [row["dataset"] for row in tomllib.loads(other)["models"]["first"]["weights"]]
    assert datasets == ["digits", "cifar10", "mnist"]
    assert with_weights(other, "first", entry_text("first", entry("mnist")), "registry.toml") == other


@pytest.mark.parametrize(
    "change",
    [lambda text: text.replace("\n", "\r\n"), lambda text: text.rstrip("\n"), lambda text: f"{text}\n\n\n"],
    ids=["CRLF", "no last newline", "blank lines at the end"],
)
def test_line_endings_stay(change: Callable[[str], str]) -> None:
    text = change(f"[models.first]\n{MODEL}\n[models.second]\n{MODEL}")
    ending = "\r\n" if "\r" in text else "\n"
    for model in ("first", "second"):
        written = with_weights(text, model, entry_text(model, entry()), "registry.toml")
        block = entry_text(model, entry()).replace("\n", ending)
        assert block in written
        assert written.count("\n") - written.count(ending) == 0
        assert written.partition(block)[0].startswith(text[: text.index("[models.second]") - 2 * len(ending)])
        assert with_weights(written, model, entry_text(model, entry()), "registry.toml") == written


def test_models_of_our_own_registry_file_have_room() -> None:
    text = Path(builtin_registry()).read_bytes().decode()
    models = list(tomllib.loads(text)["models"])
    for model in {*models[::8], models[-1]}:
        written = with_weights(text, model, entry_text(model, entry("imagenette")), "registry.toml")
        lines = added_lines(text, written)
        assert sorted(filter(str.strip, lines)) == sorted(
            entry_text(model, entry("imagenette")).splitlines(keepends=True)
        )
        above = written.partition(f"[[models.{model}.weights]]")[0].splitlines()
        headers = [line for line in above if line.startswith(("[models.", "[[models."))]
        assert headers[-1].lstrip("[").startswith(f"models.{model}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[models]\nfirst = { summary = "a", family = "c", recipe = "r", build = { use = "cnn.baseline" } }\n',
            "a table",
        ),
        (f"[models.first]\n{MODEL}weights = []\n", r"\[\[models.first.weights\]\]"),
        (f"[models.other]\n{MODEL}", "has no model 'first'"),
        (f'[models.first]\n{MODEL}[[models.first.weights]]\ndataset = "stl10"\n', "where"),
        (f"[models.first]\n{MODEL}" + "# much\n" * 150_000, "larger than 1 MiB"),
    ],
    ids=["inline model", "inline weights", "no such model", "a wrong entry beside it", "too large"],
)
def test_a_file_without_room_is_refused_and_stays(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(text)
    for call in (check_room, write_weights):
        with pytest.raises(SpecError, match=words):
            call(path, "first", entry_text("first", entry()))
    assert path.read_text() == text
    assert os.listdir(tmp_path) == ["registry.toml"]


def test_the_file_behind_a_link_is_replaced_with_its_rights(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "mine.toml", tmp_path / "registry.toml"
    real.write_text(FILE)
    real.chmod(0o640)
    link.symlink_to(real)
    (real.parent / ".zoo-tmp-12345678-mine.toml").write_text("half")  # of a process that was killed
    write_weights(link, "first", entry_text("first", entry()))
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert weights_in(link, "first") == {"digits": entry()}
    assert os.listdir(real.parent) == ["mine.toml"]
