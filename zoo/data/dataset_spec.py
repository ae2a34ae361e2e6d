"""What a SPEC of a dataset says: a catalogue name, or "scheme:rest" with options, and the source that it stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from zoo.base.paths import local_path
from zoo.catalogue.spec import Dataset
from zoo.data.files.colours import checked_colours
from zoo.data.files.decode import Rule, make_rule, transform_of, transform_rule
from zoo.data.portable import LOCAL_SCHEMES, OF_ENDINGS, spec_of
from zoo.data.shards.shuffle import OPTIONS as OF_SHARDS
from zoo.data.sources.altered_images import alteration
from zoo.data.sources.digits_and_idx import DigitsSource, IdxSource
from zoo.data.sources.folder import FolderSource
from zoo.data.sources.hub import hub
from zoo.data.sources.in_memory import MemorySource
from zoo.data.sources.plugin import PluginSource
from zoo.data.sources.source import Request, Source
from zoo.data.sources.table_parquet import OPTIONS as OF_PATHS
from zoo.data.sources.table_parquet import parquet
from zoo.data.sources.table_source import OF_TEXT, TableSource
from zoo.data.sources.torchvision import VisionSource
from zoo.data.sources.webdataset import OPTIONS as OF_TARS
from zoo.data.sources.webdataset import TarSource
from zoo.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry

PARQUET = frozenset({"image", "label", "labels", "train", "validation", "test", "config", "split_column", "group"})
"""Options of parquet files, wherever they are."""

LISTS = frozenset({"labels", "train", "validation", "test"})
"""Options that may name several columns or splits."""

SCHEMES: Mapping[str, tuple[Callable[[Request], Source], frozenset[str] | None]] = MappingProxyType(
    {
        "sklearn": (DigitsSource.make, frozenset()),
        "torchvision": (VisionSource.make, None),
        "hf": (hub, PARQUET | OF_SHARDS),
        "parquet": (parquet, PARQUET | OF_PATHS | OF_SHARDS),
        "csv": (TableSource.csv, OF_TEXT),
        "jsonl": (TableSource.jsonl, OF_TEXT),
        "folder": (FolderSource.make, frozenset({"classes", "order"})),
        "wds": (TarSource.make, OF_TARS | OF_SHARDS),
        "idx": (IdxSource.make, frozenset()),
        "plugin": (PluginSource.make, None),
        "memory": (MemorySource.make, frozenset()),
    }
)
"""Scheme to what makes its source, and the options it takes (None: it checks them itself)."""

HINT = "names that `zoo datasets` lists need no scheme"

COMMON_FLAGS = frozenset({"skip_bad", "drop_unknown", "multi_label"})

FLAGS = frozenset({*COMMON_FLAGS, "stream"})
"""Options that need no value."""

COMMON = COMMON_FLAGS | frozenset({"resize", "crop", "alter_train", "alter_test", "white", "range", "background"})
"""Options of every dataset; the others are the source's own. After "?", a hyphen stands for an underscore too."""


def find(spec: str, registry: Registry | None) -> tuple[str, Dataset]:
    """The short name and the description that a SPEC stands for.

    Raises:
        UnknownNameError: neither in the catalogue nor a known scheme. InputError: no text.
    """
    if not isinstance(spec, str):  # images of Python are taken by `zoo.data.given_data`, before
        advice = f"; for the files there write '{spec_of(spec)}'" if isinstance(spec, Path) else ""
        raise InputError(f"{type(spec).__name__} is no SPEC of a dataset: give a name or a text SCHEME:PATH{advice}")
    known = registry.datasets if registry is not None else {}
    if registry is not None and spec in known:
        return spec, registry.dataset(spec)
    scheme, colon, rest = spec.partition(":")
    if not colon:
        if local_path(spec).is_dir():
            raise UnknownNameError("dataset", spec, (), f"for the folder of that name write folder:{spec}")
        if not (written := spec_of(Path(spec))).startswith("folder:"):
            raise UnknownNameError("dataset", spec, (), f"for the file of that name write {written}")
        hint = "see `zoo datasets`, or give folder:PATH, csv:FILE, jsonl:FILE, parquet:PATH or wds:PATTERN"
        if registry is not None:
            raise registry.unknown("dataset", spec, known, hint)
        raise UnknownNameError("dataset", spec, known, hint)
    if scheme not in SCHEMES:
        raise UnknownNameError("dataset scheme", scheme, SCHEMES, HINT)
    if not rest:
        raise InputError(f"{spec!r}: nothing after the colon; expected {scheme}:PATH or {scheme}:NAME")
    return _short_name(scheme, rest), Dataset(source=spec)


def _short_name(scheme: str, rest: str) -> str:
    base = rest.partition("?")[0].partition("@")[0].rstrip("/").rsplit("/", 1)[-1]
    if scheme == "wds" and re.search(r"[{*\[]", base):  # a pattern: the folder has the name
        base = rest.partition("?")[0].rpartition("/")[0].rsplit("/", 1)[-1] or re.split(r"[{*\[]", base)[0]
    if scheme in ("csv", "jsonl", "wds"):
        base = re.sub(rf"({'|'.join(map(re.escape, OF_ENDINGS))})(\.gz)?$", "", base, flags=re.IGNORECASE)
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in base).strip("-._").lower()
    return name or scheme


def options_of(dataset: Dataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """The dataset's options and those after "?", as (common, the source's own).

    Raises:
        InputError: an option is not known, or cannot be what it is.
    """
    scheme, _, rest = dataset.source.partition(":")
    _, query = _divided(scheme, rest)
    allowed = SCHEMES[scheme][1] if scheme in SCHEMES else None
    options = {_key(key): value for key, value in dataset.options.items()}
    if allowed is not None:
        options = {key: _of_catalogue(key, value) for key, value in options.items()}
    given = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)  # a plus is a plus, as in "flip+grayscale"
    options |= {_key(key): _value(_key(key), text) for key, text in given}
    common = {k: v for k, v in options.items() if k in COMMON}
    specific = {k: v for k, v in options.items() if k not in COMMON}
    unknown = sorted(set(specific) - allowed) if allowed is not None else []
    if unknown:
        listed = ", ".join(sorted(COMMON | (allowed or frozenset())))
        raise InputError(f"{dataset.source}: unknown option {', '.join(unknown)}; allowed: {listed}")
    for key in ("resize", "crop"):
        if key in common and (not isinstance(common[key], int) or common[key] < 1):
            raise InputError(f"{dataset.source}: {key} must be a positive number of pixels, got {common[key]!r}")
    for key in ("alter_train", "alter_test"):
        for entry in common.get(key, ()):
            alteration(str(entry))
    return common, specific


def _divided(scheme: str, rest: str) -> tuple[str, str]:
    """What follows the scheme, as its path and its options; a file or folder may have "?x=y" in its name."""
    path, mark, query = rest.rpartition("?")
    options = "=" in query or {_key(part) for part in query.split("&")} <= FLAGS
    if not mark or not options or (scheme in LOCAL_SCHEMES and local_path(rest).exists()):
        return rest, ""
    return path, query


def _key(name: str) -> str:
    return name.replace("-", "_")


def _of_catalogue(key: str, value: Any) -> Any:
    """The value of an option in a catalogue: names of columns or splits may be a list, where a SPEC has commas."""
    listed = key in LISTS and isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return ",".join(value) if listed else value


def _value(key: str, text: str) -> int | bool | str | list[str]:
    if key in ("resize", "crop"):
        return int(text) if text.isdecimal() else text
    if key in FLAGS:
        return text.lower() not in ("0", "false", "no")
    return text.split(",") if key.startswith("alter_") else text


def source_at(source: str, request: Request) -> Source:
    """The source that "scheme:rest" stands for.

    Raises:
        UnknownNameError: there is no such scheme. InputError, DataError: as the source raises them.
    """
    scheme, _, rest = source.partition(":")
    if scheme not in SCHEMES:
        raise UnknownNameError("dataset scheme", scheme, SCHEMES, HINT)
    path, _ = _divided(scheme, rest)
    return SCHEMES[scheme][0](replace(request, rest=path))


def loading_rule(dataset: Dataset, common: dict[str, Any], wanted: tuple[int, int] | None) -> Rule:
    """How a dataset brings its own images to their size.

    Args:
        common: its options, as `options_of` gives them. wanted: (height, width) that was asked for.
    """
    resize, crop = common.get("resize"), common.get("crop")
    # The native size needs no resizing, so that both ways of asking for it share one cache entry.
    if wanted == dataset.size and not (dataset.resize or resize or crop):
        wanted = None
    return make_rule(dataset.size if dataset.resize else None, wanted, resize, crop)


def evaluation_rule(
    spec: str, registry: Registry, size: tuple[int, int], wanted: tuple[int, int] | None = None
) -> Rule:
    """How a dataset brings an image of any size to `size` (height, width), without touching its images.

    Args:
        size: that of its own images, after they were loaded. wanted: the size that was asked for then, if one was.
    Raises:
        UnknownNameError, InputError: the SPEC is not known here, or does not suit the size.
    """
    _, dataset = find(spec, registry)
    common, _ = options_of(dataset)
    rule = loading_rule(dataset, common, wanted)
    if rule.out_size() not in (None, size):  # the images of a model that takes another size
        rule = loading_rule(dataset, common, size)
    return replace(transform_rule(transform_of(rule, size)), colours=checked_colours(common, dataset.source))


def earlier_rule(spec: str, registry: Registry, size: tuple[int, int]) -> Rule:
    """How earlier versions brought other images to `size`, such as those that validate: a cut scaled them to it first.

    Raises:
        UnknownNameError, InputError: the SPEC is not known here, or does not suit the size.
    """
    _, dataset = find(spec, registry)
    common, _ = options_of(dataset)
    rule = make_rule(None, size, common.get("resize"), common.get("crop"))
    return replace(rule, colours=checked_colours(common, dataset.source))


def drops_unknown(spec: str, registry: Registry | None) -> bool:
    """Whether images of classes that training or a model does not know are left out: the option `?drop-unknown`."""
    return bool(options_of(find(spec, registry)[1])[0].get("drop_unknown"))


def skips_bad(spec: str, registry: Registry | None) -> bool:
    """Whether a SPEC says that images which cannot be read are left out: the option `?skip_bad`."""
    return bool(options_of(find(spec, registry)[1])[0].get("skip_bad"))


def altered_test(spec: str, registry: Registry) -> tuple[str, ...]:
    """How a dataset alters its test images before they are measured; () where it does not, or is not known here."""
    try:
        common, _ = options_of(find(spec, registry)[1])
    except (UnknownNameError, InputError):  # a dataset of somebody else's catalogue
        return ()
    return tuple(str(name) for name in common.get("alter_test", ()) if name != "original")


def training_images(spec: str, registry: Registry) -> tuple[Any, ...]:
    """What decides the training images of a dataset: its place and all options but those of the test images.

    Raises:
        UnknownNameError, InputError: the SPEC is not known here.
    """
    _, dataset = find(spec, registry)
    common, specific = options_of(dataset)
    scheme, _, rest = dataset.source.partition(":")
    common.pop("alter_test", None)
    return scheme, _divided(scheme, rest)[0], dataset.resize, common, specific
