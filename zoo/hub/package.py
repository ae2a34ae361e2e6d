"""A package: a run made ready for others, in files that prove one another.

    SHA256SUMS         the sha256 of every other file, as `sha256sum -c` reads it
    config.json        the model tree as data, classes, input, plugins; timm's layout where it can load it
    model.safetensors  the weights, strictly named
    run.toml           the run's record, without paths
    composition.png    the model tree, drawn
    result.json metrics.jsonl curves.png confusion.png README.md

Everything that a package says is data of a stranger: `open_package` checks hashes before it parses,
sizes before it reads, the tree against the plugins that are installed, and the weights' header against
the model built on the meta device, before memory is taken.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from zoo.base.files import sha256_of
from zoo.base.structs import Struct
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Node, node_from_table
from zoo.catalogue.tree import walk
from zoo.data.portable import portable_spec
from zoo.errors import MissingPluginError, PackageError, SpecError, ZooError
from zoo.models.compose import MAX_PARAMETERS
from zoo.models.header import MAX_HEADER, Header, compare, outline, read_header
from zoo.runs.record import CURVES, METRICS, RECORD, RESULT, WEIGHTS, RunRecord, Sizes, read_record, without

FORMAT = 1
CONFIG, CARD, CONFUSION, SUMS = "config.json", "README.md", "confusion.png", "SHA256SUMS"
COMPOSITION = "composition.png"
TREE_KEY = "zoo.tree_sha256"
"""In the metadata of the weights and of the picture: the tree that they are of."""
NAMES = (CARD, COMPOSITION, CONFIG, CONFUSION, CURVES, METRICS, WEIGHTS, RESULT, RECORD)
"""Every file that a package may hold besides `SHA256SUMS`; no other is written, sent or fetched."""

NEEDED = (CONFIG, RECORD, RESULT, WEIGHTS)
"""What loading and evaluating need."""

MAX_BYTES = (
    (SUMS, 4 << 10),
    (CONFIG, 4 << 20),
    (RECORD, 4 << 20),
    (RESULT, 1 << 20),
    (METRICS, 256 << 20),
    (CARD, 8 << 20),
    (CURVES, 64 << 20),
    (CONFUSION, 64 << 20),
    (COMPOSITION, 64 << 20),
    (WEIGHTS, 64 << 30),
)
"""Larger ones are refused before they are fetched or read."""

MAX_INTEGER, MAX_STRING, MAX_ITEMS, MAX_CLASSES, MAX_NODES = 1_000_000, 500, 4096, 100_000, 1000
HEADER_ROOM = MAX_HEADER + (64 << 20)
"""Bytes of a weights file beyond its parameters: the header and the buffers."""


class Config(Struct, frozen=True, kw_only=True):
    """The table `zoo` of `config.json`: what building and using the model needs.

    Attributes:
        build: the tree as in TOML. tree_sha256: of its canonical JSON (`tree_sha256`).
        plugins: component name to the distribution and version that it came from.
        mean, std, normalize: as in the run's dataset and recipe.
    """

    format: int
    model: str
    build: dict[str, Any]
    tree_sha256: str
    sizes: Sizes
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalize: bool
    parameters: int
    plugins: dict[str, str]


class Package(NamedTuple):
    """A package that was checked: where it is, and what it says."""

    folder: Path
    config: Config
    record: RunRecord
    header: Header


def limit_of(name: str) -> int:
    """The most bytes that a file of this name may have."""
    return dict(MAX_BYTES)[name]


def tree_sha256(build: Mapping[str, Any]) -> str:
    """The sha256 of a tree: of its JSON with sorted keys and no spaces."""
    plain = msgspec.json.encode(msgspec.to_builtins(build), order="sorted")
    return hashlib.sha256(plain).hexdigest()


def open_package(folder: Path, *, registry: Registry | None = None, partial: bool = True) -> Package:
    """Check a package from its hashes to the header of its weights.

    Args:
        partial: as of `check_sums`.
    Raises:
        PackageError: a file is damaged, absent, too large, or does not fit the others.
        MissingPluginError: it needs a component that is not installed.
    """
    check_sums(folder, partial=partial)
    config, record = read_config(folder / CONFIG), read_package_record(folder)
    check_agreement(folder, config, record)
    header = read_header(folder / WEIGHTS)
    check_model(config, header, registry or load_registry(), folder)
    return Package(folder, config, record, header)


# ---- hashes ---------------------------------------------------------------------------------


def sums_text(hashes: Mapping[str, str]) -> str:
    """The content of `SHA256SUMS`: one line for each file, by name."""
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))


def read_sums(path: Path) -> dict[str, str]:
    """Read `SHA256SUMS`, to the last byte as `sums_text` writes it.

    Raises:
        PackageError: absent, or anything else than what a package's has.
    """
    try:
        if path.stat().st_size > limit_of(SUMS):
            raise PackageError(f"{path}: too large for a list of hashes")
        text = path.read_bytes().decode("ascii")
    except OSError:
        raise PackageError(
            f"{path.parent}: no package: it has no {SUMS}; `zoo package RUN` makes one"
        ) from None
    except UnicodeDecodeError:
        raise PackageError(f"{path}: damaged: not a list of hashes") from None
    lines = re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)
    hashes = {name: digest for digest, name in lines}
    odd = sorted(set(hashes) - set(NAMES))
    if sums_text(hashes) != text or odd:
        raise PackageError(f"{path}: damaged: not a list of the hashes of a package's files")
    missing = [name for name in NEEDED if name not in hashes]
    if missing:
        raise PackageError(f"{path}: lists no {missing[0]}, which a package needs")
    return hashes


def check_sums(folder: Path, *, partial: bool = True) -> dict[str, str]:
    """Hash every file and hold it against `SHA256SUMS`.

    Args:
        partial: pictures, metrics and the card may be absent (a download of what loading needs).
    Raises:
        PackageError: a file is absent, too large, or not what its hash says.
    """
    hashes = read_sums(folder / SUMS)
    for name in NAMES:
        path = folder / name
        if not path.is_file():
            if name in hashes and (name in NEEDED or not partial):
                raise PackageError(f"{folder}: has no {name}, which its {SUMS} lists")
            continue
        if name not in hashes:
            raise PackageError(f"{path}: is not listed in {SUMS}")
        if path.stat().st_size > limit_of(name):
            raise PackageError(f"{path}: larger than the {limit_of(name):,} bytes that it may have")
        if sha256_of(path) != hashes[name]:
            raise PackageError(f"{path}: damaged: its sha256 is not the one in {SUMS}")
    return hashes


# ---- what it says -----------------------------------------------------------------------------


def read_config(path: Path) -> Config:
    """Read the table `zoo` of `config.json`, strictly.

    Raises:
        PackageError: absent, damaged, of a newer format, or beyond what any model of ours says.
    """
    raw = _bounded(path)
    try:
        table = msgspec.json.decode(raw)
        if not isinstance(table, dict) or not isinstance(table.get("zoo"), dict):
            raise PackageError(f"{path}: no package of hybrid-zoo: it has no table `zoo`")
        form = table["zoo"].get("format")
        if isinstance(form, int) and form > FORMAT:
            raise PackageError(
                f"{path}: of a newer format ({form}); upgrade with `pip install -U hybrid-zoo`"
            )
        config = msgspec.convert(table["zoo"], Config, strict=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise PackageError(f"{path}: damaged: {_first(error)}") from None
    _check_bounds(config, path)
    return config


def read_package_record(folder: Path) -> RunRecord:
    """Read `run.toml` as a stranger's.

    Raises:
        PackageError: absent, damaged, too large, or naming a path of the machine that it is on.
    """
    _bounded(folder / RECORD)
    try:
        record = read_record(folder)
    except ZooError as error:
        raise PackageError(str(error)) from None
    except (RecursionError, ValueError, TypeError) as error:
        raise PackageError(f"{folder / RECORD}: damaged: {_first(error)}") from None
    if portable_spec(record.data.spec) != record.data.spec:
        raise PackageError(f"{folder / RECORD}: data.spec names a path; a package must not")
    return record


def check_agreement(folder: Path, config: Config, record: RunRecord) -> None:
    """config.json and run.toml must tell the same story.

    Raises:
        PackageError: names the first field in which they differ.
    """
    pairs = {
        "model": (config.model, record.model),
        "build": (config.build, without(record.build, "pretrained")),
        "tree_sha256": (config.tree_sha256, tree_sha256(config.build)),
        "sizes": (config.sizes, record.sizes),
        "classes": (config.classes, record.data.classes),
        "mean": (config.mean, record.data.mean),
        "std": (config.std, record.data.std),
        "normalize": (config.normalize, record.settings.normalize),
    }
    for key, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise PackageError(f"{folder / CONFIG}: zoo.{key} is not what {RECORD} says")
    if len(config.classes) != config.sizes.num_classes:
        raise PackageError(
            f"{folder / CONFIG}: {len(config.classes)} names for {config.sizes.num_classes} classes"
        )


def check_model(config: Config, header: Header, registry: Registry, folder: Path) -> None:
    """Build the tree on the meta device within its weights' budget, and hold the header against it.

    Raises:
        MissingPluginError, PackageError: see `open_package`.
    """
    where = f"{folder / CONFIG}: build"
    try:
        tree = node_from_table(config.build, where)
        check_plugins(tree, config, registry)
        sizes = msgspec.structs.asdict(config.sizes)
        module = outline(tree, registry, len(header.tensors), where=where, **sizes)
    except (PackageError, MissingPluginError):
        raise
    except ZooError as error:
        raise PackageError(f"{folder}: its model cannot be built: {error}") from None
    except RecursionError:
        raise PackageError(f"{where}: nested too deeply") from None
    compare(folder / WEIGHTS, header, module)
    if header.metadata.get(TREE_KEY, config.tree_sha256) != config.tree_sha256:
        raise PackageError(f"{folder / WEIGHTS}: its metadata names another model tree than {CONFIG}")


def most_weights_bytes(config: Config, registry: Registry, folder: Path) -> int:
    """The most bytes that the weights of a config can take, known before they are fetched.

    Raises:
        MissingPluginError: it needs a plugin that is not installed. PackageError: as `check_model`.
    """
    try:
        check_plugins(node_from_table(config.build, f"{folder / CONFIG}: build"), config, registry)
    except SpecError as error:
        raise PackageError(f"{folder}: its model cannot be built: {error}") from None
    return 8 * config.parameters + HEADER_ROOM


def check_plugins(tree: Node, config: Config, registry: Registry) -> None:
    """Every component that the tree uses must be offered by a plugin that is installed.

    Raises:
        MissingPluginError: names the component and, where the config does, what to install.
    """
    for use in sorted({node.use for node in walk(tree)}):
        if use in registry.components and ("component", use) not in registry.clashes:
            continue
        said = config.plugins.get(use, "")
        match = re.fullmatch(
            r"([A-Za-z0-9][A-Za-z0-9._-]{0,100}) ([A-Za-z0-9.+!-]{1,50})(?: \(([\w.:/@+ -]{1,300})\))?", said
        )
        shown = use if re.fullmatch(r"[\w.-]{1,100}", use) else repr(use[:100])
        if match is None or match[1] == "hybrid-zoo":
            advice = (
                "upgrade with `pip install -U hybrid-zoo`"
                if match
                else "its package does not say which plugin"
            )
            raise MissingPluginError(f"needs the component {shown}, which no plugin here offers; {advice}")
        from_git = re.fullmatch(r"git\+https://[\w.:/@+-]+", match[3] or "")
        wanted = f"'{match[1]} @ {match[3]}'" if from_git else f"{match[1]}=={match[2]}"
        raise MissingPluginError(
            f"needs the component {shown} of {said}, which is not installed; if you trust it: "
            f"pip install {wanted}"
        )


# ---- bounds -----------------------------------------------------------------------------------


def _bounded(path: Path) -> bytes:
    limit = limit_of(path.name)
    try:
        if path.stat().st_size > limit:
            raise PackageError(f"{path}: larger than the {limit:,} bytes that it may have")
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror}") from None


def _check_bounds(config: Config, path: Path) -> None:
    sizes = config.sizes
    sides = (sizes.height, sizes.width)
    if not (1 <= sizes.in_channels <= 64 and all(1 <= side <= 8192 for side in sides)):
        raise PackageError(f"{path}: zoo.sizes are not those of an image")
    if not 1 <= sizes.num_classes <= MAX_CLASSES or len(config.classes) > MAX_CLASSES:
        raise PackageError(f"{path}: zoo.sizes.num_classes must be 1 to {MAX_CLASSES:,}")
    if not 0 < config.parameters <= MAX_PARAMETERS:
        raise PackageError(f"{path}: zoo.parameters must be 1 to {MAX_PARAMETERS:,}")
    if not all(0 < len(name) <= MAX_STRING for name in config.classes):
        raise PackageError(f"{path}: a class name must have 1 to {MAX_STRING} characters")
    numbers = (*config.mean, *config.std)
    if not all(math.isfinite(n) and abs(n) < 1e6 for n in numbers) or not all(s > 0 for s in config.std):
        raise PackageError(f"{path}: zoo.mean and zoo.std must be finite, and std positive")
    if {len(config.mean), len(config.std)} - {sizes.in_channels, 1}:
        raise PackageError(f"{path}: zoo.mean and zoo.std must have one number for each channel")
    try:
        nodes = _check_argument(config.build, f"{path}: zoo.build", 0)
    except SpecError as error:
        raise PackageError(str(error)) from None
    if nodes > MAX_NODES:
        raise PackageError(f"{path}: zoo.build has more than {MAX_NODES} tables")


def _check_argument(value: Any, where: str, depth: int) -> int:
    """Refuse an argument that no model has; the number of tables in it."""
    if depth > 64:
        raise PackageError(f"{where[:200]}: nested too deeply")
    if isinstance(value, dict | list):
        if len(value) > MAX_ITEMS:
            raise PackageError(f"{where}: {len(value):,} entries; at most {MAX_ITEMS:,}")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        below = sum(_check_argument(v, f"{where}.{str(k)[:40]}", depth + 1) for k, v in items)
        return below + isinstance(value, dict)
    if isinstance(value, str) and len(value) > MAX_STRING:
        raise PackageError(f"{where}: a string of {len(value):,} characters; at most {MAX_STRING}")
    if isinstance(value, int | float) and not abs(value) <= MAX_INTEGER:
        raise PackageError(f"{where}: {str(value)[:30]} is beyond {MAX_INTEGER:,}, which no model needs")
    return 0


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
