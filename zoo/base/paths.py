"""Where `zoo` keeps things: cache, datasets, the user's configuration. Environment variables come first."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

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
