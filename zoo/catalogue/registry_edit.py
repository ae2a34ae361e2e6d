"""Writing the entry of trained weights into a registry file, whose other bytes stay as they are.

The lines of the entry are put in as text, right after the model's own entry. Where that is, the headers of tables tell;
what only looks like a header (a line of a text or of an array) does no harm, because the result is parsed again and
must be the former file with this entry and nothing else. So no library for TOML has to read and write the whole file.
"""

from __future__ import annotations

import copy
import os
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.base.files import TEMPORARY, replacing
from zoo.catalogue.registry_file import MAX_BYTES, parse_file
from zoo.catalogue.spec import TrainedWeights, decode, decode_model
from zoo.errors import SpecError


def weights_in(path: Path, model: str) -> dict[str, TrainedWeights]:
    """The entries of a model's weights in a registry file as it is now, by dataset.

    Raises:
        SpecError: the file cannot be read, or an entry is wrong.
    """
    table = parse_file(path).get("models", {}).get(model, {})
    entries = table.get("weights", []) if isinstance(table, dict) else []
    read = [decode(TrainedWeights, entry, f"{path}: models.{model}.weights") for entry in entries]
    return {entry.dataset: entry for entry in read}


def write_weights(path: Path, model: str, block: str) -> None:
    """Write the entry of a model's weights into a registry file, which is replaced as a whole or stays as it was.

    Args:
        path: where it is a link, the file that it leads to is replaced. block: as for `with_weights`.
    Raises:
        SpecError: as `with_weights`. WriteError: the file cannot be written.
    """
    path = path.resolve()
    for left_behind in path.parent.glob(f"{TEMPORARY}*-{path.name}"):  # by a process that was killed
        left_behind.unlink(missing_ok=True)
    parse_file(path)  # for its messages about what is no registry file
    text = path.read_bytes().decode()
    written = with_weights(text, model, block, str(path))
    if written == text:
        return
    with replacing(path) as temporary:
        temporary.write_bytes(written.encode())
        shutil.copymode(path, temporary)


def check_room(path: Path, model: str, block: str) -> None:
    """Refuse a registry file into which an entry cannot be written, before anything is done that needs it there.

    Raises:
        SpecError: as `with_weights`, or the file cannot be replaced.
    """
    path = path.resolve()
    parse_file(path)
    with_weights(path.read_bytes().decode(), model, block, str(path))
    if not os.access(path.parent, os.W_OK):
        raise SpecError(f"{path}: its folder cannot be written to, so the entry of the weights cannot be written")


def with_weights(text: str, model: str, block: str, where: str) -> str:
    """The text of a registry file with the entry of a model's weights.

    Args:
        block: the entry as TOML: `[[models.NAME.weights]]` and its keys. It comes after the model's other tables, or
            takes the place of the entry for the same dataset.
        where: the file, for messages.
    Raises:
        SpecError: the file has no such model, the model is not written as a table `[models.NAME]`, its weights are
            not written as tables, or the entry is wrong.
    """
    before = _parsed(text)
    entry = tomllib.loads(block)["models"][model]["weights"][0]
    wanted, place = _wanted(before or {}, model, entry, where)
    if wanted == before:
        return text
    for candidate in _candidates(text, model, block, place):
        if _parsed(candidate) == wanted:
            if len(candidate.encode()) > MAX_BYTES:
                raise SpecError(f"{where}: would be larger than {MAX_BYTES >> 20} MiB with the entry of the weights")
            return candidate
    raise SpecError(
        f"{where}: models.{model}: the entry of its weights cannot be written here; write the model as a table "
        f"[models.{model}], and entries of its weights as [[models.{model}.weights]]"
    )


def _wanted(before: dict[str, Any], model: str, entry: Any, where: str) -> tuple[dict[str, Any], int | None]:
    """The tables that the file shall have, and which entry is replaced; None: it is a further one."""
    tables = copy.deepcopy(before)
    if model not in tables.get("models", {}):
        raise SpecError(f"{where}: has no model {model!r}, so that its weights have no place here")
    entries = tables["models"][model].setdefault("weights", [])
    place = next((i for i, old in enumerate(entries) if old.get("dataset") == entry["dataset"]), None)
    if place is None:
        entries.append(entry)
    else:
        entries[place] = entry
    decode_model(tables["models"][model], f"{where}: models.{model}")
    return tables, place


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return None


# ---- lines -------------------------------------------------------------------------------------------


def _candidates(text: str, model: str, block: str, place: int | None) -> Iterator[str]:
    """The text with the block wherever it may belong, the most probable place first."""
    lines = text.split("\n")
    headers = {number: keys for number, line in enumerate(lines) if (keys := _keys_of_header(line))}
    of_model = [number for number, keys in headers.items() if keys[:2] == ("models", model)]
    if place is None:
        starts = of_model[-1:]
    else:
        starts = [n for n in of_model if headers[n][2:] == ("weights",) and lines[n].lstrip().startswith("[[")]
        starts = starts[place : place + 1]
    for start in starts:
        ending = "\r" if lines[start].endswith("\r") else ""
        added = [f"{line}{ending}" for line in block.rstrip("\n").split("\n")]
        for end in (*(number for number in headers if number > start), len(lines)):
            last = _last_content(lines, start, end)
            before, after = lines[: last + 1], lines[last + 1 :]
            if place is None:
                apart = [ending] if after and after[0].strip() else []
                yield "\n".join([*before, ending, *added, *apart, *(after or [""])])
            else:
                yield "\n".join([*lines[:start], *added, *(after or [""])])


def _last_content(lines: Sequence[str], start: int, end: int) -> int:
    """The last line before `end` that is neither blank nor a comment: these belong to what follows."""
    return next(n for n in range(end - 1, start - 1, -1) if lines[n].strip() and not lines[n].lstrip().startswith("#"))


def _keys_of_header(line: str) -> tuple[str, ...]:
    """The keys of a line that is a header of a table; () where it is none."""
    if not line.lstrip(" \t").startswith("["):
        return ()
    table: Any = _parsed(line.rstrip("\r"))
    keys = []
    while table:
        if isinstance(table, list):
            table = table[0]
            continue
        keys.append(next(iter(table)))
        table = table[keys[-1]]
    return tuple(keys)
