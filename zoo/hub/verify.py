"""Verifying a package, from its hashes to its measured numbers."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import msgspec

from zoo.base.headline import MAP, headline
from zoo.base.quiet_imports import without_advice
from zoo.base.tables import Table
from zoo.base.text import plural, printable
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import TrainedWeights
from zoo.catalogue.weights import find_weights_of
from zoo.data.portable import is_local
from zoo.errors import InputError, PackageError, RunError, VerifyError
from zoo.evaluate.calibration import calibration
from zoo.evaluate.one_pass import Keep
from zoo.evaluate.opened import open_run
from zoo.hub import runtimes
from zoo.hub.download import fetch
from zoo.hub.entry import entry_of, stated_licence
from zoo.hub.eval_results import stated
from zoo.hub.package import TREE_KEY, Config, Package, check_finite, open_package
from zoo.hub.ref import is_ref, parse_ref
from zoo.hub.signature import Trust, check_signature
from zoo.hub.storage import numbers_as_trained
from zoo.hub.sums import CARD, COMPOSITION, EVAL_RESULTS, ONNX, SUMS
from zoo.models.device import usable_device
from zoo.runs.folder import CALIBRATION, read_result, read_weights
from zoo.runs.record import RESULT, WEIGHTS
from zoo.runs.which import folder_of_run, known

OTHER_DEVICE = 0.001
"""Share of the test images whose class may differ on another kind of device."""


class Check(NamedTuple):
    """One thing that was checked, whether it holds, and what was measured or read."""

    name: str
    holds: bool
    seen: str


@dataclass(frozen=True, repr=False)
class Verification:
    """What `zoo.verify` found; it is true where every check holds.

    Attributes:
        source: what was verified. checks: in the order in which they were made.
    """

    source: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether every check holds: the package is what its record says."""
        return self.failed is None

    @property
    def failed(self) -> Check | None:
        """The first check that does not hold; None where all do."""
        return next((check for check in self.checks if not check.holds), None)

    @property
    def table(self) -> Table:
        """The checks, a row each, as `zoo verify --json` prints them: `check`, `holds` and what was `seen`."""
        return Table([{"check": c.name, "holds": c.holds, "seen": c.seen} for c in self.checks])

    def raise_for_difference(self) -> None:
        """Do nothing where every check holds.

        Raises:
            VerifyError: names the first check that does not, and what was seen.
        """
        if failed := self.failed:
            raise VerifyError(f"{self.source}: {failed.name} differs from the record: {failed.seen}")

    def __bool__(self) -> bool:
        """As `holds`, so that `assert zoo.verify(...)` means what it says."""
        return self.holds

    def __repr__(self) -> str:
        """One line, then the checks."""
        return printable(f"Verification of {self.source}: {self._verdict}\n{self.table!r}")

    def _repr_html_(self) -> str:
        """The line, and the checks as a table."""
        return f"<p>{html.escape(f'{self.source}: {self._verdict}')}</p>{self.table._repr_html_()}"

    @property
    def _verdict(self) -> str:
        return "verified" if self.failed is None else f"{self.failed.name} DIFFERS"


def verify(
    source: str,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    device: str | None = None,
    registry: Registry | None = None,
    trust: Trust | None = None,
) -> list[Check]:
    """Hash every file again, rebuild, evaluate on the recorded images, and compare with the record.

    Args:
        source: `hf://OWNER/NAME[@REVISION]`, a package's folder, a run that has its package in it, or NAME@DATASET,
            weights of the catalogue, whose entry is then compared as well.
        dataset: where the images are, for a package made from a dataset of its author's own.
        registry: the catalogue; loaded if not given. trust: who must have signed it.
    Returns:
        The checks, in order; some of them may not hold.
    Raises:
        PackageError, HubError: it is damaged, not signed as it must be, or cannot be fetched.
        InputError: `dataset` is needed.
    """
    registry, checks = registry or load_registry(), []
    found = None if is_ref(source) or known(source) is not None else find_weights_of(source, registry)
    if found is not None:
        source, dataset = found.reference, dataset or found.entry.dataset
    if is_ref(source):
        fetched = fetch(parse_ref(source), everything=True, registry=registry)
        package = fetched.package
        checks.append(Check("commit", True, fetched.pinned))
    else:
        package = open_package(_package_of(source), registry=registry, partial=False)
    folder, config, record = package.folder, package.config, package.record
    edits = package.edited
    checks.append(Check("sha256", True, _hashed(len(package.hashes) - len(edits), edits)))
    if trust:
        checks.append(Check("signature", True, check_signature(folder, trust)))
    stored = f", stored in {config.stored}" if config.stored else ""
    checks.append(Check("model", True, f"{config.parameters:,} parameters{stored}; names, shapes and types fit"))
    check_finite(folder / WEIGHTS, read_weights(folder))
    result = _result(folder)
    checks += [_card(folder, result, CARD in edits), _picture(folder, config, COMPOSITION in edits)]
    checks += [_entry(found.entry, package)] if found else []
    if (folder / EVAL_RESULTS).is_file():
        checks.append(_eval_results(folder / EVAL_RESULTS, result))
    if is_local(record.data.spec) and dataset is None:
        raise InputError(
            f"{source}: was trained on {record.data.spec!r}, a dataset that only its author has; "
            "give the same images with --dataset SPEC"
        )
    chosen = device or usable_device(record.device)
    opened = open_run(folder, data_dir=data_dir, device=chosen, dataset=dataset, registry=registry)
    same_kind = chosen.partition(":")[0] == record.device.partition(":")[0]
    keep = Keep(opened.classifier.temperature)
    checks += _numbers(result["test"], opened.measure(keep=keep).as_dict(), same_kind)
    checks += _calibration(keep)
    if ONNX in package.hashes:
        checks.append(Check("onnx", *runtimes.compare(folder, opened)))
    return checks


def _entry(entry: TrainedWeights, package: Package) -> Check:
    """Check that the catalogue says of these weights what their package says."""
    licence = stated_licence(package.folder) or entry.licence
    packaged = entry_of(package, entry.dataset, entry.where, licence, entry.note)
    packaged = msgspec.structs.replace(packaged, test_images=entry.test_images and packaged.test_images)
    said, found = (msgspec.structs.asdict(msgspec.structs.replace(one, record="")) for one in (entry, packaged))
    differing = [key for key in said if said[key] != found[key]]
    seen = f"differs from the catalogue's entry in {', '.join(differing)}" if differing else "as in the catalogue"
    return Check("catalogue", not differing, f"{entry.where}: {seen}")


def _package_of(source: str) -> Path:
    """The folder of a package, or of the package in a run's folder.

    Raises:
        RunError: the run was trained further, or calibrated, after its package was made.
    """
    folder = folder_of_run(source)
    inside = folder / "package"
    if (folder / SUMS).is_file() or not (inside / SUMS).is_file():
        return folder
    if (folder / RESULT).is_file() and _figures(_result(folder)) != _figures(_result(inside)):
        raise RunError(
            f"{inside}: was made before the run's present result; `zoo package {quote(str(folder))}` makes it "
            f"again, and `zoo verify {quote(str(inside))}` verifies it as it is"
        )
    return inside


def _figures(result: dict[str, Any]) -> tuple[Any, Any]:
    """What a package must have of its run's result: the numbers as trained, and the temperature."""
    return numbers_as_trained(result), result.get(CALIBRATION)


def _hashed(count: int, edits: list[str]) -> str:
    """What the hashes say; prose and pictures are for people, who may have edited them."""
    listed = f"{plural(count, 'file has its hash', 'files have the hashes')} in SHA256SUMS"
    return f"{listed}; edited later: {', '.join(edits)}" if edits else listed


def _result(folder: Path) -> dict[str, Any]:
    try:
        result = read_result(folder)
        test = result["test"]
        numbers = [float(test[key]) for key in (_share_of(test), "loss", "correct", "count")]
        numbers_as_trained(result)
    except (RunError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise PackageError(f"{folder / RESULT}: is damaged: {error}") from None
    if not all(math.isfinite(n) for n in numbers) or not 0 <= numbers[2] <= numbers[3]:
        raise PackageError(f"{folder / RESULT}: has impossible numbers")
    if abs(numbers[0] - numbers[2] / max(numbers[3], 1)) > 1e-9:
        raise PackageError(f"{folder / RESULT}: {_share_of(test)} is not correct / count")
    return result


def _share_of(test: dict[str, Any]) -> str:
    """The key of the share of images that are correct."""
    return "subset_accuracy" if headline(test) == MAP else "top1"


def _card(folder: Path, result: dict[str, Any], was_edited: bool) -> Check:
    """Check that the number on the card is the one in result.json; an edited card may have none."""
    if not (folder / CARD).is_file():
        return Check("card", True, "the package has no card")
    with without_advice():
        from huggingface_hub import ModelCard
    figure = headline(result["test"])
    try:
        card = ModelCard((folder / CARD).read_text("utf-8"), ignore_metadata_errors=True)
        rows = card.data.eval_results or []
        values = [row.metric_value for row in rows if row.metric_name == figure.metric]
    except Exception as error:  # front matter of strangers fails in many ways
        return Check("card", False, f"the front matter cannot be read ({type(error).__name__})")
    if was_edited and not values:
        return Check("card", True, f"was edited, and states no {figure.name}")
    return Check(
        "card",
        values == [result["test"][figure.key]],
        f"the card has {figure.name} {values}, {RESULT} has {result['test'][figure.key]}",
    )


def _eval_results(path: Path, result: dict[str, Any]) -> Check:
    """Check that the number that the Hub's pages show is the one in result.json."""
    try:
        values = stated(path)
    except PackageError as error:
        return Check("eval results", False, str(error))
    top1 = result["test"].get("top1")  # of images with several labels no such file is written
    return Check("eval results", values == [top1], f"{EVAL_RESULTS} has top-1 {values}, {RESULT} has {top1}")


def _picture(folder: Path, config: Config, was_edited: bool) -> Check:
    """Check that the drawing is of this tree, by the hash in its metadata, which an edited picture may lack."""
    from PIL import Image

    if not (folder / COMPOSITION).is_file():
        return Check("picture", True, "the package has no drawing")
    try:
        with Image.open(folder / COMPOSITION, formats=["PNG"]) as image:  # its header, not its pixels
            drawn_sha256 = str(image.info.get(TREE_KEY, ""))
    except Exception as error:  # a stranger's file fails in many ways
        return Check("picture", False, f"{COMPOSITION} cannot be read ({type(error).__name__})")
    if was_edited and not drawn_sha256:
        return Check("picture", True, f"{COMPOSITION} was edited, and names no tree")
    holds = drawn_sha256 == config.tree_sha256
    return Check("picture", holds, f"{COMPOSITION} shows {'this' if holds else 'another'} tree")


def _calibration(keep: Keep) -> list[Check]:
    """What the temperature of a calibrated run does to its test images; `temperature_of` refuses one that is none."""
    if keep.temperature == 1:
        return []
    seen = keep.predictions()
    assert seen.uncalibrated is not None
    before, after = (
        calibration(found, seen.labels, seen.predicted)["ece"] for found in (seen.uncalibrated, seen.probabilities)
    )
    words = f"temperature {keep.temperature:.6g}; ECE of the test images {before:.2%} before it, {after:.2%} after"
    return [Check("calibration", True, words)]


def _numbers(recorded: dict[str, Any], measured: dict[str, Any], same_kind: bool) -> list[Check]:
    allowed = 0 if same_kind else math.ceil(OTHER_DEVICE * measured["count"])
    difference = abs(int(recorded["correct"]) - measured["correct"])
    note = "" if same_kind else f"; {allowed} may differ on another kind of device"
    before, now = (f"{test['correct']} of {test['count']}" for test in (recorded, measured))
    counts = f"recorded {before}, measured {now}{note}"
    close = math.isclose(float(recorded["loss"]), measured["loss"], rel_tol=1e-3, abs_tol=1e-4)
    name = "labels" if "map" in recorded else "top-1"
    checks = [
        Check(name, recorded["count"] == measured["count"] and difference <= allowed, counts),
        Check("loss", close, f"recorded {float(recorded['loss']):.6f}, measured {measured['loss']:.6f}"),
    ]
    if "map" in recorded:
        seen = f"recorded {float(recorded['map']):.6f}, measured {measured['map']:.6f}"
        near = math.isclose(recorded["map"], measured["map"], abs_tol=1e-4 if same_kind else 1e-3)
        checks.append(Check("mAP", near, seen))
    return checks
