"""`zoo new plugin`: a complete package folder from the templates in `zoo/plugin/templates`.

The folder `common` holds what every plugin has; a family's folder holds its code, and anything that takes
the place of a common file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from keyword import iskeyword
from pathlib import Path
from typing import Any, NamedTuple

from zoo.base.files import write_text
from zoo.base.templates import templates
from zoo.base.version import __version__
from zoo.errors import InputError
from zoo.plugin.contract import Kind
from zoo.plugin.hooks import API_VERSION

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TEMPLATES = Path(__file__).parent / "templates"
CATALOGUE = Path(__file__).parent.parent / "catalogue"
SUFFIX = ".tmpl"
TAKEN = ("cnn", "vit", "perceiver", "mixer", "hybrid", "timm", "torchvision", "loggers", "exporters")
OWN = "own"
"""What the components of code without a package begin with; no plugin may have it."""


class Family(NamedTuple):
    """What a family's plugin offers: one component, and the module that builds it."""

    component: str
    kind: Kind
    module: str
    summary: str
    family: str


def families() -> dict[str, Family]:
    """The families of plugins that can be generated, by name."""
    return {
        "cnn": Family("block", "part", "blocks", "depthwise-separable residual blocks", "cnn"),
        "vit": Family("encoder", "part", "encoders", "transformer encoder from map to map", "vit"),
        "perceiver": Family("latents", "part", "perceivers", "latents that read and write a map", "perceiver"),
        "mixer": Family("mixing", "part", "mixers", "mixing over pixels and channels", "mixer"),
        "hybrid": Family("gated", "part", "gates", "gated convolution and attention", "hybrid"),
        "dataset": Family("stripes", "dataset", "stripes", "images of stripes", "cnn"),
        "combinator": Family("scaled", "combinator", "mixtures", "residual mixture with layer scale", "hybrid"),
    }


PLACES = (
    ("pyproject.toml", "pyproject.toml"),
    ("README.md", "README.md"),
    ("gitignore", ".gitignore"),
    ("workflow.yml", ".github/workflows/test.yml"),
    ("test.py", "tests/test_{package}.py"),
    ("init.py", "src/{package}/__init__.py"),
    ("init.pyi", "src/{package}/__init__.pyi"),
    ("registry.toml", "src/{package}/registry.toml"),
    ("{module}.py", "src/{package}/{module}.py"),
)
"""Template, and the file that is made of it; `{...}` are the values of `_values`."""

SCHEMA = "registry.schema.json"
"""The JSON Schema of registry files, copied beside the project file: its path then holds on every machine, and without
a network. `python -m zoo.catalogue.schema registry.schema.json` writes it again for another version."""


def new_plugin(name: str, family: str, folder: Path | None = None) -> Path:
    """Write a plugin's package folder.

    Args:
        name: the plugin's name, "waves" or "zoo-waves"; the distribution is zoo-waves.
        folder: the folder to write; default: ./zoo-NAME.
    Returns:
        The folder.
    Raises:
        InputError: an invalid name, an unknown family, or a folder that is not empty.
    """
    known = families()
    if family not in known:
        raise InputError(f"no family named {family!r}; allowed: {', '.join(known)}")
    values = values_of(name, *known[family])
    folder = free_folder(values, folder)
    write_package(values, folder, TEMPLATES / family)
    return folder


def free_folder(values: Mapping[str, str], folder: Path | None) -> Path:
    """The folder of a package that is to be written.

    Raises:
        InputError: it is not empty.
    """
    folder = folder or Path(values["distribution"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not an empty folder; give another with --output")
    return folder


def write_package(values: Mapping[str, Any], folder: Path, own: Path) -> None:
    """Write the files of a package; templates in `own` take the place of common ones."""
    texts = templates(own, TEMPLATES / "common", TEMPLATES)
    values = {**values, "stub": (own / f"init.pyi{SUFFIX}").is_file()}  # not for datasets, which no tree can have
    for template, place in PLACES:
        if template == "init.pyi" and not values["stub"]:
            continue
        path = folder / place.format(**values)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, texts.get_template(f"{template.format(**values)}{SUFFIX}").render(values))
    write_text(folder / "src" / values["package"] / "py.typed", "")
    write_text(folder / SCHEMA, (CATALOGUE / SCHEMA).read_text("utf-8"))


def _checked(name: str) -> str:
    short = name.removeprefix("zoo-")
    if iskeyword(short):
        raise InputError(
            f"{short!r} is a keyword of Python; use lower-case letters and digits, separated by -, such as waves"
        )
    if not NAME.fullmatch(short) or len(short) > 50:
        raise InputError(
            f"{name!r} is not a plugin name; use lower-case letters and digits, separated by -, such as waves"
        )
    if short in (*TAKEN, OWN):
        raise InputError(f"{short!r} is the name of a built-in plugin; choose another")
    return short


def values_of(name: str, component: str, kind: str, module: str, summary: str, family: str) -> dict[str, str]:
    """What templates print and the names of files hold, by name.

    Raises:
        InputError: the name is none for a plugin.
    """
    name = _checked(name)
    return {
        "component": component,
        "kind": kind,
        "module": module,
        "summary": summary,
        "family": family,
        "name": name,
        "distribution": f"zoo-{name}",
        "package": f"zoo_{name}".replace("-", "_"),
        "title": "".join(word.capitalize() for word in name.split("-")),
        "model": f"{name}-tiny",
        "api": str(API_VERSION),
        "version": __version__,
    }
