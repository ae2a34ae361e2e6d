"""Which datasets other people can have, and their SPEC without a path of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from zoo.base.paths import local_path

LOCAL_SCHEMES = ("parquet", "folder", "csv", "jsonl", "wds", "idx", "memory")

OF_PATHS = ("classes", "images", "test", "validation")
"""Options of a SPEC that may name files or folders."""


OF_ENDINGS: Mapping[str, str] = MappingProxyType(
    {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".tar": "wds"}
)
"""Endings of files to the scheme that reads them."""


def spec_of(path: Path) -> str:
    """The SPEC of a folder of images, or of a table in a file."""
    ending = Path(path.name.removesuffix(".gz")).suffix.lower()
    scheme = OF_ENDINGS.get(ending, "folder") if local_path(path).is_file() else "folder"
    return f"{scheme}:{path}"


def portable_spec(spec: str) -> str:
    """A dataset SPEC without the path it may hold: of `folder:/home/me/birds` stays `folder:birds`."""
    if not is_local(spec):
        return spec
    scheme, _, rest = spec.partition(":")
    path, mark, query = rest.partition("?")
    options = (option.partition("=") for option in query.split("&"))
    kept = (f"{key}{sign}{_last(value) if key in OF_PATHS and value else value}" for key, sign, value in options)
    return f"{scheme}:{_last(path)}{mark}{'&'.join(kept)}"


def _last(path: str) -> str:
    """The last part of a path."""
    last = re.split(r"[\\/]|%2f|%5c", path.rstrip("\\/"), flags=re.IGNORECASE)[-1] or "data"
    return last if last not in (".", "..", "~") else "data"


def is_local(spec: str) -> bool:
    """Whether a SPEC stands for files that only its author has at that place."""
    scheme, colon, rest = spec.partition(":")
    return bool(colon) and scheme in LOCAL_SCHEMES and not rest.startswith(("http://", "https://"))
