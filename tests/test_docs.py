"""What the documentation says is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from zoo.catalogue.registry import load_registry
from zoo.models.compose import check

ROOT = Path(__file__).resolve().parent.parent


def zoo(*words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "zoo", *words], capture_output=True, text=True, cwd=cwd, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def promised(cell: str) -> list[str]:
    """The names in backquotes of the row that begins with this cell."""
    text = (ROOT / "docs" / "scripts.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| {cell} |"))
    return re.findall(r"`([^`]+)`", row.split("|", 2)[2])


def value(table: Any, path: str) -> Any:
    for key in path.split("."):
        table = table[key]
    return table


def test_the_table_of_extras_is_complete() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = {}
    for line in (ROOT / "docs" / "install.md").read_text().split("## Extras")[1].split("## ")[0].splitlines():
        if line.startswith("| `"):
            rows |= dict.fromkeys(re.findall(r"`([\w-]+)`", line.split("|")[1]), line.lower())
    assert set(rows) == set(extras)
    for extra in set(extras) - {"test", "dev"}:
        libraries = [re.split(r"[^\w-]", requirement)[0] for requirement in extras[extra]]
        assert [name for name in libraries if name not in rows[extra]] == []
    tested = re.search(r"hybrid-zoo\[(.*)\]", extras["test"][0])
    assert tested
    assert [name for name in tested[1].split(",") if f"`{name}`" not in rows["test"]] == []


def test_the_mixtures_of_the_documentation_load_and_compose(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "mix.md").read_text(), re.DOTALL)
    path = tmp_path / "mix.toml"
    path.write_text("\n".join(blocks))
    registry = load_registry(extra=(path,))
    assert registry.recipe("mine").epochs == 30
    build = registry.model("my-hybrid").build
    assert check(build, registry, in_channels=3, height=8, width=8, num_classes=10) is not None


def test_the_json_of_list_and_info_has_the_promised_names(tmp_path: Path) -> None:
    rows = json.loads(zoo("list", "--json", cwd=tmp_path))
    assert len(rows) > 40
    names = promised("`zoo list --json`")
    assert names == ["name", "family", "parameters", "plugin"]
    assert all(name in row for row in rows for name in names)
    info = json.loads(zoo("info", "hybrid-alt-1", "--build", "--json", cwd=tmp_path))
    for name in promised("`zoo info NAME --build --json`"):
        assert info[name]
    assert info["parameters"] == 4_719_167
    assert isinstance(info["flops"], int)


def test_the_promised_options_train_into_the_promised_folder_and_result(tmp_path: Path) -> None:
    options = promised("`zoo train`")
    given = {
        "--dataset": "digits",
        "--data-dir": str(tmp_path / "data"),
        "--epochs": "1",
        "--batch-size": "16",
        "--lr": "1e-3",
        "--seed": "3",
        "--device": "cpu",
        "--precision": "fp32",
        "--limit-train": "64",
        "--limit-test": "32",
        "--max-steps": "2",
        "--output": str(tmp_path / "run"),
        "--set": "recipe.label_smoothing=0.1",
        "--protocol": "clean",
    }
    assert sorted(options) == sorted(given)
    said = zoo("train", "cnn-baseline", *(word for pair in given.items() for word in pair), cwd=tmp_path)
    assert said == f"{tmp_path / 'run'}\n"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for name in promised("`result.json`"):
        assert isinstance(value(result, name), float | int)
    assert result["train"]["steps"] == 2
    assert result["test"]["count"] == 32


def test_create_and_load_are_there_without_importing_torch() -> None:
    script = "import sys, zoo; assert 'torch' not in sys.modules; assert callable(zoo.create) and callable(zoo.load)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_every_page_is_in_the_contents(page: str) -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert page == "index.md" or page.removesuffix(".md") in index.split()


def test_the_readme_counts_what_the_catalogue_has() -> None:
    registry = load_registry()
    counts = re.search(r"(\d+) models, (\d+) datasets and (\d+) sources", (ROOT / "README.md").read_text("utf-8"))
    assert counts is not None
    built_in = [len(registry.models), len(registry.datasets), len(registry.sources)]
    assert [int(count) for count in counts.groups()] == built_in


def test_every_command_is_documented() -> None:
    from zoo.cli import COMMANDS

    pages = "".join(path.read_text() for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
    missing = [name for name in COMMANDS if f"zoo {name}" not in pages]
    assert missing == []
