"""Making a package from a run folder, as `zoo package` does; see `zoo.hub.package` for what a package holds."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import asdict
from torch import Tensor

from zoo.base.files import sha256_of, write_bytes, write_text
from zoo.base.reporter import callers
from zoo.base.text import one_line
from zoo.catalogue.picture import draw_tree
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import node_from_table
from zoo.data.portable import portable_spec
from zoo.errors import DataError, InputError, PackageError, RunError, ZooWarning
from zoo.evaluate.multi_label import LabelPredictions
from zoo.evaluate.one_pass import Keep
from zoo.evaluate.opened import OpenedSplit, open_run
from zoo.evaluate.pictures import draw_confusion
from zoo.hub import card, runtimes
from zoo.hub.entry import stated_licence
from zoo.hub.eval_results import eval_results
from zoo.hub.known_images import with_known_images
from zoo.hub.package import (
    FORMAT,
    TREE_KEY,
    Config,
    Package,
    check_finite,
    check_model,
    read_description,
    read_package,
    tree_sha256,
)
from zoo.hub.signature import Sign
from zoo.hub.storage import chosen_type, measured_again, narrowed
from zoo.hub.sums import (
    CARD,
    COMPOSITION,
    CONFIG,
    CONFUSION,
    EVAL_RESULTS,
    FOR_PEOPLE,
    SUMS,
    check_size,
    check_sums,
    edited,
    present,
    read_sums,
    write_sums,
)
from zoo.hub.timm_layout import timm_layout
from zoo.models.flops import flops
from zoo.models.header import STORED_KEY, Header, read_header
from zoo.models.precision import Precision
from zoo.models.tensors import to_bytes
from zoo.runs.curves import draw_curves
from zoo.runs.folder import read_metrics, read_result, read_weights, write_result
from zoo.runs.own_source import refuse_own
from zoo.runs.record import METRICS, RECORD, RESULT, WEIGHTS, RunRecord, read_record, without, write_record
from zoo.runs.without_labels import refuse_without_labels
from zoo.runs.without_paths import portable

PACKAGE = "package"
"""The folder in a run's folder that holds its package."""

LICENCE = "apache-2.0"
"""The licence of weights that nobody named another one for."""

PLACEHOLDER = "OWNER/NAME"
"""Stands in the card as long as no repository is known; publishing replaces it."""


class Contents(NamedTuple):
    """What a package is written from: a run that was read, measured and checked, without this machine's paths.

    Attributes:
        weights: as they are stored. counts: the confusion matrix (K, K), or the predictions of images with several
            labels, if they were measured.
        flops: of one image, as `zoo.models.flops` counts.
    """

    source: Path
    record: RunRecord
    result: dict[str, Any]
    config: Config
    header: Header
    weights: Mapping[str, Tensor]
    counts: Tensor | LabelPredictions | None
    flops: int


def package(
    source: Path,
    output: Path,
    *,
    licence: str | None = None,
    data_dir: str | None = None,
    device: str | None = None,
    predictions: bool = True,
    precision: Precision | None = None,
    onnx: bool = False,
    repo: str = PLACEHOLDER,
    registry: Registry | None = None,
    sign: Sign | None = None,
) -> Package:
    """Make a package of a finished run.

    Args:
        source: the run folder. output: the package's folder; an existing package is replaced as a whole.
        licence: the licence of the weights, as the Hub names it; None: that of `source`, if it is a package, of the
            package that is replaced, or of the one in the run's folder, else apache-2.0, with a warning if the weights
            began with those of somebody else.
        predictions: measure the test split again, for `confusion.png` and the table of classes.
        precision: the number type in which parameters are stored, see `zoo.hub.storage`; None: as the run stores them.
        onnx: add what other runtimes read: see `zoo.hub.runtimes`.
        repo: "OWNER/NAME", for the card. registry: the catalogue; loaded if not given.
        sign: signs the package; see `zoo.hub.signature`.
    Returns:
        The package in `output`.
    Raises:
        RunError: the run is unfinished or damaged, or measuring it again gives another number.
        PackageError: the weights are not finite or do not fit, or rounding them loses too many correct images.
        DataError: the test images are not available.
        InputError: `output` holds something else, the run's model is code of the user's own, a precision that is not
            measured, or a library is missing.
        ExportError: the model has no ONNX form, or the file does not agree with it.
    """
    check_output(output)
    if onnx:
        runtimes.check_libraries()
    registry = registry or load_registry()
    record = read_record(source)
    refuse_own(source, record)
    refuse_without_labels(record, str(source))
    result, is_packed = read_result(source), (source / SUMS).is_file()
    stored = chosen_type(source, precision, measured=predictions)
    opened = _opened(source, registry, data_dir, device) if predictions else None
    counts = _seen(source, result, opened) if opened else None
    contents = _contents(source, record, result, counts, registry, stored)
    if opened and stored != "fp32" and "stored" not in result:
        measured = measured_again(source, contents.result, opened, contents.weights, stored, registry, data_dir)
        contents = contents._replace(result=measured[0], counts=measured[1])
    if opened and not is_packed:
        images = with_known_images(record, contents.result, registry, data_dir)
        contents = contents._replace(record=portable(images[0]), result=images[1])
    chosen = licence or _former_licence(source, output) or _first_licence(record)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".zoo-tmp-") as temporary:
        folder = Path(temporary) / "package"
        folder.mkdir()
        hashes = _write(folder, contents, chosen, repo, registry, onnx)
        check_leaks(folder, _ordinary(folder, contents.record, registry, repo))
        config, record = read_description(folder)
        header = read_header(folder / WEIGHTS)
        if sign:
            sign(folder)
        _replace(folder, output)
    return Package(output, hashes, config, record, header)


def check_output(output: Path) -> None:
    """Refuse to replace anything that is not a package, and what somebody has written or drawn in one.

    Raises:
        InputError: `output` is something else, or its card or a picture was edited.
    """
    if output.is_dir() and any(output.iterdir()) and not (output / SUMS).is_file():
        raise InputError(f"--output {output}: already exists and is not a package; choose another folder")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; choose another folder")
    with contextlib.suppress(PackageError):  # a damaged list of hashes: nothing says what was made with the package
        if edits := edited(output, read_sums(output / SUMS)):
            raise InputError(
                f"{output}: {' and '.join(edits)} was edited there, and a new package would replace the edit; move it "
                "away, to put it into the new package, or make that elsewhere (zoo package --output DIR)"
            )


def _former_licence(source: Path, output: Path) -> str | None:
    """The licence of the package that a new one is made of, or takes the place of; None where there is none."""
    formers = [folder for folder in (source, output, source / PACKAGE) if (folder / SUMS).is_file()]
    return next(filter(None, map(stated_licence, formers)), None)


def _first_licence(record: RunRecord) -> str:
    """The licence of weights that nobody named one for.

    Warns:
        ZooWarning: they began with somebody's weights, whose licence may not allow it.
    """
    if record.base_model and not record.base_model.startswith("sha256:"):
        line = (
            f"the weights began with those of {one_line(record.base_model, 120)}, whose licence may hold for them too; "
            f"the package states {LICENCE}, and --licence NAME another one"
        )
        warnings.warn(line, ZooWarning, stacklevel=callers())
    return LICENCE


def copy_with_repo(source: Path, target: Path, repo: str, registry: Registry) -> Package:
    """Copy a package, write its repository into the card, and check the copy; edited prose and pictures stay.

    Args:
        target: a folder that does not exist yet.
    Raises:
        PackageError: a damaged file, a leak, or files that do not fit one another.
        MissingPluginError: it needs a component that is not installed.
    """
    target.mkdir(parents=True)
    hashes = check_sums(source, target=target)
    known = {name: hashes[name] for name in present(target) if name not in FOR_PEOPLE}
    if (target / CARD).is_file():
        write_text(target / CARD, with_repo((target / CARD).read_text("utf-8"), repo))
        check_size(target / CARD)
    hashes = write_sums(target, known)
    package = read_package(target, hashes, registry)
    check_leaks(target, _ordinary(target, package.record, registry, repo))
    return package


def with_repo(text: str, repo: str) -> str:
    """Write the name of its repository into a card, in place of none or of the one that it was published as before."""
    text = text.replace(PLACEHOLDER, repo)
    before = re.search(r"^zoo predict hf://([\w.-]+/[\w.-]+) IMAGE\b", text, re.MULTILINE)
    if before is None or before[1] == repo:
        return text
    # With a commit behind it, the name is that of other weights: those that the run began with, or its teacher's.
    named = rf"(hf://|hf-hub:|https://huggingface\.co/){re.escape(before[1])}(?!\.?[\w@/-])"
    return re.sub(named, rf"\g<1>{repo}", text)


def config_of(record: RunRecord, parameters: int, stored: Precision = "fp32") -> Config:
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
        normalize=bool(record.settings.normalize),
        parameters=parameters,
        plugins=record.plugins,
        defaults=record.defaults,
        stored=msgspec.UNSET if stored == "fp32" else stored,
    )


def check_leaks(folder: Path, ordinary: str = "") -> None:
    """Refuse files that contain the user's token, the path of the home folder or the name of the computer.

    Args:
        ordinary: what the package says on any computer. A computer that is called by one of these words, "digits"
            for example, is not given away by it.
    Raises:
        PackageError: names the file and the kind of secret in it; never the secret itself.
    """
    secrets = list(_secrets(ordinary))
    for name in present(folder):  # SHA256SUMS and the signature have only the names and the hashes of these
        if name == WEIGHTS:
            continue
        data = (folder / name).read_bytes()
        for kind, secret in secrets:
            if secret.search(data):
                raise PackageError(f"{folder / name}: contains {kind}; it must not be published")


def _secrets(ordinary: str) -> Iterator[tuple[str, re.Pattern[bytes]]]:
    """Each kind of secret with what finds it; of six characters at least."""
    from huggingface_hub import get_token

    for token in {get_token() or "", os.environ.get("HF_TOKEN", "")}:
        if len(token) > 5:
            yield "your Hub token", re.compile(re.escape(token.encode(errors="surrogateescape")))
    with contextlib.suppress(RuntimeError):  # there may be no home folder
        if len(home := str(Path.home())) > 5:
            yield "the path of your home folder", _as_word(home)
    host = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    for name in {host, host.partition(".")[0]}:
        if len(name) > 5 and name.lower() not in ordinary.lower():
            yield "the name of this computer", _as_word(name)


def _as_word(text: str) -> re.Pattern[bytes]:
    """Finds a text that is not a part of a longer word or path."""
    return re.compile(rb"(?<![\w.])" + re.escape(os.fsencode(text)) + rb"(?!\w)")


def _ordinary(folder: Path, record: RunRecord, registry: Registry, repo: str) -> str:
    """What a package of this record says on any computer: the card's sentences, names, keys, and the catalogue."""
    keys = _keys([msgspec.to_builtins(record), read_result(folder), *read_metrics(folder)[:1]])
    decides = msgspec.json.encode(msgspec.structs.replace(record, environment={})).decode()
    catalogue = [registry.models, registry.recipes, registry.datasets, registry.sources, registry.components]
    return " ".join([card.sentences(), repo, decides, *keys, *map(str, catalogue)])


def _keys(value: Any) -> Iterator[str]:
    """Every key in nested tables and lists."""
    if isinstance(value, dict):
        yield from map(str, value)
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for item in inside:
        yield from _keys(item)


def _opened(source: Path, registry: Registry, data_dir: str | None, device: str | None) -> OpenedSplit:
    try:
        return open_run(source, data_dir=data_dir, device=device, registry=registry)
    except DataError as error:
        raise DataError(f"{error}; or add --no-predictions for a package without the table of classes") from None


def _seen(source: Path, result: dict[str, Any], opened: OpenedSplit) -> Tensor | LabelPredictions:
    """The confusion matrix of the test images, or the predictions where they have several labels."""
    keep = Keep()
    metrics, labelled = opened.predictions(keep=keep)
    correct, total = metrics.correct, metrics.count
    recorded = result["test"]
    if (correct, total) != (recorded["correct"], recorded["count"]):
        raise RunError(
            f"{source}: {RESULT} says {recorded['correct']} of {recorded['count']} images are correct, but {correct} "
            f"of {total} were measured; a package must give its recorded number again"
        )
    return keep.predictions().confusion() if labelled is None else labelled


def _contents(
    source: Path,
    record: RunRecord,
    result: dict[str, Any],
    counts: Tensor | LabelPredictions | None,
    registry: Registry,
    stored: Precision,
) -> Contents:
    """Check a run's weights against its model, and read them."""
    clean = portable(record)
    result = result | {"dataset": portable_spec(str(result.get("dataset", "")))}
    config, header = config_of(clean, result["parameters"], stored), read_header(source / WEIGHTS)
    module = check_model(config, header, registry, source / WEIGHTS, f"{source / RECORD}: build")
    weights = read_weights(source)
    check_finite(source / WEIGHTS, weights)
    small = narrowed(weights, module, stored, source / WEIGHTS)
    return Contents(source, clean, result, config, header, small, counts, flops(module, asdict(clean.sizes)))


def _write(folder: Path, contents: Contents, licence: str, repo: str, registry: Registry, onnx: bool) -> dict[str, str]:
    """Write every file of a package, and return the sha256 of each."""
    source, record, result, config, header, weights, counts, operations = contents
    write_record(folder, record)
    write_result(folder, result)
    if (source / METRICS).is_file():
        write_bytes(folder / METRICS, (source / METRICS).read_bytes())
        draw_curves(folder)
    _write_weights(folder / WEIGHTS, weights, config)
    layout = timm_layout(record, header, registry)
    table = {"zoo": msgspec.to_builtins(config), **layout}
    if onnx:
        runtimes.write_runtimes(folder, record, registry)
        table |= runtimes.config_keys(config.classes, several=record.data.is_multi_label)
    write_bytes(folder / CONFIG, msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")
    if isinstance(counts, Tensor):
        draw_confusion(folder / CONFUSION, counts, record.data.classes)
    _draw_composition(folder / COMPOSITION, config, registry)
    if text := eval_results(record, result, registry):
        write_text(folder / EVAL_RESULTS, text)
    known = {WEIGHTS: sha256_of(folder / WEIGHTS)}
    said = (record, result, registry, licence, counts, bool(layout), known[WEIGHTS], PLACEHOLDER)
    facts = card.Facts(*said, flops=operations, onnx=onnx)
    write_text(folder / CARD, with_repo(card.render(facts), repo))
    hashes = write_sums(folder, known)
    for name in hashes:
        check_size(folder / name, name)
    return hashes


def _write_weights(path: Path, weights: Mapping[str, Tensor], config: Config) -> None:
    metadata = {"format": "pt", "zoo.format": str(FORMAT), "zoo.model": config.model, TREE_KEY: config.tree_sha256}
    metadata |= {STORED_KEY: config.stored} if config.stored else {}
    write_bytes(path, to_bytes(weights, metadata))


# ---- pictures ---------------------------------------------------------------------------------


def _draw_composition(path: Path, config: Config, registry: Registry) -> None:
    """Draw the tree, and name it in the picture's metadata."""
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
    except BaseException:  # a signal as well: the old one would be deleted with the temporary folder
        if old.exists() and not output.exists():
            os.replace(old, output)
        raise
