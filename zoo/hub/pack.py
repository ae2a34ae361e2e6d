"""From a run folder to a package: what `zoo package` writes (see `zoo.hub.package` for what is in it)."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from zoo.base.files import sha256_of, write_bytes, write_text
from zoo.catalogue.picture import draw_tree
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import node_from_table
from zoo.data.portable import portable_spec
from zoo.errors import DataError, InputError, PackageError, RunError
from zoo.evaluate.opened import confusion_run
from zoo.evaluate.pictures import draw_confusion
from zoo.hub import card
from zoo.hub.package import (
    CARD,
    COMPOSITION,
    CONFIG,
    CONFUSION,
    FORMAT,
    NAMES,
    SUMS,
    TREE_KEY,
    Config,
    check_sums,
    open_package,
    sums_text,
    tree_sha256,
)
from zoo.hub.timm_layout import timm_layout
from zoo.models.header import compare, non_finite, outline, read_header
from zoo.models.tensors import to_bytes
from zoo.runs.curves import draw_curves
from zoo.runs.folder import read_result, read_weights, write_result
from zoo.runs.record import METRICS, RESULT, WEIGHTS, RunRecord, read_record, without, write_record

PLACEHOLDER = "OWNER/NAME"
"""What the card says where no repository is named yet; publishing fills it in."""


def package(
    source: Path,
    output: Path,
    *,
    licence: str = "apache-2.0",
    data_dir: str | None = None,
    device: str | None = None,
    predictions: bool = True,
) -> Path:
    """Make a package of a finished run.

    Args:
        source: the run folder. output: the package's folder; one that is there is replaced as a whole.
        licence: of the weights, as the Hub names it.
        predictions: measure the test split again, for `confusion.png` and the table of classes.
    Returns:
        `output`.
    Raises:
        RunError: the run is not finished, damaged, or does not give its recorded number again.
        PackageError: weights that are not finite or do not fit. DataError: the test images are not here.
        InputError: `output` holds something else.
    """
    check_output(output)
    record, result = read_record(source), read_result(source)
    registry = load_registry()
    counts = _confusion(source, result, data_dir, device) if predictions else None
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".zoo-tmp-") as temporary:
        folder = Path(temporary) / "package"
        folder.mkdir()
        _write(folder, source, record, result, counts, licence, registry)
        write_sums(folder)
        check_leaks(folder)
        open_package(folder, registry=registry)
        _replace(folder, output)
    return output


def check_output(output: Path) -> None:
    """Refuse to replace anything that is not a package.

    Raises:
        InputError: there is something else.
    """
    if output.is_dir() and any(output.iterdir()) and not (output / SUMS).is_file():
        raise InputError(f"--output {output}: is there already and no package; choose another folder")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; choose another folder")


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` over the files that are there."""
    names = [name for name in NAMES if (folder / name).is_file()]
    write_text(folder / SUMS, sums_text({name: sha256_of(folder / name) for name in names}))


def with_repo(folder: Path, target: Path, repo_id: str) -> Path:
    """Copy a package's files, its card naming its repository.

    Raises:
        PackageError: a symbolic link, a damaged file, a leak.
    """
    for name in (*NAMES, SUMS):
        if (folder / name).is_symlink():
            raise PackageError(f"{folder / name}: is a symbolic link; only plain files are sent")
    check_sums(folder)
    target.mkdir(parents=True)
    for name in NAMES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name, follow_symlinks=False)
    if (target / CARD).is_file():
        text = (target / CARD).read_text("utf-8")
        write_text(target / CARD, text.replace(PLACEHOLDER, repo_id))
    write_sums(target)
    check_leaks(target)
    return target


def portable(record: RunRecord) -> RunRecord:
    """The record without the paths of this machine."""
    data = msgspec.structs.replace(record.data, spec=portable_spec(record.data.spec))
    return msgspec.structs.replace(record, data=data)


def config_of(record: RunRecord, parameters: int) -> Config:
    """The table `zoo` of `config.json`."""
    build = without(record.build, "pretrained")
    return Config(
        format=FORMAT,
        model=record.model,
        build=build,
        tree_sha256=tree_sha256(build),
        sizes=record.sizes,
        classes=record.data.classes,
        mean=record.data.mean,
        std=record.data.std,
        normalize=record.settings.normalize,
        parameters=parameters,
        plugins=record.plugins,
    )


def check_leaks(folder: Path) -> None:
    """No token, no home folder and no host name may be in a file that is sent.

    Raises:
        PackageError: names the file, and what kind of thing is in it; never the thing itself.
    """
    for name in (*NAMES, SUMS):
        path = folder / name
        if not path.is_file() or path.suffix == ".safetensors":
            continue
        data = path.read_bytes()
        for kind, secret in _secrets():
            if secret.encode() in data:
                raise PackageError(f"{path}: holds {kind}; it must not be published")


def _secrets() -> list[tuple[str, str]]:
    from huggingface_hub import get_token

    found = [("your Hub token", get_token() or ""), ("your Hub token", os.environ.get("HF_TOKEN", ""))]
    found.append(("the path of your home folder", str(Path.home())))
    host = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    found.append(("the name of this computer", host if len(host) > 5 else ""))
    return [(kind, secret) for kind, secret in found if len(secret) > 5]


def _confusion(source: Path, result: dict[str, Any], data_dir: str | None, device: str | None) -> Tensor:
    try:
        counts = confusion_run(source, data_dir=data_dir, device=device)
    except DataError as error:
        raise DataError(f"{error}; or package without the table of classes: --no-predictions") from None
    correct, total = int(counts.trace()), int(counts.sum())
    recorded = result["test"]
    if (correct, total) != (recorded["correct"], recorded["count"]):
        raise RunError(
            f"{source}: {RESULT} records {recorded['correct']} of {recorded['count']} correct, measured {correct} "
            f"of {total}; a package must give its own number again"
        )
    return counts


def _write(
    folder: Path,
    source: Path,
    record: RunRecord,
    result: dict[str, Any],
    counts: Tensor | None,
    licence: str,
    registry: Registry,
) -> None:
    clean = portable(record)
    result = result | {"dataset": portable_spec(str(result.get("dataset", "")))}
    write_record(folder, clean)
    write_result(folder, result)
    if (source / METRICS).is_file():
        write_bytes(folder / METRICS, (source / METRICS).read_bytes())
        draw_curves(folder)
    config = config_of(clean, result["parameters"])
    _write_weights(folder, source, clean, config, registry)
    layout = timm_layout(clean)
    table = {"zoo": msgspec.to_builtins(config), **layout}
    write_bytes(folder / CONFIG, msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")
    if counts is not None:
        draw_confusion(folder / CONFUSION, counts, clean.data.classes)
    _draw_composition(folder / COMPOSITION, config, registry)
    weights = sha256_of(folder / WEIGHTS)
    facts = card.Facts(clean, result, registry, licence, counts, bool(layout), weights, PLACEHOLDER)
    write_text(folder / CARD, card.render(facts))


def _write_weights(folder: Path, source: Path, record: RunRecord, config: Config, registry: Registry) -> None:
    header = read_header(source / WEIGHTS)
    tree = node_from_table(config.build, "build")
    sizes = msgspec.structs.asdict(record.sizes)
    compare(source / WEIGHTS, header, outline(tree, registry, len(header.tensors), where="build", **sizes))
    weights = read_weights(source)
    if bad := non_finite(weights):
        raise PackageError(
            f"{source / WEIGHTS}: {len(bad)} tensors are not finite, as {bad[0]!r}; not published"
        )
    metadata = {
        "format": "pt",
        "zoo.format": str(FORMAT),
        "zoo.model": record.model,
        TREE_KEY: config.tree_sha256,
    }
    write_bytes(folder / WEIGHTS, to_bytes(weights, metadata))


# ---- timm's layout --------------------------------------------------------------------------


# ---- pictures ---------------------------------------------------------------------------------


def _draw_composition(path: Path, config: Config, registry: Registry) -> None:
    """Draw the tree; the picture's metadata name the tree that it is of."""
    sizes = config.sizes
    draw_tree(
        path,
        node_from_table(config.build, "build"),
        registry.components,
        image=f"image {sizes.in_channels} × {sizes.height} × {sizes.width}",
        logits=f"{sizes.num_classes:,} logits",
        metadata={TREE_KEY: config.tree_sha256},
    )


def _replace(folder: Path, output: Path) -> None:
    old = folder.with_name("old")
    if output.exists():
        os.replace(output, old)
    try:
        os.replace(folder, output)
    except OSError:
        if old.exists():
            os.replace(old, output)
        raise
