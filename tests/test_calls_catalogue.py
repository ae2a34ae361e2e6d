"""The calls about the catalogue and datasets: they give what the commands print, and print nothing themselves."""

from __future__ import annotations

import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from plugin_site import Site, site_in
from test_parquet import both

import zoo
from zoo.catalogue import api as catalogue_calls
from zoo.catalogue import model_rows
from zoo.catalogue.describe import row_of
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.cli import listing as list_command
from zoo.cli.new import FAMILIES
from zoo.data import api as data_calls
from zoo.errors import BadImagesError, InputError, UnknownNameError, ZooWarning
from zoo.plugin.scaffold import families

TOML = """
[models.mine]
summary = "a <b>small</b> one"
family = "cnn"
recipe = "default"
dataset = "digits"
build = { use = "hybrid.classifier", body = { use = "cnn.residual", widths = [4, 4] } }
"""


class Told(zoo.Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []
        self.seen: list[tuple[str, int, int]] = []
        self.closed = False

    def say(self, line: str) -> None:
        self.said.append(line)

    def warn(self, line: str) -> None:
        self.warned.append(line)

    def progress(self, what: str, done: int, total: int, /) -> None:
        self.seen.append((what, done, total))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def nothing_printed(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """No call prints, whatever the test does with it; the commands run in click's own streams."""
    monkeypatch.chdir(tmp_path)
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Where plugins can be added that this process sees."""
    found = site_in(tmp_path)
    monkeypatch.syspath_prepend(str(found.folder))
    return found


def typed(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def printed(*words: str) -> Any:
    done = typed(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def images(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")


# ---- models ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), {}),
        (("hybrid-*", "--sort", "published"), {"pattern": "hybrid-*", "sort": "published"}),
        (("--sort", "own", "--tag", "paper"), {"sort": "own", "tag": "paper"}),
        (("--family", "cnn", "--dataset", "cifar10"), {"family": "cnn", "dataset": "cifar10"}),
        (("--sort", "parameters"), {"sort": "parameters"}),
    ],
)
def test_models_gives_the_rows_of_zoo_list(words: tuple[str, ...], options: dict[str, Any]) -> None:
    if "tag" in options:
        options = options | {"tag": zoo.models()[0]["tags"][0]}
        words = (*words[:-1], options["tag"])
    found = zoo.models(**options)
    assert len(found) > 1
    assert as_json(found.rows) == printed("list", *words)
    lines = typed("list", *words).stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == found.short.column("name") == found.column("name")


def test_rows_are_the_same_made_and_kept_and_have_the_columns_that_are_promised() -> None:
    made, kept = zoo.models(), zoo.models()
    assert made == kept
    registry = load_registry()
    name = made[0]["name"]
    assert as_json(row_of(name, registry.models[name], registry)) == as_json(made[0])
    assert tuple(row_of(name, registry.models[name], registry)) == model_rows.COLUMNS
    assert tuple(model_rows.short_of(made[0])) == model_rows.SHORT
    assert "timm" in kept.namespaces


def test_kept_rows_are_read_without_making_them(monkeypatch: pytest.MonkeyPatch) -> None:
    first = zoo.models()
    monkeypatch.setattr(model_rows, "_made", lambda: pytest.fail("made again"))
    assert zoo.models() == first


def test_the_table_of_models_is_shown_by_its_short_lines_and_so_is_a_part_of_it() -> None:
    found = zoo.models("hybrid-alt-*")
    assert repr(found) == repr(found.short)
    assert found._repr_html_() == found.short._repr_html_()
    assert found[:1].short == found.short[:1]
    best = found.short[0]
    row = found[0]
    assert best["published"] == max(r["top1"] for r in row["published"] if r["dataset"] == best["dataset"])


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["zz-one"], {"pattern": "zz-one"}),
        (["nowhere/*"], {"pattern": "nowhere/*"}),
        (["--family", "hybird"], {"family": "hybird"}),
        (["--tag", "smal"], {"tag": "smal"}),
        (["--dataset", "digitz"], {"dataset": "digitz"}),
    ],
)
def test_a_name_that_is_unknown_is_the_error_of_the_command(words: list[str], options: dict[str, str]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        zoo.models(**options)
    done = typed("list", *words, "--json")
    assert (type(done.exception), str(done.exception)) == (UnknownNameError, str(caught.value))
    assert json.loads(done.stdout) == []


def test_why_there_are_no_rows_is_told_to_the_reporter() -> None:
    rows = zoo.models()
    used = {row["dataset"] for row in rows} | {result["dataset"] for row in rows for result in row["published"]}
    unused = next(name for name in zoo.datasets().column("name") if name not in used)
    families, built_for = sorted({row["family"] for row in rows}), sorted({row["dataset"] for row in rows})
    pairs = ((family, dataset) for family in families for dataset in built_for)
    family, dataset = next(pair for pair in pairs if not len(zoo.models(family=pair[0], dataset=pair[1])))
    for options, why in (
        ({"dataset": unused}, f"no model is built or published for {unused}; any model can be trained on it"),
        ({"family": family, "dataset": dataset}, "no model matches all of these options"),
    ):
        told = Told()
        found = zoo.models(**options, reporter=told)
        assert (len(found), found.columns) == (0, model_rows.COLUMNS)
        assert [line.startswith(why) for line in told.said] == [True]
        done = typed("list", *(word for key, value in options.items() for word in (f"--{key}", value)))
        assert (done.exit_code, done.stdout, done.stderr.splitlines()) == (0, "", told.said)


@pytest.mark.parametrize("sort", ["published", "own"])
def test_the_best_come_first_and_the_unknown_last(sort: Any) -> None:
    values = zoo.models(sort=sort).short.column(sort)
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert known[0] > known[-1]
    assert values == [*known, *[None] * (len(values) - len(known))]


def test_another_column_to_sort_by_is_refused_and_the_command_offers_those_that_there_are() -> None:
    with pytest.raises(InputError, match="cannot sort by 'size'; allowed: name, family"):
        zoo.models(sort="size")
    assert get_args(list_command.Sort) == get_args(model_rows.Sort)


def test_models_is_a_room_and_a_call() -> None:
    assert next(iter(inspect.signature(zoo.models).parameters)) == "pattern"
    assert "List the models" in (inspect.getdoc(zoo.models) or "")
    assert zoo.models is sys.modules["zoo.models"]


# ---- datasets and plugins -------------------------------------------------------------------


def test_datasets_gives_the_rows_of_zoo_datasets() -> None:
    found = zoo.datasets()
    assert as_json(found.rows) == printed("datasets")
    assert {row["name"]: row["classes"] for row in found}["digits"] == 10


def test_plugins_gives_the_rows_of_zoo_plugins() -> None:
    found = zoo.plugins()
    assert as_json(found.rows) == printed("plugins")
    assert found.column("builtin")[0] is True


def test_a_broken_plugin_is_warned_of_by_every_call(site: Site) -> None:
    site.add("lost", "raise RuntimeError('no licence file')")
    for call in (zoo.models, zoo.datasets, zoo.plugins, lambda **more: zoo.info("resnet9", **more)):
        told = Told()
        call(reporter=told)
        assert ["no licence file" in line for line in told.warned] == [True]
    assert typed("list").stderr.startswith(f"warning: {told.warned[0]}")
    with pytest.warns(ZooWarning, match="plugin 'lost' .* is left out: RuntimeError: no licence file"):
        (row,) = [row for row in zoo.plugins() if row["name"] == "lost"]
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: no licence file")


# ---- info -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hybrid-alt-1", "my.toml#mine"])
def test_info_gives_what_zoo_info_prints(name: str) -> None:
    Path("my.toml").write_text(TOML)
    found = zoo.info(name)
    assert as_json(found.as_dict()) == printed("info", name)
    tree = typed("info", name, "--tree").stdout.splitlines()
    assert [line.split("  hybrid-zoo")[0].rstrip() for line in tree] == [line for line, _ in found.lines()]
    assert repr(found).splitlines()[1:] == [line for line, _ in found.lines()]
    assert found.tree is found.model.build


def test_info_draws_the_picture_that_the_command_draws() -> None:
    Path("my.toml").write_text(TOML)
    found = zoo.info("my.toml#mine")
    picture = found.picture("ours.svg")
    done = typed("info", "my.toml#mine", "--picture", "theirs.svg")
    assert done.stdout == "theirs.svg\n"
    assert picture.path == Path("ours.svg")
    assert picture.data == Path("ours.svg").read_bytes() == Path("theirs.svg").read_bytes()
    shown = found._repr_html_()
    assert "<b>" not in shown
    assert 'src="data:image/svg+xml;base64,' in shown
    assert 'alt="hybrid.classifier (cnn.residual' in shown
    with pytest.raises(InputError, match=r"ours\.gif: a picture's name ends in \.png or \.svg"):
        found.picture("ours.gif")


def test_info_builds_as_the_command_does_and_takes_a_tree_of_python() -> None:
    Path("my.toml").write_text(TOML)
    found = zoo.info("my.toml#mine", build=True, num_classes=7, image_size=16)
    words = ("info", "my.toml#mine", "--build", "--num-classes", "7", "--image-size", "16")
    assert as_json(found.as_dict()) == printed(*words)
    assert found.counts["sizes"]["num_classes"] == 7
    own = zoo.info(found.tree, build=True, num_classes=7, image_size=16)
    assert own.tree == found.tree
    assert own.counts["parameters"] == found.counts["parameters"]


@pytest.mark.parametrize("options", [{"num_classes": 7}, {"image_size": 16}])
def test_sizes_without_building_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError) as caught:
        zoo.info("hybrid-alt-1", **options)
    key, value = next(iter(options.items()))
    done = typed("info", "hybrid-alt-1", f"--{key.replace('_', '-')}", str(value))
    assert str(done.exception) == str(caught.value)
    assert (done.exit_code, done.stdout) != (0, "")
    with pytest.raises(InputError, match="at least 1"):
        zoo.info("hybrid-alt-1", build=True, num_classes=0)


def test_a_misspelled_tree_is_shown_and_then_refused() -> None:
    Path("my.toml").write_text(TOML.replace("widths", "wdths"))
    found = zoo.info("my.toml#mine")
    with pytest.raises(InputError, match="takes no argument 'wdths'") as caught:
        found.check()
    done = typed("info", "my.toml#mine")
    assert str(done.exception) == str(caught.value)
    assert "wdths" in done.stdout
    with pytest.raises(UnknownNameError, match="no model named 'hybrid-alt-l'"):
        zoo.info("hybrid-alt-l")


# ---- the check of a dataset -----------------------------------------------------------------


def test_check_dataset_gives_what_the_command_prints(tmp_path: Path) -> None:
    for seed, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        images(tmp_path / "data" / name, 3, seed)
    spec, told = f"folder:{tmp_path / 'data'}", Told()
    found = zoo.check_dataset(spec, reporter=told)
    assert as_json(found.as_dict()) == printed("datasets", "check", spec)
    assert repr(found).splitlines() == typed("datasets", "check", spec).stdout.splitlines()
    assert (found.usable, found.train, found.test, found.size) == (True, (3, 3), (3, 3), (8, 8))
    assert told.seen
    assert told.closed
    larger = zoo.check_dataset(spec, image_size=16)
    assert larger.size == (16, 16)
    assert as_json(larger.as_dict()) == printed("datasets", "check", spec, "--image-size", "16")
    with pytest.raises(AttributeError):
        found.name = "other"  # type: ignore[misc]  # wrong on purpose


def test_a_dataset_that_cannot_be_trained_on_is_not_usable_and_the_command_fails(tmp_path: Path) -> None:
    both(tmp_path / "data", [0, 0, 2, 2], ["ant", "bee", "cat"])
    spec = f"parquet:{tmp_path / 'data'}"
    found = zoo.check_dataset(spec)
    done = typed("datasets", "check", spec, "--json")
    assert (found.usable, done.exit_code) == (False, 1)
    assert as_json(found.as_dict()) == json.loads(done.stdout)
    assert found.findings[0].level == "error"


def test_images_that_cannot_be_read_are_among_what_the_command_finds(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        images(tmp_path / "data" / name, 6, seed)
    (tmp_path / "data/a/0.png").write_bytes(b"no image")
    spec, told = f"folder:{tmp_path / 'data'}", Told()
    found = zoo.check_dataset(spec, reporter=told)
    done = typed("datasets", "check", spec, "--json")
    assert (found.usable, done.exit_code, told.closed) == (False, 1, True)
    assert json.loads(done.stdout)["unreadable"] == list(found.unreadable)
    assert "a/0.png: cannot be read" in found.unreadable[0]
    assert zoo.check_dataset(spec, skip_bad=True).skipped == 1


def test_images_none_of_which_can_be_read_are_the_error_of_the_command(tmp_path: Path) -> None:
    for name in ("a", "b"):
        images(tmp_path / "data" / name, 6, 0)
    for path in (tmp_path / "data").glob("*/*.png"):
        path.write_bytes(b"no image")
    spec, told = f"folder:{tmp_path / 'data'}", Told()
    with pytest.raises(BadImagesError) as caught:
        zoo.check_dataset(spec, reporter=told)
    done = typed("datasets", "check", spec, "--json")
    assert (type(done.exception), str(done.exception)) == (BadImagesError, str(caught.value))
    assert json.loads(done.stdout)["unreadable"] == list(caught.value.problems)
    assert told.closed


# ---- a new plugin ---------------------------------------------------------------------------


def test_new_plugin_writes_the_folder_that_the_command_writes() -> None:
    ours = zoo.new_plugin("waves", family="vit", output="ours")
    done = typed("new", "plugin", "waves", "--family", "vit", "--output", "theirs")
    assert (ours, done.stdout) == (Path("ours"), "theirs\n")

    def files(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    assert files(ours) == files(Path("theirs"))
    assert len(files(ours)) > 5
    with pytest.raises(InputError) as caught:
        zoo.new_plugin("waves", output="ours")
    assert str(caught.value) == str(typed("new", "plugin", "waves", "--output", "ours").exception)


def test_the_command_offers_the_families_that_there_are_and_passes_code_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(families()) == FAMILIES
    seen: list[Any] = []

    def made(*words: Any) -> Path:
        seen.append(words)
        return Path("zoo-waves")

    monkeypatch.setattr("zoo.catalogue.own_plugin.plugin_of", made)
    zoo.new_plugin("waves", source=Path("train.py"))
    assert typed("new", "plugin", "waves", "--from", "train.py:Waves").exit_code == 0
    assert seen == [("train.py", "waves", None), ("train.py:Waves", "waves", None)]


# ---- all of them ----------------------------------------------------------------------------


@pytest.mark.parametrize("module", [catalogue_calls, data_calls])
def test_the_examples_run(module: Any) -> None:
    runner = doctest.DocTestRunner()
    said: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={"zoo": zoo}):
        runner.run(test, out=said.append)
    assert said == []
    assert runner.tries > 0


def test_none_of_these_calls_imports_torch_nor_prints(tmp_path: Path) -> None:
    code = (
        "import sys, zoo\n"
        "zoo.models(), zoo.models('hybrid*', sort='own'), zoo.datasets(), zoo.plugins(), zoo.runs()\n"
        "info = zoo.info('hybrid-alt-1')\n"
        "info.as_dict(), repr(info), repr(zoo.models()), zoo.load_registry()\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_size_of_nothing_and_a_path_in_place_of_a_spec_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an image size of 0x0 is not possible"):
        zoo.check_dataset("digits", image_size=0)
    with pytest.raises(InputError, match=f"Path is no SPEC of a dataset.*'folder:{tmp_path}'"):
        zoo.check_dataset(tmp_path)  # type: ignore[arg-type]  # wrong on purpose
