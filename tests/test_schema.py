"""The JSON Schema of registry files: made from the structs, shipped, and as strict as reading the file is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from zoo.catalogue.registry import load_registry
from zoo.catalogue.schema import main, registry_schema, schema_text
from zoo.errors import SpecError
from zoo.plugin.scaffold import families, new_plugin

ROOT = Path(__file__).resolve().parent.parent
COPIES = (
    ROOT / "zoo" / "catalogue" / "registry.schema.json",
    ROOT / "examples" / "zoo-fourier" / "registry.schema.json",
)
MODEL = 'summary = "a"\nfamily = "a"\nrecipe = "default"\n'
BUILD = "build = { use = 'vit.image' }\n"
STUDY = "[studies.a]\nsummary = 'a'\nmodel = 'resnet18'\n"
GOOD = (
    "[recipes.a]\nlr = 1\naugment = [{ op = 'flip' }, { op = 'crop', padding = 2 }]",
    "[recipes.a]\nextends = 'default'\nfreeze = ['stem.*']\nlookahead = { every = 2 }",
    "[recipes.a]\ngroups = [{ match = 'vectors', lr = 1e-3 }]\nbetas = [0.9, 0.95]",
    f"[models.a]\n{MODEL}build = {{ use = 'vit.image', heads = 1, of = [{{ use = 'cnn.residual' }}] }}",
    f"[models.a]\n{MODEL}build = {{ use = 'vit.image', a = {{ b = 1 }}, c = [{{ use = 'vit.image' }}, ['d']] }}",
    "[datasets.a]\nsource = 'folder:a'\nsize = [8, 8]\nadapt = { augment = [] }",
    f"{STUDY}each = {{ 'recipe.lr' = [1e-3], batch_size = [8], 'build.depth' = [1] }}",
    "[catalogue]\nname = 'mine'\nversion = 2",
)
BAD = (
    "[recipes.a]\nepoch = 3",
    "[recipes.a]\nlr = 0",
    "[recipes.a]\nepochs = '3'",
    "[recipes.a]\nschedule = 'cosin'",
    "[recipes.a]\nbetas = [0.9, 0.95, 0.99]",
    "[recipes.a]\ngroups = [{ lr = 1e-3 }]",
    "[recipes.a]\naugment = [{ op = 'flop' }]",
    "[recipes.a]\naugment = [{ op = 'flip', padding = 4 }]",
    "[recipes.a]\naugment = [{ padding = 4 }]",
    "[recipes.A_]\nepochs = 3",
    "[recipe.a]\nepochs = 3",
    f"[models.a]\n{MODEL}build = {{ depth = 1 }}",
    f"[models.a]\n{MODEL}build = {{ use = 'vit' }}",
    f"[models.a]\n{MODEL}build = {{ use = 'vit.image', of = 3 }}",
    f"[models.a]\n{MODEL}build = {{ use = 'vit.image', of = [{{ depth = 1 }}] }}",
    f"[models.a]\n{MODEL}build = {{ use = 'vit.image', body = {{ use = 'vit' }} }}",
    f"[models.a]\n{MODEL}build = {{ use = 'vit.image', body = [{{ use = 'vit' }}] }}",
    f"[models.a]\n{MODEL}build = {{ use = 'vit.image', body = [[{{ use = 'vit.image' }}]] }}",
    f"[models.a]\n{MODEL}",
    "[models.a]\nbuild = { use = 'vit.image' }",
    "[datasets.a]\nsource = 'folder:a'\nsize = [8]",
    "[studies.a]\nsummary = 'a'",
)


@pytest.fixture(scope="module")
def checker() -> Any:
    schema = registry_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def wrong(checker: Any, tables: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(tables)]


def first_line(path: Path) -> str:
    return path.read_text("utf-8").splitlines()[0]


@pytest.mark.parametrize("path", COPIES, ids=str)
def test_the_file_is_what_the_structs_say(path: Path) -> None:
    assert path.read_text("utf-8") == schema_text(), "run `just schema`"
    assert path.stat().st_size < 2**17


@pytest.mark.parametrize("path", [ROOT / "registry.toml", *ROOT.glob("examples/*/src/*/registry.toml")], ids=str)
def test_our_registry_files_fit_and_name_the_schema(path: Path, checker: Any) -> None:
    assert wrong(checker, tomllib.loads(path.read_text("utf-8"))) == []
    named = path.parent / first_line(path).removeprefix("#:schema ")
    assert named.resolve() in COPIES


def test_every_registry_file_of_the_repository_is_checked() -> None:
    files = {path for path in ROOT.glob("*/**/registry.toml") if "runs" not in path.parts}
    assert files == set(ROOT.glob("examples/*/src/*/registry.toml"))


@pytest.mark.parametrize("family", families())
def test_generated_files_fit_and_the_schema_lies_where_they_say(family: str, tmp_path: Path, checker: Any) -> None:
    folder = new_plugin("waves", family, tmp_path / "waves")
    path = folder / "src" / "zoo_waves" / "registry.toml"
    assert wrong(checker, tomllib.loads(path.read_text("utf-8"))) == []
    named = path.parent / first_line(path).removeprefix("#:schema ")
    assert named.resolve() == (folder / "registry.schema.json").resolve()
    assert json.loads(named.read_text("utf-8")) == registry_schema()


@pytest.mark.parametrize("text", GOOD)
def test_what_is_read_fits(text: str, tmp_path: Path, checker: Any) -> None:
    (tmp_path / "a.toml").write_text(f"#:schema ./registry.schema.json\n{text}")
    load_registry(extra=(tmp_path / "a.toml",))
    assert wrong(checker, tomllib.loads(text)) == []


@pytest.mark.parametrize("text", BAD)
def test_what_is_refused_does_not_fit(text: str, tmp_path: Path, checker: Any) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(SpecError):
        load_registry(extra=(tmp_path / "a.toml",))
    assert wrong(checker, tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "[datasets.a]\nsource = 'folder:a'\nadapt = { augmentt = [] }",
        f"{STUDY}grid = {{ 'recipe.learning_rate' = [1e-3] }}",
        f"[models.a]\n{MODEL}{BUILD}published = [{{ dataset = 'digits', changes = {{ dropuot = 0.0 }} }}]",
    ],
)
def test_a_misspelled_key_of_a_recipe_is_seen_where_reading_leaves_it_for_later(text: str, checker: Any) -> None:
    assert wrong(checker, tomllib.loads(text))


def test_a_misspelled_key_is_named(checker: Any) -> None:
    (message,) = wrong(checker, {"recipes": {"mine": {"epoch": 3}}})
    assert message.startswith("$.recipes.mine: ")
    assert "'epoch' was unexpected" in message


def test_every_key_has_a_line_for_editors_and_no_value_is_null() -> None:
    schema = registry_schema()
    for name, part in schema["$defs"].items():
        assert part["description"], name
        assert [key for key, value in part.get("properties", {}).items() if not value.get("description")] in (
            [],
            ["op"],
        ), name
    assert "null" not in schema_text()


def test_the_schema_uses_no_keyword_that_editors_misread() -> None:
    """Taplo 0.9 reads `items: false` beside `prefixItems`, which it does not know, as "no items"."""
    assert not re.search(r'"(prefixItems|discriminator|\$dynamicRef|unevaluated\w+)"', schema_text())


def test_main_writes_the_files_named_or_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert capsys.readouterr().out == ""
    assert (tmp_path / "a.json").read_text("utf-8") == (tmp_path / "b.json").read_text("utf-8") == schema_text()
    main([])
    assert capsys.readouterr().out == schema_text()


def test_listing_imports_neither_the_schema_nor_its_words() -> None:
    code = "import sys, zoo.catalogue.registry as r, zoo.cli.listing; r.load_registry(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    modules = done.stdout.split()
    assert "zoo.catalogue.spec" in modules
    assert {"zoo.catalogue.schema", "zoo.catalogue.keys"} & set(modules) == set()
