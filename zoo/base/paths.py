"""Where `zoo` keeps things: cache, datasets, the user's configuration. Environment variables come first."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from zoo.errors import InputError

if TYPE_CHECKING:  # pathlib brings ipaddress and urllib: `zoo list` does without
    from pathlib import Path

REGISTRY = "registry.toml"


def _folder(variable: str, kind: str) -> str:
    chosen = os.environ.get(variable)
    if chosen:
        return os.path.expanduser(chosen)
    if sys.platform == "linux":  # what platformdirs gives there, without importing it
        base = os.environ.get(f"XDG_{kind.upper()}_HOME", "").strip()
        return os.path.join(base or os.path.expanduser(f"~/.{kind}"), "hybrid-zoo")
    import platformdirs

    return str(getattr(platformdirs, f"user_{kind}_dir")("hybrid-zoo", appauthor=False))


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path that a user gave, with `~` for the home folder.

    A shell reads `~` only where a word begins, not in `--output=~/run` or `folder:~/photos`, and Python never does. A
    name such as `~old` stays as it is where no user is called that.
    """
    from pathlib import Path

    return Path(os.path.expanduser(path))


class SteadyPath:
    """A path of an object that a program keeps: it leads to the same place when the program changes its folder.

    As long as the program is where it was when the object was made, the path is as it was given.

    Args:
        name: of the attribute of a frozen dataclass that this stands for.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Path:
        """The path as it was given, or whole."""
        if owner is None or self.name not in vars(owner):
            raise AttributeError(self.name)
        path, home = vars(owner)[self.name]
        return path if path.is_absolute() or not home or home == _here() else home / path

    def __set__(self, owner: Any, path: Path) -> None:
        """Take the path, and remember from where it leads."""
        vars(owner)[self.name] = path, None if path.is_absolute() else _here()


def _here() -> Path | None:
    """The folder that relative paths begin in; None if it is gone."""
    from pathlib import Path

    try:
        return Path.cwd()
    except OSError:
        return None


def cache_path() -> str:
    """`cache_dir` as text.

    Raises:
        InputError: no variable names it, and the user has no home folder.
    """
    path = _folder("ZOO_CACHE_DIR", "cache")
    if path.startswith("~"):  # what `expanduser` leaves where it knows no home
        raise InputError(f"the cache folder {path} needs a home folder, and there is none: set HOME or ZOO_CACHE_DIR")
    return path


def cache_dir() -> Path:
    """Decoded images and the plugin index: `ZOO_CACHE_DIR`, else the platform's cache folder."""
    from pathlib import Path

    return Path(cache_path())


def data_dir() -> Path:
    """Downloaded datasets: `ZOO_DATA_DIR`, else `data` in the cache folder."""

    chosen = os.environ.get("ZOO_DATA_DIR")
    return local_path(chosen) if chosen else cache_dir() / "data"


def config_dir() -> Path:
    """The user's own registry.toml: `ZOO_CONFIG_DIR`, else the platform's configuration folder."""
    from pathlib import Path

    return Path(_folder("ZOO_CONFIG_DIR", "config"))


def builtin_registry() -> str:
    """Our registry.toml: inside the wheel, or at the top level of a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    shipped = os.path.join(package, REGISTRY)
    return shipped if os.path.isfile(shipped) else os.path.join(os.path.dirname(package), REGISTRY)


def user_registries() -> list[str]:
    """The user's registry.toml files that exist: in the configuration folder, in this folder."""
    places = (os.path.join(_folder("ZOO_CONFIG_DIR", "config"), REGISTRY), os.path.abspath(REGISTRY))
    ours = builtin_registry()
    known = os.path.isfile(ours)
    found = [p for p in places if os.path.isfile(p) and not (known and os.path.samefile(p, ours))]
    return found[:1] if len(found) > 1 and os.path.samefile(*found) else found
