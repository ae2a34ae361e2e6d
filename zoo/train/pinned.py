"""Which weights exactly a word means: their folder, and a reference that means these weights for good."""

from __future__ import annotations

from pathlib import Path

from zoo.base.files import sha256_of
from zoo.catalogue.registry import Registry
from zoo.catalogue.weights import find_weights_of
from zoo.errors import InputError
from zoo.hub.download import fetch, local_folder, say_edits
from zoo.hub.ref import is_ref, parse_ref
from zoo.runs.record import WEIGHTS, read_record
from zoo.runs.which import known


def folder_of(source: str, registry: Registry) -> tuple[Path, str]:
    """The folder, and the permanent reference for the record: with a commit, or the sha256 of the weights."""
    found = None if known(source) is not None else find_weights_of(source, registry)
    if is_ref(reference := found.reference if found else source):
        fetched = fetch(parse_ref(reference), registry=registry)
        say_edits(fetched.ref, fetched.edited)
        return fetched.folder, fetched.pinned
    folder = local_folder(source, registry=registry)
    if found:
        return folder, found.name  # of an installed package: it can be named again, and the hash is recorded beside it
    read_record(folder)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{source}: has no {WEIGHTS} to start from")
    return folder, f"sha256:{sha256_of(folder / WEIGHTS)}"
