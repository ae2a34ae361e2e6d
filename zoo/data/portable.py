"""Which datasets other people can have, and their SPEC without a path of this machine."""

from __future__ import annotations

import re

LOCAL_SCHEMES = ("parquet", "folder", "idx", "memory")


def portable_spec(spec: str) -> str:
    """A dataset SPEC without the path it may hold: of `folder:/home/me/birds` stays `folder:birds`."""
    scheme, colon, rest = spec.partition(":")
    if not colon or scheme not in LOCAL_SCHEMES:
        return spec
    path, mark, query = rest.partition("?")
    last = re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "data"
    return f"{scheme}:{last if last not in ('.', '..', '~') else 'data'}{mark}{query}"


def is_local(spec: str) -> bool:
    """Whether a SPEC stands for files that only its author has at that place."""
    return spec.partition(":")[0] in LOCAL_SCHEMES and ":" in spec
