"""Real installed plugins for tests: packages with their dist-info in a folder that joins PYTHONPATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

HEAVY = ("torch", "torchvision", "timm", "numpy")
PART = """
from torch import nn

def same(*, channels, height, width, gain: float = 1.0):
    return nn.Identity()
"""


def components(*names: str, kind: str = "part", factory: str = "{module}_parts:same") -> str:
    """The source of a plugin that offers components of one kind."""
    return dedent(
        f"""
        from zoo.plugin import Component, hookimpl

        @hookimpl
        def zoo_components():
            return [Component(name=n, kind={kind!r}, factory={factory!r}) for n in {names!r}]
        """
    )


REGISTRY_HOOK = """
from pathlib import Path
from zoo.plugin import hookimpl

@hookimpl
def zoo_registry():
    return Path(__file__).parent / "{module}.toml"
"""


def write_wheel(
    folder: Path,
    name: str,
    files: dict[str, str | bytes],
    *,
    version: str = "1.0",
    entries: dict[str, dict[str, str]] | None = None,
) -> Path:
    """A wheel of the distribution `zoo-<name>`, which pip installs as it does any other.

    Args:
        entries: entry points by group; default: the plugin `name` is the module `zoo_<name>`.
    """
    module = f"zoo_{name}".replace("-", "_")
    info = f"{module}-{version}.dist-info"
    groups = entries if entries is not None else {"zoo": {name: module}}
    lines = [line for g, e in groups.items() for line in (f"[{g}]", *(f"{k} = {v}" for k, v in e.items()))]
    everything = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: zoo-{name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "\n".join(lines) + "\n",
    }
    record = "".join(f"{path},,\n" for path in (*everything, f"{info}/RECORD"))
    path = folder / f"{module}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**everything, f"{info}/RECORD": record}.items():
            archive.writestr(member, content)
    return path


def pip_target(folder: Path, wheels: Iterable[Path]) -> None:
    """`pip install --target` of these wheels, without their dependencies and without an index."""
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-input")
    where = ("--no-compile", "--upgrade", "--target", str(folder))
    done = subprocess.run([*pip, *where, *map(str, wheels)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Site:
    """A folder with distributions; `run` starts `zoo` in a fresh process that sees them."""

    folder: Path
    work: Path

    def add(
        self, name: str, source: str, *, version: str = "1.0", entry: str = "", parts: str = PART, toml: str = ""
    ) -> Path:
        """Install the distribution `zoo-<name>`; "{module}" in the texts is its module's name."""
        module = f"zoo_{name}".replace("-", "_")
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: zoo-{name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[zoo]\n{entry or name} = {module}\n")
        path = self.folder / f"{module}.py"
        path.write_text(source.replace("{module}", module))
        (self.folder / f"{module}_parts.py").write_text(parts)
        if toml:
            (self.folder / f"{module}.toml").write_text(toml)
        return path

    def remove(self, name: str) -> None:
        """Take the distribution's metadata away, as an uninstall does."""
        for info in self.folder.glob(f"zoo_{name}-*.dist-info"):
            shutil.rmtree(info)

    def hide_heavy(self) -> None:
        """Make torch, torchvision, timm and numpy fail to import in every process that sees this folder."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "sitecustomize.py").write_text(
            dedent(
                f"""
                import sys

                class Refuse:
                    def find_spec(self, name, path=None, target=None):
                        if name.partition(".")[0] in {HEAVY!r}:
                            raise ImportError(f"{{name}} is hidden by the test")

                sys.meta_path.insert(0, Refuse())
                """
            )
        )

    def python(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run python with this site in a folder of its own."""
        self.work.mkdir(exist_ok=True)
        path = os.pathsep.join(p for p in (str(self.folder), os.environ.get("PYTHONPATH", "")) if p)
        plain = {"PYTHONPATH": path, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.work,
            env={**os.environ, **plain, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `zoo` with these words."""
        return self.python("-m", "zoo", *words, **environment)


def site_in(tmp_path: Path) -> Site:
    """An empty site, whose processes work in an empty folder."""
    return Site(tmp_path / "site", tmp_path / "work")
