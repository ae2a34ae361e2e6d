"""The files of a package: their names, their largest sizes, and `SHA256SUMS` over all of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from zoo.base.files import sha256_of, write_text
from zoo.errors import PackageError
from zoo.runs.record import CURVES, METRICS, RECORD, RESULT, WEIGHTS

CONFIG, CARD, CONFUSION, SUMS = "config.json", "README.md", "confusion.png", "SHA256SUMS"
COMPOSITION, EVAL_RESULTS = "composition.png", ".eval_results/hybrid-zoo.yaml"
ONNX, PROCESSOR = "onnx/model.onnx", "preprocessor_config.json"
SIGNATURE = "model.sig"
"""The signature over all other files of a package, if it has one; made last, so that `SHA256SUMS` does not list it."""

NAMES = (
    *(CARD, COMPOSITION, CONFIG, CONFUSION, CURVES, METRICS, WEIGHTS),
    *(ONNX, PROCESSOR, RESULT, RECORD, EVAL_RESULTS),
)
"""Every file that `SHA256SUMS` may list."""

ALL = (SUMS, SIGNATURE, *NAMES)
"""Every file that a package may hold, by its path in it; no other is written, sent or fetched."""

NEEDED = (CONFIG, RECORD, RESULT, WEIGHTS)
"""The files that loading and evaluating need."""

FOR_PEOPLE = (CARD, COMPOSITION, CONFUSION, CURVES)
"""Prose and pictures, which people may edit afterwards: no number, weight or setting is read from them."""

MAX_BYTES = (
    (SUMS, 4 << 10),
    (SIGNATURE, 1 << 20),
    (EVAL_RESULTS, 64 << 10),
    (CONFIG, 4 << 20),
    (RECORD, 4 << 20),
    (RESULT, 1 << 20),
    (METRICS, 256 << 20),
    (CARD, 8 << 20),
    (CURVES, 64 << 20),
    (CONFUSION, 64 << 20),
    (COMPOSITION, 64 << 20),
    (PROCESSOR, 64 << 10),
    (ONNX, 2 << 30),
    (WEIGHTS, 64 << 30),
)
"""The most bytes that each file may have; larger ones are refused before they are fetched or read."""


def limit_of(name: str) -> int:
    """The most bytes that a file of this name may have."""
    return dict(MAX_BYTES)[name]


def present(folder: Path) -> list[str]:
    """Names of the files that are in a package's folder; without `SHA256SUMS`."""
    return [name for name in NAMES if (folder / name).is_file()]


def complete(folder: Path) -> list[str]:
    """Names of all files of a package that are in its folder: those of `present`, `SHA256SUMS` and the signature."""
    return [*present(folder), SUMS, *([SIGNATURE] if (folder / SIGNATURE).is_file() else [])]


def check_size(path: Path, name: str = "") -> None:
    """Refuse a file that is larger than a file of its name may be.

    Args:
        name: its path in the package; default: the path's last part.
    Raises:
        PackageError: the file is too large. OSError: there is no such file.
    """
    limit = limit_of(name or path.name)
    if path.stat().st_size > limit:
        raise PackageError(f"{path}: is larger than the {limit:,} bytes that this file may have")


def sums_text(hashes: Mapping[str, str]) -> str:
    """The content of `SHA256SUMS`: one line for each file, by name."""
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))


def write_sums(folder: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Write `SHA256SUMS` over the files of a package that are in the folder.

    Args:
        known: the sha256 of files that were hashed already, by name; they are not read again.
    Returns:
        The sha256 of each file, by name.
    """
    hashes = {name: (known or {}).get(name) or sha256_of(folder / name) for name in present(folder)}
    write_text(folder / SUMS, sums_text(hashes))
    return hashes


def read_sums(path: Path) -> dict[str, str]:
    """Read `SHA256SUMS`, to the last byte as `sums_text` writes it.

    Raises:
        PackageError: it is absent, or not exactly what `sums_text` writes.
    """
    try:
        if path.stat().st_size > limit_of(SUMS):
            raise PackageError(f"{path}: is too large for a list of hashes")
        text = path.read_bytes().decode("ascii")
    except OSError:
        raise PackageError(
            f"{path.parent}: is not a package, because it has no {SUMS}; `zoo package RUN` makes one"
        ) from None
    except UnicodeDecodeError:
        raise PackageError(f"{path}: is damaged: it is not a list of hashes") from None
    lines = re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)
    hashes = {name: digest for digest, name in lines}
    if sums_text(hashes) != text or not set(hashes) <= set(NAMES):
        raise PackageError(f"{path}: is damaged: it is not a list of the hashes of a package's files")
    missing = [name for name in NEEDED if name not in hashes]
    if missing:
        raise PackageError(f"{path}: does not list {missing[0]}, which every package needs")
    return hashes


def check_sums(
    folder: Path, *, partial: bool = True, known: Mapping[str, str] | None = None, target: Path | None = None
) -> dict[str, str]:
    """Hash every file but those for people, and compare it with `SHA256SUMS`; `edited` is for those.

    Args:
        partial: pictures, metrics and the card may be absent (a download of what loading needs).
        known: the sha256 of files that were hashed already, by name; they are not read again.
        target: an empty folder that receives a copy of every file, made of the very bytes that are hashed.
    Raises:
        PackageError: a file is absent, too large, or does not have its hash.
    """
    hashes = read_sums(folder / SUMS)
    for name in NAMES:
        path = folder / name
        if not path.is_file():
            if name in hashes and (name in NEEDED or not partial):
                raise PackageError(f"{folder}: has no {name}, which its {SUMS} lists")
            continue
        check_size(path, name)
        if name in FOR_PEOPLE:
            if target:
                copy_file(path, target / name)
            continue
        if name not in hashes:
            raise PackageError(f"{path}: is not listed in {SUMS}")
        digest = (known or {}).get(name) or (copy_file(path, target / name) if target else sha256_of(path))
        if digest != hashes[name]:
            raise PackageError(f"{path}: is damaged: its sha256 is not the one in {SUMS}")
    if (folder / SIGNATURE).is_file():
        check_size(folder / SIGNATURE)
        if target:
            copy_file(folder / SIGNATURE, target / SIGNATURE)
    if target:
        write_text(target / SUMS, sums_text(hashes))
    return hashes


def edited(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """The files for people that are not those which the package was made with.

    Args:
        hashes: what `SHA256SUMS` lists.
    """
    files = [name for name in FOR_PEOPLE if (folder / name).is_file()]
    return [name for name in files if sha256_of(folder / name) != hashes.get(name)]


def copy_file(source: Path, target: Path) -> str:
    """Copy a file, and return the sha256 of the bytes that were written."""
    hasher = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as file, target.open("xb") as copy:
        while block := file.read(1 << 20):
            hasher.update(block)
            copy.write(block)
    return hasher.hexdigest()
