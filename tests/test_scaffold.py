"""A stranger's way: generate a plugin, build, install, list, train, test, check, uninstall. By real pip."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_packaging import build_wheel, clean_environment, run

from zoo.errors import InputError
from zoo.plugin.scaffold import TAKEN, families, new_plugin

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "zoo-fourier"
PIP = ("--no-deps", "--no-index", "--no-input", "--quiet", "--disable-pip-version-check")
TRAIN = """
import sys
from zoo.cli import main
for name in sys.argv[1:]:
    try:
        main(["train", name, "--max-steps", "2", "--epochs", "1", "--output", f"runs/{name}", "--quiet"])
    except SystemExit as end:
        assert not end.code, (name, end.code)
"""
"""`zoo train` of several models in one process: torch is imported once."""


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment with our built wheel in it, and a folder to work in."""

    python: Path
    work: Path

    def run(self, *words: str | Path) -> str:
        return run(self.python, *words, cwd=self.work, env=self.env)

    def zoo(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [self.python.parent / "zoo", *words]
        return subprocess.run(
            command, cwd=self.work, env=self.env, capture_output=True, text=True, timeout=300, check=False
        )

    def pip(self, *words: str | Path) -> str:
        return self.run("-m", "pip", *words)

    @property
    def env(self) -> dict[str, str]:
        own = {"ZOO_CACHE_DIR": str(self.work / "cache"), "ZOO_CONFIG_DIR": str(self.work / "config")}
        return clean_environment() | own | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}

    def models(self) -> set[str]:
        done = self.zoo("list", "--json")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return {row["name"] for row in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", with_pip=True, symlinks=os.name != "nt")
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    (folder / "wheel").mkdir()
    (folder / "work").mkdir()
    environment = Environment(python, folder / "work")
    environment.pip("install", *PIP, build_wheel(folder / "wheel"))
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(environment.run("-c", code).strip())
    # Our dependencies, torch above all, are those of the running interpreter.
    shared = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    (site_packages / "running.pth").write_text("\n".join(shared) + "\n", "utf-8")
    return environment


@pytest.fixture(scope="module")
def generated(fresh: Environment) -> dict[str, Path]:
    """Plugin to its folder: one of each family by the installed command, and the tutorial's example."""
    folders = {}
    for family in families():
        done = fresh.zoo("new", "plugin", f"my-{family}", "--family", family)
        assert done.returncode == 0, done.stderr
        folders[f"my-{family}"] = fresh.work / done.stdout.strip()
    copied = fresh.work / EXAMPLE.name
    run(sys.executable, "-c", f"import shutil; shutil.copytree({str(EXAMPLE)!r}, {str(copied)!r})", cwd=ROOT)
    return folders | {"fourier": copied}


@pytest.fixture(scope="module")
def installed(fresh: Environment, generated: dict[str, Path]) -> Environment:
    """All of them, each built into a wheel and installed from it."""
    wheels = fresh.work / "wheels"
    build = ("--no-build-isolation", *PIP, "--wheel-dir", wheels)
    fresh.pip("wheel", *build, *generated.values())
    fresh.pip("install", *PIP, *sorted(wheels.glob("*.whl")))
    return fresh


@pytest.mark.slow
def test_the_models_and_datasets_are_listed(installed: Environment, generated: dict[str, Path]) -> None:
    assert {f"{name}-tiny" for name in generated} <= installed.models()
    datasets = {row["name"] for row in json.loads(installed.zoo("datasets", "--json").stdout)}
    assert "my-dataset-stripes" in datasets
    rows = {row["name"]: row for row in json.loads(installed.zoo("plugins", "--json").stdout)}
    for name in generated:
        assert rows[name]["status"] == "loaded"
        assert rows[name]["distribution"] == f"zoo-{name}"
        assert rows[name]["recipes"]


@pytest.mark.slow
def test_each_one_trains(installed: Environment, generated: dict[str, Path]) -> None:
    installed.run("-c", TRAIN, *(f"{name}-tiny" for name in generated))
    record = tomllib.loads((installed.work / "runs/my-dataset-tiny/run.toml").read_text())
    assert record["plugins"]["my-dataset.stripes"] == "zoo-my-dataset 0.1.0"
    assert record["plugins"]["models.my-dataset-tiny"] == "zoo-my-dataset 0.1.0"
    for name in generated:
        assert (installed.work / f"runs/{name}-tiny/result.json").is_file()


@pytest.mark.slow
def test_each_one_passes_its_own_tests(installed: Environment, generated: dict[str, Path]) -> None:
    tests = [folder / "tests" for folder in generated.values()]
    shown = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    assert " failed" not in shown
    for name in generated:
        assert f"zoo.testing: plugin {name}: " in shown


@pytest.mark.slow
def test_zoo_plugins_check_says_the_same(installed: Environment, generated: dict[str, Path]) -> None:
    done = installed.zoo("plugins", "check", *generated, "--only", "*.*", "--json")
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert {o["result"] for o in outcomes} == {"passed"}
    assert {o["subject"].partition(".")[0] for o in outcomes} == set(generated)
    assert len(outcomes) >= 11 * 7
    assert f"{len(outcomes)} checks: {len(outcomes)} passed, 0 failed, 0 skipped" in done.stderr


@pytest.mark.slow
def test_a_folder_a_repository_and_another_version_are_named(
    installed: Environment, generated: dict[str, Path]
) -> None:
    folder, run_folder = generated["my-cnn"], "runs/from-folder"
    install = ("install", "--no-build-isolation", *PIP, "--force-reinstall")
    commit = repository(folder)
    for source, words in {
        "editable folder": ("-e", folder),
        "folder": (folder,),
        f"git@{commit}": (f"git+{folder.as_uri()}",),
    }.items():
        installed.pip(*install, *words)
        rows = {row["name"]: row for row in json.loads(installed.zoo("plugins", "--json").stdout)}
        assert rows["my-cnn"]["installed_from"] == source
        if source == "folder":
            words = ("my-cnn-tiny", "--max-steps", "1", "--epochs", "1", "--output", run_folder)
            done = installed.zoo("train", *words)
            assert done.returncode == 0, done.stderr
            record = tomllib.loads((installed.work / run_folder / "run.toml").read_text())
            assert record["plugins"]["my-cnn.block"] == "zoo-my-cnn 0.1.0 (folder)"
    done = installed.zoo("eval", run_folder)
    assert done.returncode == 0
    (warned,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert f"from zoo-my-cnn 0.1.0 (git@{commit}) now, from zoo-my-cnn 0.1.0 (folder) before" in warned


def repository(folder: Path) -> str:
    """The folder as a git repository with one commit; its hash."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "first")):
        run("git", *words, cwd=folder)
    return run("git", "rev-parse", "HEAD", cwd=folder).strip()


@pytest.mark.slow
def test_uninstalled_they_are_gone(installed: Environment, generated: dict[str, Path]) -> None:
    before = installed.models()
    installed.pip("uninstall", "-y", "-q", *(f"zoo-{name}" for name in generated))
    after = installed.models()
    gone = {f"{name}-tiny" for name in generated} | {"fourier-joint"}
    assert before - after == gone


# ---- the generator ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", families())
def test_the_folder_is_complete(family: str, tmp_path: Path) -> None:
    folder = new_plugin("waves", family, tmp_path / "waves")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "zoo-waves"
    assert project["license"] == "Apache-2.0"
    assert project["entry-points"] == {"zoo": {"waves": "zoo_waves"}, "zoo.api": {"waves": "v1"}}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    package = {f"src/zoo_waves/{name}" for name in ("__init__.py", "py.typed", "registry.toml")}
    others = {"README.md", ".gitignore", ".github/workflows/test.yml", "tests/test_zoo_waves.py"}
    others |= {"registry.schema.json"}
    package |= {"src/zoo_waves/__init__.pyi"} if family != "dataset" else set()
    assert package | others | {"pyproject.toml"} < files
    assert len(files) == len(package | others) + 2
    for path in folder.rglob("*.*"):
        if path.name == "registry.schema.json":  # of the catalogue, and made from no template
            continue
        assert not path.is_file() or "@" not in path.read_text().replace("actions/checkout@v4", "").replace(
            "actions/setup-python@v5", ""
        ).replace("@hookimpl", "")
        assert not path.is_file() or not re.search(r"{[{%]", path.read_text().replace("${{ matrix.python }}", ""))


def test_what_is_generated_is_clean(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    for family in families():
        new_plugin(f"my-{family}", family, tmp_path / family)
    ruff = (sys.executable, "-m", "ruff")
    run(*ruff, "check", "--config", ROOT / "pyproject.toml", "--no-cache", tmp_path, cwd=tmp_path)
    run(*ruff, "format", "--check", "--isolated", "--line-length", "110", "--no-cache", tmp_path, cwd=tmp_path)


@pytest.mark.parametrize("name", ["", "Waves", "my_waves", "-a", "a--b", "3d", "x" * 60, "../up", "zoo-"])
def test_a_name_that_cannot_be_used_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a plugin name; use lower-case letters"):
        new_plugin(name, "cnn", tmp_path / "out")


@pytest.mark.parametrize("name", ["class", "zoo-class"])
def test_a_keyword_is_refused_as_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'class' is a keyword of Python"):
        new_plugin(name, "cnn", tmp_path / "out")


def test_the_names_of_built_in_plugins_are_refused(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(TAKEN) == set(project["entry-points"]["zoo"])
    with pytest.raises(InputError, match="'vit' is the name of a built-in plugin"):
        new_plugin("zoo-vit", "cnn", tmp_path / "out")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InputError, match="is not an empty folder"):
        new_plugin("waves", "cnn", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed: cnn, vit, perceiver, mixer, hybrid, dataset, combinator"):
        new_plugin("waves", "rnn", tmp_path / "out")


# ---- the tutorial -----------------------------------------------------------------------------


def test_the_tutorial_includes_every_file_of_the_example_literally() -> None:
    page = (ROOT / "docs" / "your-architecture.md").read_text()
    included = {
        line.partition("{literalinclude} ")[2].strip() for line in page.splitlines() if "{literalinclude}" in line
    }
    files = {path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml") and path.is_file()}
    assert {(ROOT / "docs" / path).resolve() for path in included} == files
