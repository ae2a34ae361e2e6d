"""What is in the wheel, and that an installation of it outside the checkout behaves as the checkout does."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PLUGINS = ("cnn", "vit", "perceiver", "mixer", "hybrid", "timm", "torchvision", "loggers", "exporters")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Standard output of a command; on failure, all that it printed."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build by the hook that every installer calls; pip brings the build backend where it is not here."""
    if importlib.util.find_spec("hatchling"):
        code = "import sys, hatchling.build as build; build.build_wheel(sys.argv[1])"
        run(sys.executable, "-c", code, folder, cwd=ROOT)
    else:
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
        run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info for info in archive.infolist()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel in it; its dependencies are the running ones."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    offline = ("--no-deps", "--no-index", "--no-input", "--disable-pip-version-check", "--quiet")
    run(python, "-m", "pip", "install", *offline, wheel, cwd=folder, env=clean_environment())
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(run(python, "-c", code, cwd=folder, env=clean_environment()).strip())
    # After the environment's own folder on the path, so that the wheel's `zoo` comes first; and a .pth file
    # that is found there (an editable installation's) is not read in its turn.
    shared = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    (site_packages / "running.pth").write_text("\n".join(shared) + "\n", "utf-8")
    return python


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def test_the_wheel_holds_the_packages_and_nothing_else(files: dict[str, zipfile.ZipInfo]) -> None:
    info = f"hybrid_zoo-{version()}.dist-info"
    tops = {name.split("/")[0] for name in files}
    assert tops == {"zoo", info, *(f"zoo_{name}" for name in PLUGINS)}
    assert not [name for name in files if name.endswith((".pyc", ".parquet"))]
    weights = [name for name in files if name.endswith(".safetensors")]
    assert all(name.startswith("zoo/weights/") for name in weights)


def version() -> str:
    spec = importlib.util.spec_from_file_location("version", ROOT / "zoo" / "base" / "version.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.__version__)


def test_every_source_file_is_in_the_wheel(files: dict[str, zipfile.ZipInfo]) -> None:
    """A .gitignore line that is too wide takes a package out of the wheel without a word."""
    sources = {
        path.relative_to(base).as_posix() for base in (ROOT, ROOT / "plugins") for path in base.glob("zoo*/**/*.py")
    }
    assert sources - set(files) == set()


def test_every_template_and_asset_is_in_the_wheel(files: dict[str, zipfile.ZipInfo]) -> None:
    others = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "zoo").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {"zoo/hub/templates/card.md.tmpl", "zoo/serve/assets/page.html"} < others
    assert others - set(files) == set()


@pytest.mark.parametrize(
    "name",
    [
        "zoo/registry.toml",
        "zoo/catalogue/registry.schema.json",
        "zoo/py.typed",
        "zoo_cnn/__init__.pyi",
        "zoo_cnn/py.typed",
        "zoo/__main__.py",
        "zoo/cli/__init__.py",
    ],
)
def test_the_wheel_holds(name: str, files: dict[str, zipfile.ZipInfo]) -> None:
    assert name in files


def test_the_wheel_holds_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(name) == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_declares_the_commands_and_every_plugin(wheel: Path) -> None:
    entries = configparser.ConfigParser(delimiters="=")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt")]
        entries.read_string(archive.read(name).decode())
    assert dict(entries["zoo"]) == {name: f"zoo_{name}" for name in PLUGINS}
    assert dict(entries["console_scripts"]) == {"zoo": "zoo.cli:main", "hybrid-zoo": "zoo.cli:main"}


def test_the_wheel_is_small(wheel: Path, files: dict[str, zipfile.ZipInfo]) -> None:
    assert wheel.stat().st_size < 14_000_000
    assert sum(info.compress_size for name, info in files.items() if not name.startswith("zoo/weights/")) < 1.25 * 2**20


def test_weights_are_installed_with_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "from zoo.catalogue.registry import load_registry as load\n"
        "from zoo.catalogue.weights import find_weights_of as find, names_of_weights as names\n"
        "print(*(find(name, load()).reference for name in names(load())), sep='\\n')"
    )
    folders = run(installed, "-c", code, cwd=tmp_path, env=clean_environment()).splitlines()
    assert len(folders) == sum(1 for path in (ROOT / "weights").iterdir())
    for folder in folders:
        assert Path(folder).is_relative_to(installed.parent.parent)
        assert (Path(folder) / "model.safetensors").is_file()


def test_the_installed_wheel_lists_what_the_checkout_lists(installed: Path, tmp_path: Path) -> None:
    """The three ways to have it: the wheel elsewhere, the running one elsewhere, the running one here."""
    require_an_installation()
    command = ("-m", "zoo", "list", "--json")
    elsewhere = run(sys.executable, *command, cwd=tmp_path)
    assert len(json.loads(elsewhere)) > 0
    assert run(installed, *command, cwd=tmp_path, env=clean_environment()) == elsewhere
    assert run(sys.executable, *command, cwd=ROOT) == elsewhere


def require_an_installation() -> None:
    try:
        importlib.metadata.distribution("hybrid-zoo")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("compares with the installed checkout: pip install -e .")


def test_the_installed_wheel_comes_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import zoo, zoo_cnn; print(zoo.__file__, zoo_cnn.__file__, sep='\\n')"
    for line in run(installed, "-c", code, cwd=tmp_path, env=clean_environment()).splitlines():
        assert Path(line).is_relative_to(installed.parent.parent)


def test_both_commands_are_installed(installed: Path, tmp_path: Path) -> None:
    env = clean_environment()
    shown = [run(installed.parent / name, "--version", cwd=tmp_path, env=env) for name in ("zoo", "hybrid-zoo")]
    assert all(version() in text for text in shown)


def test_readme_and_metadata_speak_of_the_same_python() -> None:
    least = PROJECT["requires-python"].removeprefix(">=")
    assert f"Python {least} or newer" in (ROOT / "README.md").read_text("utf-8")
