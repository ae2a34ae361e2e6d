"""One registry file, parsed and not yet decoded: TOML within limits, from a folder or a zip archive."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.base.did_you_mean import nearest
from zoo.base.structs import Struct
from zoo.catalogue.plugins import archive_of
from zoo.errors import SpecError

TABLES = ("sources", "datasets", "recipes", "models", "studies")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_BYTES = 1 << 20
MAX_NESTING = 100
LIKENESS = 0.75
"""From here on, the name of a table is taken for one of ours, misspelled."""


def kind_of(table: str) -> str:
    """What one entry of a table is called: "models" holds models, "studies" each study."""
    return "study" if table == "studies" else table.removesuffix("s")


def table_of(kind: str) -> str:
    """The table that holds entries of a kind."""
    return "studies" if kind == "study" else f"{kind}s"


class CatalogueFile(Struct, frozen=True):
    """One registry file, parsed but not decoded, and who brought it."""

    path: str
    tables: dict[str, Any]
    plugin: str = ""
    distribution: str = ""
    version: str = ""
    source: str = ""


def parse_file(path: Path) -> dict[str, Any]:
    """Parse a registry file.

    Raises:
        SpecError: unreadable, too large, not TOML (names the line), or an unknown top-level table.
    """
    import tomllib  # only here: a fresh index needs no parser

    data = b""
    try:
        data = _content(path)
        if len(data) > MAX_BYTES:
            raise SpecError(f"{path}: larger than {MAX_BYTES >> 20} MiB, the most that a registry file may have")
        tables = tomllib.loads(data.decode())
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not valid TOML: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise _too_deep(path) from None  # where the parser's stack ends depends on what called it
    except ValueError as error:
        mark = "; it starts with a byte order mark: save it without" if data.startswith(BYTE_ORDER_MARK) else ""
        raise SpecError(f"{path}: not valid TOML: {error}{mark}") from None
    _refuse_deep(tables, path)
    for key, value in tables.items():
        if key not in (*TABLES, "catalogue"):
            raise SpecError(f"{path}: unknown table [{key}]; allowed: {', '.join(TABLES)}")
        if not isinstance(value, dict):
            raise SpecError(f"{path}: {key}: expected a table, got {type(value).__name__}")
    return tables


def why_foreign(path: Path) -> str:
    """Why a file is taken for another program's of the same name; "" where it may be a registry file of ours.

    It is another's if it can be read and none of its tables is ours or nearly called so: a misspelled table, or a
    file of ours that is not valid TOML, has to be seen.
    """
    import re

    try:
        text = _content(path)[: MAX_BYTES + 1].decode("utf-8", "replace")
        parse_file(path)
    except OSError:
        return ""
    except SpecError as error:
        names = re.findall(r"^\s*(?:\[+\s*[\"']?([\w-]+)|([\w-]+)\s*[=.])", text, re.MULTILINE)
        ours = any(nearest(max(pair).lower(), (*TABLES, "catalogue"), 1, LIKENESS) for pair in names)
        damaged = len(text) > MAX_BYTES or "nested" in str(error)
        return "" if ours or damaged else str(error).removeprefix(f"{path}: ")
    return ""


def why_copy(file: CatalogueFile, known: Iterable[CatalogueFile]) -> str | None:
    """Why a user's file is left out that says to be a catalogue which is read already, as in another checkout.

    Returns:
        None where it is no such file; "" where it says nothing else than the one that is read.
    """
    name = file.tables.get("catalogue", {}).get("name")
    same = [other for other in known if name and other.tables.get("catalogue", {}).get("name") == name]
    if not same:
        return None
    if any(other.tables == file.tables for other in same):
        return ""
    return (
        f"{file.path} is left out: by its table [catalogue] it is the catalogue {name!r}, which is read from "
        f"{same[0].path}; for models of yours keep your own entries alone, without that table"
    )


def _content(path: Path) -> bytes:
    """At most MAX_BYTES and one more of a file, or of a member of a zip archive (a wheel on the path)."""
    archive = None if path.is_file() else archive_of(path)
    if archive is None:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(archive) as opened, opened.open(path.relative_to(archive).as_posix()) as member:
            return member.read(MAX_BYTES + 1)
    except (BadZipFile, KeyError, RuntimeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None


def _refuse_deep(tables: dict[str, Any], path: Path) -> None:
    """Level by level, so that no nesting can exhaust the stack: here, or where an error shows a value."""
    level: list[Any] = [tables]
    for _ in range(MAX_NESTING):
        children = [list(c.values()) if isinstance(c, dict) else c for c in level if isinstance(c, dict | list)]
        level = [value for values in children for value in values]
        if not level:
            return
    raise _too_deep(path)


def _too_deep(path: Path) -> SpecError:
    return SpecError(f"{path}: tables and lists nested more than {MAX_NESTING} deep")
