"""The catalogue's entry of the weights in a package: what `[[models.NAME.weights]]` says.

    python -m zoo.hub.entry weights/my-hybrid-digits registry.toml

writes it for a package that lies below the folder of a registry file, and is installed with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from zoo.base.paths import builtin_registry, user_registries
from zoo.base.quiet_imports import without_advice
from zoo.catalogue.registry import load_registry
from zoo.catalogue.registry_edit import write_weights
from zoo.catalogue.spec import WHEEL, TrainedWeights
from zoo.catalogue.toml_text import inline, key_of
from zoo.errors import InputError, ZooError
from zoo.evaluate.paired import interval
from zoo.hub.package import Package, open_package, read_package_record
from zoo.hub.sums import CARD
from zoo.runs.folder import read_result
from zoo.runs.record import WEIGHTS


def entry_of(package: Package, dataset: str, where: str, licence: str, note: str = "") -> TrainedWeights:
    """The entry of a package's weights.

    Args:
        dataset: name in the catalogue of the dataset that they were trained on.
        where: as `TrainedWeights.where`. licence: of the weights, as the Hub names it.
    Raises:
        RunError: the package's result is damaged. InputError: its images have several labels.
    """
    test, record = read_result(package.folder)["test"], package.record
    if record.data.is_multi_label:
        raise InputError(f"{package.folder}: its images have several labels, and entries of the catalogue state top-1")
    low, high = interval(test["correct"], test["count"])
    return TrainedWeights(
        dataset=dataset,
        where=where,
        top1=test["top1"],
        interval=(round(low, 4), round(high, 4)),
        recipe=record.recipe,
        protocol=record.protocol,
        seed=record.seed,
        precision=package.config.stored or "fp32",
        bytes=(package.folder / WEIGHTS).stat().st_size,
        sha256=package.hashes[WEIGHTS],
        licence=licence,
        test_images=test["count"],
        note=note,
    )


def licence_of(package: Package, asked: str | None = None) -> str:
    """The licence that a package's card states.

    Raises:
        InputError: another one was asked for, or there is none.
    """
    stated = stated_licence(package.folder) or asked
    if not stated:
        raise InputError("its package states no licence; give --licence NAME")
    if asked and asked != stated:
        raise InputError(
            f"its package has the licence {stated!r} already; make it again by `zoo package RUN --licence {asked}`, or "
            "leave out --licence"
        )
    return stated


def stated_licence(folder: Path) -> str | None:
    """The licence on the card of a package; None where it has no card, or a card without one."""
    if not (folder / CARD).is_file():
        return None
    with without_advice():
        from huggingface_hub import ModelCard
    try:
        found = ModelCard((folder / CARD).read_text("utf-8"), ignore_metadata_errors=True).data.get("license")
    except Exception:  # its owner may have edited it
        return None
    return found if isinstance(found, str) and found else None


def entry_text(model: str, entry: TrainedWeights) -> str:
    """The entry as TOML, as it is written below a model of a registry file."""
    fields = {key: value for key, value in msgspec.to_builtins(entry).items() if value not in ("", None)}
    lines = "".join(f"{key} = {inline(value)}\n" for key, value in fields.items())
    return f"[[models.{key_of(model)}.weights]]\n{lines}"


def write_entry(folder: Path, file: Path) -> TrainedWeights:
    """Write the entry of a package that lies below the folder of a registry file into that file.

    Raises:
        InputError: the package lies elsewhere, or was trained on images that no catalogue names.
        PackageError, RunError: it is damaged. SpecError: the file has no such model, see `write_weights`.
    """
    registry = load_registry(extra=() if _is_read(file) else (file,))
    package = open_package(folder, registry=registry, partial=False)
    place, spec = folder.resolve(), package.record.data.spec
    if not place.is_relative_to(file.resolve().parent):
        raise InputError(f"{folder}: does not lie below the folder of {file}, with which it is to be installed")
    if spec not in registry.datasets:
        raise InputError(f"{folder}: was trained on {spec!r}, which is no dataset of the catalogue")
    where = f"{WHEEL}{place.relative_to(file.resolve().parent).as_posix()}"
    entry = entry_of(package, spec, where, licence_of(package))
    write_weights(file, package.record.model, entry_text(package.record.model, entry))
    return entry


def _is_read(file: Path) -> bool:
    """Whether a registry file is part of the catalogue anyway."""
    known = (builtin_registry(), *user_registries())
    return any(os.path.isfile(path) and file.samefile(path) for path in known)


def main(arguments: Sequence[str]) -> None:
    """Write one entry, and print it.

    Raises:
        SystemExit: with one line, where the entry cannot be written.
    """
    if len(arguments) != 2:
        raise SystemExit("usage: python -m zoo.hub.entry PACKAGE registry.toml")
    folder, file = map(Path, arguments)
    try:
        entry = write_entry(folder, file)
    except ZooError as error:
        raise SystemExit(f"error: {error}") from None
    print(entry_text(read_package_record(folder).model, entry), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
