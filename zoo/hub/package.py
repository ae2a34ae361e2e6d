"""A package: a run that is ready for others to use, in files that can be checked against one another.

    SHA256SUMS         the sha256 of every other file, as `sha256sum -c` reads it
    config.json        the model tree as data, classes, input, plugins; timm's layout where it can load it
    model.safetensors  the weights, strictly named
    run.toml           the run's record, without paths
    composition.png    the model tree, drawn
    result.json metrics.jsonl curves.png confusion.png README.md
    .eval_results/hybrid-zoo.yaml   the result as the Hub's pages read it, if the Hub has the dataset
    model.sig          the signature over all of these, if it was signed
    onnx/model.onnx preprocessor_config.json   for other runtimes, where they were asked for

Everything in a package is a stranger's data: `open_package` checks hashes before it parses,
sizes before it reads, the tree against the plugins that are installed, and the weights' header against
the model built on the meta device, before memory is taken. What it returns is passed on, so that no
later step hashes or parses the files again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from zoo.base.install import upgrade_line
from zoo.base.structs import Struct
from zoo.base.text import first_line, plural
from zoo.catalogue.provenance import require_components
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node, recorded_tree
from zoo.data.portable import portable_spec
from zoo.errors import MissingPluginError, PackageError, SpecError, ZooError
from zoo.hub.sums import CONFIG, check_size, check_sums, edited, sums_text
from zoo.models.bounds import MAX_INTEGER, MAX_PARAMETERS, MAX_STRING
from zoo.models.header import MAX_HEADER, Header, Sixteen, compare, non_finite, outline, read_header, stored_type
from zoo.runs.record import RECORD, WEIGHTS, RunRecord, Sizes, read_record, without

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
TREE_KEY = "zoo.tree_sha256"
"""The key in the metadata of the weights and of the picture that names their model tree."""

MAX_ITEMS, MAX_CLASSES, MAX_NODES = 4096, 100_000, 1000
HEADER_ROOM = MAX_HEADER + (64 << 20)
"""Bytes of a weights file beyond its parameters: the header and the buffers."""


class Config(Struct, frozen=True, kw_only=True):
    """The table `zoo` of `config.json`: what building and using the model needs.

    Attributes:
        build: the tree as in TOML. tree_sha256: of its canonical JSON (`tree_sha256`).
        plugins: component name to the distribution and version that it came from.
        defaults: component name to the defaults of its arguments, as in the run's record; older packages have none.
        mean, std, normalize: as in the run's dataset and recipe.
        stored: the number type of the stored parameters; absent where they are stored as the run has them.
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
    defaults: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    stored: Sixteen | msgspec.UnsetType = msgspec.UNSET


class Package(NamedTuple):
    """A package that was checked: where it is, and what it holds.

    Attributes:
        hashes: the sha256 of each file that `SHA256SUMS` lists, by name; each file in `folder` has its hash, but
            those for people that were edited.
    """

    folder: Path
    hashes: Mapping[str, str]
    config: Config
    record: RunRecord
    header: Header

    @property
    def edited(self) -> list[str]:
        """Prose and pictures that were edited after the package was made; hashed when it is asked for."""
        return edited(self.folder, self.hashes)

    @property
    def sums_sha256(self) -> str:
        """The sha256 of `SHA256SUMS`, which stands for the whole package."""
        return hashlib.sha256(sums_text(self.hashes).encode()).hexdigest()


def tree_sha256(build: Mapping[str, Any]) -> str:
    """The sha256 of a tree, taken of its JSON with sorted keys and no spaces."""
    plain = msgspec.json.encode(msgspec.to_builtins(build), order="sorted")
    return hashlib.sha256(plain).hexdigest()


def open_package(folder: Path, *, registry: Registry, partial: bool = True) -> Package:
    """Check a package from its hashes to the header of its weights.

    Args:
        partial: as in `check_sums`.
    Raises:
        PackageError: a file is damaged, absent, too large, or does not fit the others.
        MissingPluginError: it needs a component that is not installed.
    """
    return read_package(folder, check_sums(folder, partial=partial), registry)


def read_package(folder: Path, hashes: Mapping[str, str], registry: Registry) -> Package:
    """Check the content of a package whose hashes were checked already.

    Args:
        hashes: of the files in `folder`, as `check_sums` returns them.
    Raises:
        PackageError, MissingPluginError: as `open_package`.
    """
    config, record = read_description(folder)
    header = read_header(folder / WEIGHTS)
    if (stored := stored_type(folder / WEIGHTS, header)) != (config.stored or "fp32"):
        raise PackageError(f"{folder / WEIGHTS}: is stored in {stored}, but {CONFIG} says {config.stored or 'fp32'}")
    check_model(config, header, registry, folder / WEIGHTS, f"{folder / CONFIG}: build")
    return Package(folder, hashes, config, record, header)


# ---- content ----------------------------------------------------------------------------------


def read_description(folder: Path) -> tuple[Config, RunRecord]:
    """Read `config.json` and `run.toml`, which must agree.

    Raises:
        PackageError: one of them is absent or damaged, or they differ.
    """
    config, record = read_config(folder / CONFIG), read_package_record(folder)
    check_agreement(folder, config, record)
    return config, record


def read_config(path: Path) -> Config:
    """Read the table `zoo` of `config.json`, strictly.

    Raises:
        PackageError: it is absent, damaged, of a newer format, or beyond the bounds of any model of ours.
    """
    raw = _bounded(path)
    try:
        table = msgspec.json.decode(raw)
        if not isinstance(table, dict) or not isinstance(table.get("zoo"), dict):
            raise PackageError(f"{path}: is not part of a package of hybrid-zoo, because it has no table `zoo`")
        version = table["zoo"].get("format")
        if isinstance(version, int) and version > FORMAT:
            raise PackageError(f"{path}: has a newer format ({version}); upgrade with `{upgrade_line()}`")
        config = msgspec.convert(table["zoo"], Config, strict=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        line = first_line(error)
        if "unknown field" in line:
            raise PackageError(
                f"{path}: {line}: a newer version may have written it; upgrade with `{upgrade_line()}`"
            ) from None
        raise PackageError(f"{path}: is damaged: {line}") from None
    _check_bounds(config, path)
    return config


def read_package_record(folder: Path) -> RunRecord:
    """Read `run.toml`, which a stranger may have written.

    Raises:
        PackageError: it is absent, damaged, too large, or names a path of its author's machine.
    """
    _bounded(folder / RECORD)
    try:
        record = read_record(folder)
    except ZooError as error:
        raise PackageError(str(error)) from None
    except (RecursionError, ValueError, TypeError) as error:
        raise PackageError(f"{folder / RECORD}: is damaged: {first_line(error)}") from None
    if portable_spec(record.data.spec) != record.data.spec:
        raise PackageError(f"{folder / RECORD}: data.spec contains a path, which a package must not")
    return record


def check_agreement(folder: Path, config: Config, record: RunRecord) -> None:
    """Check that config.json and run.toml agree.

    Raises:
        PackageError: names the first field in which they differ.
    """
    pairs = {
        "model": (config.model, record.model),
        "build": (config.build, without(record.build, "pretrained")),
        "tree_sha256": (config.tree_sha256, tree_sha256(config.build)),
        "defaults": (config.defaults, record.defaults),
        "sizes": (config.sizes, record.sizes),
        "classes": (config.classes, record.data.classes),
        "mean": (config.mean, record.data.mean),
        "std": (config.std, record.data.std),
        "normalize": (config.normalize, bool(record.settings.normalize)),
    }
    for key, (in_config, in_record) in pairs.items():
        if in_config != in_record:
            raise PackageError(f"{folder / CONFIG}: zoo.{key} differs from {RECORD}")
    if len(config.classes) != config.sizes.num_classes:
        raise PackageError(
            f"{folder / CONFIG}: {plural(len(config.classes), 'name')} for {plural(config.sizes.num_classes, 'class')}"
        )


def check_model(config: Config, header: Header, registry: Registry, weights: Path, where: str) -> nn.Module:
    """Build the tree on the meta device, within limits set by its weights, and compare the header with it.

    Args:
        weights: the file that has the header. where: the place of the tree, for messages.
    Returns:
        The model without its memory, if it can be built so.
    Raises:
        MissingPluginError, PackageError: see `open_package`.
    """
    try:
        tree = recorded_tree(config.build, config.defaults, where)
        check_plugins(tree, config, registry)
        sizes = msgspec.structs.asdict(config.sizes)
        module = outline(tree, registry, header, where=where, **sizes)
    except (PackageError, MissingPluginError):
        raise
    except ZooError as error:
        raise PackageError(f"{weights.parent}: the model cannot be built: {error}") from None
    except RecursionError:
        raise PackageError(f"{where}: is nested too deeply") from None
    compare(weights, header, module)
    if header.metadata.get(TREE_KEY, config.tree_sha256) != config.tree_sha256:
        raise PackageError(f"{weights}: names another model tree in its metadata than {CONFIG}")
    return module


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that hold an infinity or a NaN.

    Raises:
        PackageError: names the file and one of the tensors.
    """
    if names := non_finite(weights):
        raise PackageError(
            f"{path}: {plural(len(names), 'tensor is', 'tensors are')} not finite, for example {names[0]!r}"
        )


def most_weights_bytes(config: Config, registry: Registry, folder: Path) -> int:
    """The most bytes that the weights of a config can take; known before they are fetched.

    Raises:
        MissingPluginError: the model needs a plugin that is not installed. PackageError: as `check_model`.
    """
    try:
        check_plugins(recorded_tree(config.build, config.defaults, f"{folder / CONFIG}: build"), config, registry)
    except SpecError as error:
        raise PackageError(f"{folder}: the model cannot be built: {error}") from None
    return 8 * config.parameters + HEADER_ROOM


def check_plugins(tree: Node, config: Config, registry: Registry) -> None:
    """Check that installed plugins offer every component that the tree uses.

    Raises:
        MissingPluginError: names the component and, where the config does, what to install.
    """
    require_components(tree, config.plugins, registry, "the package")


# ---- bounds -----------------------------------------------------------------------------------


def _bounded(path: Path) -> bytes:
    try:
        check_size(path)
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror}") from None


def _check_bounds(config: Config, path: Path) -> None:
    sizes = config.sizes
    sides = (sizes.height, sizes.width)
    if not (1 <= sizes.in_channels <= 64 and all(1 <= side <= 8192 for side in sides)):
        raise PackageError(f"{path}: zoo.sizes is not the size of an image")
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
        for _, node in recorded_tree(config.build, config.defaults, f"{path}: zoo.build").walk():
            _check_argument(node.defaults, f"{path}: zoo.defaults", 0)
    except SpecError as error:
        raise PackageError(str(error)) from None
    if nodes > MAX_NODES:
        raise PackageError(f"{path}: zoo.build has more than {MAX_NODES} tables")


def _check_argument(value: Any, where: str, depth: int) -> int:
    """Refuse an argument that no model has, and return the number of tables in it."""
    if depth > 64:
        raise PackageError(f"{where[:200]}: is nested too deeply")
    if isinstance(value, dict | list):
        if len(value) > MAX_ITEMS:
            raise PackageError(f"{where}: has {len(value):,} entries; at most {MAX_ITEMS:,} are allowed")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        below = sum(_check_argument(v, f"{where}.{str(k)[:40]}", depth + 1) for k, v in items)
        return below + isinstance(value, dict)
    if isinstance(value, str) and len(value) > MAX_STRING:
        raise PackageError(f"{where}: is a string of {len(value):,} characters; at most {MAX_STRING} are allowed")
    if isinstance(value, int | float) and not abs(value) <= MAX_INTEGER:
        raise PackageError(f"{where}: {str(value)[:30]} is outside of -{MAX_INTEGER:,} to {MAX_INTEGER:,}")
    return 0
