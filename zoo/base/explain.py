"""Tables in words: what is wrong with one (key, given and allowed, in one line), and what a key may be."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal

import msgspec


def explain(error: Exception, kind: Any, table: Any, where: str) -> str:
    """One line for a msgspec error: key, what was given, what is allowed."""
    text, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`")
    target = _type_at(kind, path)
    given, found = _value_at(table, path)
    if "unknown field" in text or "missing required field" in text:
        target = _tagged(target, given)
    message = f"{where}{path}: {_lower(text)}"
    if "unknown field" in text and target is not None:
        return f"{message}; allowed: {', '.join(_fields(target))}"
    if found and text[:1].isupper():  # msgspec writes capitals; a check of ours says what was given
        message += f", given {shown(given)}"
    choices = _choices(target)
    return f"{message}; allowed: {', '.join(map(repr, choices))}" if choices else message


def _lower(text: str) -> str:
    """The message in TOML's words rather than JSON's."""
    for theirs, toml in (("`object`", "a table"), ("`array`", "a list"), ("Object ", "table "), (" | null`", "`")):
        text = text.replace(theirs, toml)
    return text[:1].lower() + text[1:]


def shown(value: Any) -> str:
    """The value as the message prints it: cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _steps(path: str) -> list[str]:
    return [s for s in path.replace("[", ".[").split(".") if s]


def _value_at(table: Any, path: str) -> tuple[Any, bool]:
    for step in _steps(path):
        try:
            table = table[int(step[1:-1])] if step.startswith("[") else table[step]
        except (KeyError, ValueError, IndexError, TypeError):
            return None, False
    return table, True


def _type_at(kind: Any, path: str) -> Any:
    """The annotated type at a msgspec error path, or None where the path leaves our structs."""
    for step in _steps(path):
        if step.startswith("["):
            args = [a for a in typing.get_args(_plain(kind)) if a is not Ellipsis]
            kind = args[-1] if args else None
        elif step in {m.__struct_config__.tag_field for m in _members(kind)}:
            return _plain(kind)  # the union itself: its choices are the tags
        else:
            inner = _plain(kind)  # a struct that need not be there
            kind = typing.get_type_hints(inner, include_extras=True).get(step) if _is_struct(inner) else None
        if kind is None:
            return None
    return _plain(kind)


def _plain(kind: Any) -> Any:
    """Strip Annotated and a lone `| None`."""
    if typing.get_origin(kind) is Annotated:
        return _plain(typing.get_args(kind)[0])
    args = typing.get_args(kind)
    if type(None) in args:
        rest = [a for a in args if a is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else kind
    return kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _members(kind: Any) -> list[Any]:
    return [k for k in (kind, *typing.get_args(kind)) if _is_struct(k)]


def _fields(kind: Any) -> list[str]:
    return sorted({f for member in _members(kind) for f in member.__struct_encode_fields__})


def _tagged(kind: Any, table: Any) -> Any:
    """Of a union of tagged structs, the member that `table` names."""
    for member in _members(kind):
        config = member.__struct_config__
        if config.tag_field and isinstance(table, Mapping) and table.get(config.tag_field) == config.tag:
            return member
    return kind


def _choices(kind: Any) -> list[Any]:
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    for member in typing.get_args(kind):
        if typing.get_origin(member) is Literal:
            return list(typing.get_args(member))
    members = _members(kind)
    return [m.__struct_config__.tag for m in members] if len(members) > 1 else []


def in_words(kind: Any) -> str:
    """What a key of this type may be, in TOML's words: "integer > 0", "list of text", '"all" or "matrices"'."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return f"{in_words(args[0])}{''.join(map(_limits, args[1:]))}"
    if origin is Literal:
        return _either([f'"{choice}"' for choice in args])
    if origin in (typing.Union, UnionType):
        tags = sorted({member.__struct_config__.tag_field or "" for member in _members(kind)} - {""})
        named = [in_words(member) for member in args if member is not type(None)]
        return f"table with `{tags[0]}`" if tags else _either(named)
    if origin is tuple:
        words = re.sub(r"^(table|number|integer)\b", r"\1s", in_words(args[0]))
        return f"list of {words}" if args[-1] is Ellipsis else f"list of {len(args)} {words}"
    return {int: "integer", float: "number", str: "text", bool: "true or false", Any: "any"}.get(kind, "table")


def _either(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _limits(meta: msgspec.Meta) -> str:
    """The limits of a number: " > 0", " from 0 to 1"."""
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    limits = ((">", meta.gt), ("≥", meta.ge), ("<", meta.lt), ("≤", meta.le))
    shown = [f"{sign} {limit}" for sign, limit in limits if limit is not None]
    return f" {' and '.join(shown)}" if shown else ""
