"""Where `zoo` keeps things: cache, data sets, the user's configuration. Environment variables come first."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def _folder(variable: str, kind: str) -> Path:
    chosen = os.environ.get(variable)
    if chosen:
        return Path(chosen).expanduser()
    if (
        sys.platform == "linux"
    ):  # what platformdirs gives there, without importing it on the way to `zoo list`
        base = os.environ.get(f"XDG_{kind.upper()}_HOME", "").strip()
        return Path(base or Path.home() / f".{kind}") / "hybrid-zoo"
    import platformdirs

    return Path(getattr(platformdirs, f"user_{kind}_dir")("hybrid-zoo", appauthor=False))


def cache_dir() -> Path:
    """Decoded images and the plugin index: `ZOO_CACHE_DIR`, else the platform's cache folder."""
    return _folder("ZOO_CACHE_DIR", "cache")


def data_dir() -> Path:
    """Downloaded data sets: `ZOO_DATA_DIR`, else `data` in the cache folder."""
    chosen = os.environ.get("ZOO_DATA_DIR")
    return Path(chosen).expanduser() if chosen else cache_dir() / "data"


def config_dir() -> Path:
    """The user's own registry.toml: `ZOO_CONFIG_DIR`, else the platform's configuration folder."""
    return _folder("ZOO_CONFIG_DIR", "config")
