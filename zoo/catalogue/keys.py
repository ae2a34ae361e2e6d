"""The keys of a registry file as people read them: each field's type, default and line, from the structs.

The line of a field stands in the struct's docstring, under `Attributes:`. The JSON Schema and the pages of the
documentation are made of it; nothing that lists or trains imports this.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints

import msgspec

from zoo.base.explain import in_words

ENTRY = re.compile(r"(\w+): (.*)")
INDENT = "    "


class Key(NamedTuple):
    """One key of a table: what it may be, what it is where nothing is said, and what it means."""

    name: str
    type: str
    default: str
    line: str


def keys_of(struct: type[msgspec.Struct]) -> Iterator[Key]:
    """Each key of a struct's table, in order; `default` is "" where there is none, "required" where it must be."""
    hints, lines = get_type_hints(struct, include_extras=True), lines_of(struct)
    for field in msgspec.structs.fields(struct):
        default = "required" if field.required else _toml(field.default)
        if field.default is msgspec.NODEFAULT and not field.required:
            default = _toml(field.default_factory())
        yield Key(field.encode_name, in_words(hints[field.name]), default, lines.get(field.name, ""))


def summary_of(struct: type[msgspec.Struct]) -> str:
    """The first paragraph of a struct's docstring, as one line."""
    return " ".join(inspect.cleandoc(struct.__doc__ or "").split("\n\n")[0].split())


def lines_of(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What a struct's docstring says of each attribute, by name, as one line each."""
    lines: dict[str, str] = {}
    section = inspect.cleandoc(struct.__doc__ or "").partition("Attributes:\n")[2]
    name = ""
    for line in section.splitlines():
        entry = ENTRY.fullmatch(line.removeprefix(INDENT))
        if entry and not line.startswith(INDENT * 2):
            name, lines[name] = entry[1], entry[2]
        elif name and line.startswith(INDENT * 2):
            lines[name] += f" {line.strip()}"
        else:
            break
    return lines


def _toml(value: Any) -> str:
    """A default as TOML writes it; "" for None, which TOML cannot write."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
