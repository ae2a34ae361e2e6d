"""The user's own code that a run is made of: kept in its folder, taken up again when the run is opened.

A run folder may be a stranger's. Code out of one is run only if the user has run the very same code on this machine
before, by whatever command; packages never bring any.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote

import msgspec

from zoo.base.files import write_text
from zoo.base.reporter import callers
from zoo.catalogue.own_code import SHORT, OwnCode, in_file, make_known
from zoo.catalogue.own_model import OwnModel, model_of
from zoo.catalogue.registry import Registry
from zoo.catalogue.source_text import digest_of, hash_of, read
from zoo.catalogue.spec import Node
from zoo.errors import InputError, RunError, ZooWarning
from zoo.plugin.contract import Kind
from zoo.runs.record import RECORD, SOURCE, OwnPart, RunRecord, tree_of

AUGMENT = "augment"
"""The folder of what changes the batches, in the folder of a run that holds code."""

OF_PACKAGES = ("config.json", "SHA256SUMS")
"""Files that a package has and a run has not."""

MOST_REMEMBERED = 32
"""Runs whose code is kept in memory: modules may be large, and a program may train many."""

Warn = Callable[[str], None]


def warn_as_python(line: str) -> None:
    """Warn of something by Python's own means."""
    warnings.warn(line, ZooWarning, stacklevel=callers())


# ---- when a run is made -------------------------------------------------------------------------------


def own_codes(registry: Registry, tree: Node) -> dict[str, OwnCode]:
    """The components of a tree that are the user's own code, by name."""
    found = {node.use: registry.components[node.use] for _, node in tree.walk() if node.use in registry.components}
    return {use: part.factory for use, part in found.items() if isinstance(part.factory, OwnCode)}


def own_parts(
    registry: Registry, tree: Node, augment: OwnCode | None = None
) -> tuple[OwnPart, ...] | msgspec.UnsetType:
    """What a run's record says of the user's own code in it; nothing where there is none."""
    parts = [
        _part(use, "module" if code.ready else registry.components[use].kind, code, SOURCE)
        for use, code in own_codes(registry, tree).items()
    ]
    parts += [_part(AUGMENT, AUGMENT, augment, f"{SOURCE}/{AUGMENT}")] if augment is not None else []
    return tuple(parts) or msgspec.UNSET


def _part(use: str, kind: str, code: OwnCode, folder: str) -> OwnPart:
    name = Path(code.original).name if code.original else f"{code.attribute}.py"
    table = {"use": use, "kind": kind, "attribute": code.attribute, "sha256": code.sha256, "file": code.original}
    copy = f"{folder}/{name}" if code.text else ""
    return msgspec.convert({**table, "copy": copy, "script": code.script, "beside": code.hashes_beside}, OwnPart)


def keep_sources(folder: Path, record: RunRecord, registry: Registry, augment: OwnCode | None) -> None:
    """Write the user's own code, as it was when the run was made, into the run folder."""
    if not record.own:
        return
    codes = own_codes(registry, tree_of(record)) | ({AUGMENT: augment} if augment is not None else {})
    for part in record.own:
        code = codes.get(part.use)
        if code is None or not part.copy or code.digest != _digest(part):
            continue
        if not code.kept:  # the copy of another run folder is no less a stranger's for being trained again
            make_known(code)
        place = folder / part.copy
        for path, text in {place.name: code.text, **code.beside}.items():
            target = place.parent / path
            if not target.is_file() or hash_of(read(target)) != hash_of(text):
                target.parent.mkdir(parents=True, exist_ok=True)
                write_text(target, text)


# ---- when it is opened --------------------------------------------------------------------------------


def reopened(folder: Path, record: RunRecord, registry: Registry, warn: Warn = warn_as_python) -> Registry:
    """The catalogue with the user's own code that a run is made of, as it was then: out of the run folder.

    Args:
        registry: what it has of these components already, as by `with_model`, stays.
        warn: receives a line where the file that the code came from is another one now.
    Raises:
        RunError: the copy is missing or changed, or the folder is a package. InputError: the code is in no file.
    """
    for part in _models(record):
        if part.use in registry.components:
            continue
        if (own := _remembered().get(_key(folder, part))) is not None:
            registry = registry.having_own(own)
            continue
        if any((folder / name).exists() for name in OF_PACKAGES):
            raise RunError(f"{folder}: its model is code ({part.use}), and no code is run out of a package")
        registry = registry.having_own(_kept(folder, part))
        if line := _change(part):
            warn(f"{line}; the run's own copy of it is used, {folder / part.copy}")
    return registry


def remember(folder: Path, record: RunRecord, registry: Registry) -> None:
    """Keep a run's code that stands in no file while this process lives, so that the program can go on with its run."""
    for part in _models(record):
        if _is_in_a_file(part) or part.use not in registry.components:
            continue
        component = registry.components[part.use]
        assert isinstance(component.factory, OwnCode)
        model = model_of(component.factory, component.kind).model
        kept = _remembered()
        kept[_key(folder, part)] = OwnModel(part.use, component, model)
        while len(kept) > MOST_REMEMBERED:
            del kept[next(iter(kept))]


@functools.cache
def _remembered() -> dict[tuple[Path, str, str], OwnModel]:
    return {}


def _key(folder: Path, part: OwnPart) -> tuple[Path, str, str]:
    return folder.resolve(), part.use, part.sha256


def _is_in_a_file(part: OwnPart) -> bool:
    return part.kind != "module" and bool(part.file and part.copy)


def with_model(folder: Path, record: RunRecord, registry: Registry, own: OwnModel) -> Registry:
    """The catalogue with the model that the user gives again for a run; the run's weights must fit it.

    Raises:
        InputError: the model of the run is not code of the user's own.
    """
    parts = list(_models(record))
    if len(parts) != 1:
        raise InputError(f"{folder}: its model is {record.model}, of the catalogue, and is not given again")
    kind = own.component.kind
    wanted = "classifier" if parts[0].kind == "module" else parts[0].kind
    if kind != wanted:
        raise InputError(f"{folder}: its model was made of a {wanted}, and {own.code} is a {kind}")
    component = msgspec.structs.replace(own.component, name=parts[0].attribute)
    return registry.having_own(own._replace(use=parts[0].use, component=component))


def renewed(record: RunRecord, registry: Registry) -> RunRecord:
    """The record of a run that goes on, or is repeated, with the user's own code as this catalogue has it."""
    tree = tree_of(record)
    parts = own_parts(registry, tree)
    if not parts:
        return record
    others = tuple(part for part in record.own or () if part.kind == AUGMENT)
    origins = {use: str(registry.origin("component", use)) for use in own_codes(registry, tree)}
    return msgspec.structs.replace(record, own=(*parts, *others), plugins={**record.plugins, **origins})


def own_of_run(record: RunRecord, kind: str) -> OwnPart | None:
    """What a record says of the user's own code of one kind."""
    return next((part for part in record.own or () if part.kind == kind), None)


def refuse_own(source: Path, record: RunRecord) -> None:
    """Refuse to give away a run whose model is code: who got it could not build the model.

    Raises:
        InputError: says how to make a package of the code.
    """
    for part in _models(record):
        file = part.file or (str(source / part.copy) if part.copy else f"{part.attribute}.py")
        place = quote(f"{file}:{part.attribute}")
        raise InputError(
            f"{source}: its model is code of your own ({part.attribute}), which nobody else has; make a plugin of it "
            f"by `zoo new plugin NAME --from {place}`, install it, and train the plugin's model"
        )


def _models(record: RunRecord) -> Iterator[OwnPart]:
    return (part for part in record.own or () if part.kind != AUGMENT)


def _digest(part: OwnPart) -> str:
    return digest_of(part.sha256, part.beside)


def _kept(folder: Path, part: OwnPart) -> OwnModel:
    """The component from its copy in the run folder."""
    again = f"zoo.load({str(folder)!r}, model={part.attribute})"
    if not _is_in_a_file(part):
        what = "was given ready" if part.kind == "module" else "was typed in, or given arguments that no file holds"
        raise InputError(f"{folder}: its model {part.attribute} {what}: give it again by {again}, or resume likewise")
    copy = (folder / part.copy).absolute()
    if not copy.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"{folder / RECORD}: own: {part.copy!r} leads out of the run folder")
    if not copy.is_file():
        raise RunError(f"{copy}: is missing: it is the code of the run's model; give the model again by {again}")
    texts = {path: read(copy.parent / path) for path in part.beside if (copy.parent / path).is_file()}
    code = OwnCode.made(
        part.attribute, str(copy), read(copy), beside=texts, script=part.script, kept=True, original=part.file
    )
    if code.digest != _digest(part):
        raise RunError(
            f"{copy}: was changed after the run (sha256 {code.sha256[:SHORT]}, recorded {part.sha256[:SHORT]}); "
            "the run folder keeps the code that its weights fit"
        )
    kind: Kind = "classifier" if part.kind == "classifier" else "part" if part.kind == "part" else "stem"
    return model_of(code, kind)


def _change(part: OwnPart) -> str:
    """A line about the file that the code came from, if it is another one now; "" if it is the same or gone."""
    if not Path(part.file).is_file():
        return ""
    try:
        now = in_file(f"{part.file}:{part.attribute}", script=part.script)
    except InputError as error:
        return f"the code of this run cannot be found in its file any more ({error})"
    if now.digest == _digest(part):
        return ""
    if now.sha256 == part.sha256:
        changed = sorted(
            p for p in {**now.hashes_beside, **part.beside} if now.hashes_beside.get(p) != part.beside.get(p)
        )
        return f"{part.file} imports {changed[0]}, which has changed since this run"
    return f"{part.file} has changed since this run (sha256 {now.sha256[:SHORT]} now, {part.sha256[:SHORT]} then)"
