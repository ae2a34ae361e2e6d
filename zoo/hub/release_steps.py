"""The steps by which one run is released: its package, the repository on the Hub, the entry in the registry file.

Each step looks at what is there already, and does only what is missing, so that a release that was killed goes on where
it stopped: a package is a whole folder or none, a repository has its one commit or none, and an entry is written last.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec

from zoo.base.files import TEMPORARY
from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.catalogue.registry_edit import check_room, weights_in, write_weights
from zoo.catalogue.spec import HUB, WHEEL, TrainedWeights
from zoo.errors import HubNotFoundError, InputError, PackageError, RunError
from zoo.hub.download import Manifest, ask
from zoo.hub.entry import entry_of, entry_text, licence_of, stated_licence
from zoo.hub.hub_hash import matches
from zoo.hub.pack import PACKAGE, check_output
from zoo.hub.pack import package as make_package
from zoo.hub.package import Package, open_package, read_config
from zoo.hub.publish import Plan, prepare
from zoo.hub.publish import publish as send
from zoo.hub.ref import COMMIT, Ref, parse_ref
from zoo.hub.release_choice import Candidate, Target
from zoo.hub.session import hub_api, retrying, talking
from zoo.hub.sums import CONFIG, FOR_PEOPLE, ONNX, SIGNATURE, SUMS
from zoo.runs.folder import CALIBRATION, read_result
from zoo.runs.record import WEIGHTS, RunRecord, configuration
from zoo.runs.without_paths import portable

DECIDES = ("selection", "train", CALIBRATION)
"""Tables of a result by which a package is known as that of the run's present result; `test` may be of weights that are
stored in another number type."""

NAME_IT = "name the run to release it instead"

FEWER = 0.8
"""Of the test images of an entry: a run that was measured on less than this share does not replace it unasked."""

UNKNOWN = "0" * 40
"""Stands for the commit in an entry that is only tried out."""


class Options(NamedTuple):
    """How runs are released.

    Attributes:
        licence: None: apache-2.0 for a package that is made, and its own for one that is there.
        packaging: further options of `zoo.hub.pack.package`, for packages that are made.
    """

    licence: str | None
    packaging: Mapping[str, Any]
    private: bool = False
    dry_run: bool = False


class Outcome(NamedTuple):
    """What was done with a run, or would be; the fields are those of `zoo.hub.released.Release.rows`."""

    state: str
    steps: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0
    reference: str = ""
    reason: str = ""
    top1: float | None = None


def release_run(candidate: Candidate, target: Target, options: Options) -> Outcome:
    """Do what is missing of the release of one run, or say what would be done.

    Raises:
        ZooError: a step failed. What was done before stays, and the same call goes on with it.
    """
    entry = weights_in(target.file, candidate.model).get(candidate.dataset)
    if why := _why_not_packaged(candidate, entry, target.registry):
        return Outcome("left out", reason=why)
    with _package_of(candidate, target.registry, options) as (package, steps):
        sha256 = package.hashes[WEIGHTS]
        is_known = entry is not None and entry.sha256 == sha256 and _has_licence(entry, package, options.licence)
        top1 = float(read_result(package.folder)["test"]["top1"])  # of the weights as they are stored
        if entry is not None and is_known and (reference := _on_the_hub(entry, candidate.repo, package)):
            return Outcome("present", reference=reference, top1=top1)
        if why := _why_kept(candidate, entry, package):
            return Outcome("left out", reason=why)
        if (package.folder / SIGNATURE).is_file():
            run = quote(str(candidate.run.folder))
            raise InputError(
                "its package is signed, and is another one once its card names the repository; publish it by `zoo "
                f"publish {run} {candidate.repo} --sign KEYFILE`, or delete {SIGNATURE} in the package"
            )
        with TemporaryDirectory(prefix="zoo-release-") as temporary:
            plan = prepare(package.folder, Ref(candidate.repo), Path(temporary), registry=target.registry)
            return _released(candidate, target, options, plan, entry, steps)._replace(top1=top1)


def _released(
    candidate: Candidate,
    target: Target,
    options: Options,
    plan: Plan,
    entry: TrainedWeights | None,
    steps: tuple[str, ...],
) -> Outcome:
    """Publish what was prepared, and write its entry."""
    ref, name = Ref(candidate.repo), candidate.model
    stays = entry is not None and entry.where.startswith(WHEEL)  # these weights, installed with the registry file
    licence = licence_of(plan.package, options.licence)
    if not stays:
        check_room(target.file, name, _block(candidate, plan, licence, UNKNOWN))
    head = _manifest(ref)
    is_there = head is not None and _holds(head, plan)
    sent = (0, 0) if is_there else (len(plan.files), sum(size for _, size in plan.files))
    steps = (*steps, *([] if is_there else ["publish"]), *([] if stays else ["entry"]))
    if options.dry_run:
        return Outcome("planned", steps, *sent)
    commit = _tagged(head, plan) if head is not None and is_there else send(plan, ref, private=options.private).commit
    if not stays:
        write_weights(target.file, name, _block(candidate, plan, licence, commit))
    return Outcome("released", steps, *sent, reference=str(Ref(candidate.repo, commit)))


# ---- the package -------------------------------------------------------------------------------------


@contextmanager
def _package_of(
    candidate: Candidate, registry: Registry, options: Options
) -> Iterator[tuple[Package, tuple[str, ...]]]:
    """The package of a run, and the step that made it: one that is there, or a new one beside the run's files.

    By a dry run it is made in a temporary folder.
    """
    folder = candidate.run.folder
    package, asked = _present_package(candidate, registry), options.packaging.get("precision")
    if package is not None and asked in (None, package.config.stored or "fp32"):
        yield package, ()
        return
    making = {**options.packaging, **_kept(folder, options), "registry": registry}
    if options.dry_run:
        check_output(folder / PACKAGE)  # an edited card, which would stop the release itself
        with TemporaryDirectory(prefix="zoo-release-") as temporary:
            yield make_package(folder, Path(temporary) / PACKAGE, **making), ("package",)
        return
    for left_behind in folder.glob(f"{TEMPORARY}*"):  # by a process that was killed
        if left_behind.is_dir():
            shutil.rmtree(left_behind)
    yield make_package(folder, folder / PACKAGE, **making), ("package",)


def _kept(folder: Path, options: Options) -> dict[str, Any]:
    """What a new package of a run has from the one that it replaces: licence, number type, files for other runtimes."""
    former = folder if (folder / SUMS).is_file() else folder / PACKAGE
    stored = read_config(former / CONFIG).stored or None if (former / SUMS).is_file() else None
    return {
        "licence": options.licence or stated_licence(former),
        "precision": options.packaging.get("precision") or stored,
        "onnx": (former / ONNX).is_file(),
    }


def _present_package(candidate: Candidate, registry: Registry) -> Package | None:
    """The package of the run's present result, if there is one.

    Raises:
        PackageError: it is damaged.
    """
    run = candidate.run
    if (run.folder / SUMS).is_file():
        return open_package(run.folder, registry=registry, partial=False)
    folder = run.folder / PACKAGE
    if not (folder / SUMS).is_file():
        return None
    try:
        package = open_package(folder, registry=registry, partial=True)
        if not _is_of(package, run.record, run.result or {}):
            return None  # its card may have been moved away, as `check_output` advises
        if missing := [name for name in package.hashes if not (folder / name).is_file()]:
            raise PackageError(f"{folder}: has no {missing[0]}, which its {SUMS} lists")
    except PackageError as error:
        raise PackageError(f"{error}; `zoo package {quote(str(run.folder))}` makes it again") from None
    return package


def _is_of(package: Package, record: RunRecord, result: Mapping[str, Any]) -> bool:
    """Whether a package was made of this run, since it has this result."""
    try:
        packaged = read_result(package.folder)
    except RunError:
        return False
    same_result = all(packaged.get(key) == result.get(key) for key in DECIDES)
    return same_result and configuration(_anywhere(package.record)) == configuration(_anywhere(portable(record)))


def _anywhere(record: RunRecord) -> RunRecord:
    """A record without the name of its dataset: a package may have the catalogue's; the images have a fingerprint."""
    return msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, spec=""))


# ---- the entry ---------------------------------------------------------------------------------------


def _why_not_packaged(candidate: Candidate, entry: TrainedWeights | None, registry: Registry) -> str:
    """Why a run is not even packaged: the registry file has better weights; "" if it is."""
    if entry is None or candidate.named:
        return ""
    measured, of = candidate.rank[0], _count_of(entry)
    if measured < FEWER * of:
        about = "" if entry.test_images else "about "
        return (
            f"the registry file has weights that were measured on {about}{plural(round(of), 'test image')}, "
            f"and these on {plural(round(measured), 'test image')}; {NAME_IT}"
        )
    if candidate.top1 >= entry.top1:
        return ""
    present = _present_package(candidate, registry)
    if present is not None and present.hashes[WEIGHTS] == entry.sha256:
        return ""
    return _better(entry, candidate.top1)


def _has_licence(entry: TrainedWeights, package: Package, asked: str | None) -> bool:
    """Whether an entry names the licence that its weights are released under now.

    Raises:
        InputError: as `licence_of`.
    """
    if entry.where.startswith(WHEEL) or not (asked or stated_licence(package.folder)):
        return True  # such an entry is never changed; and where nothing is stated, the entry says it
    return licence_of(package, asked) == entry.licence


def _why_kept(candidate: Candidate, entry: TrainedWeights | None, package: Package) -> str:
    """Why the entry that the registry file has is not replaced by one of a package; "" if it is."""
    if entry is None or entry.sha256 == package.hashes[WEIGHTS]:
        return ""
    if entry.where.startswith(WHEEL):
        return f"the registry file has other weights beside it ({entry.where}); remove their entry to release these"
    top1 = float(read_result(package.folder)["test"]["top1"])
    return "" if candidate.named or top1 > entry.top1 else _better(entry, top1)


def _count_of(entry: TrainedWeights) -> float:
    """On how many test images the accuracy of an entry was measured; 0: not known.

    Where an earlier version wrote the entry, its interval says about how many: Wilson's half width h at top-1 p gives
    (1/4 - h^2) a^2 + (p (1 - p) - 2 h^2) a = h^2 for a = 1.96^2 / n.
    """
    if entry.test_images:
        return entry.test_images
    half = (entry.interval[1] - entry.interval[0]) / 2
    if not 0 < half < 0.5:
        return 0.0
    linear, square = entry.top1 * (1 - entry.top1) - 2 * half**2, 0.25 - half**2
    return 1.96**2 * 2 * square / (sqrt(linear**2 + 4 * square * half**2) - linear)


def _better(entry: TrainedWeights, top1: float) -> str:
    return f"the registry file has weights with top-1 {entry.top1:.2%}, and these have {top1:.2%}; {NAME_IT}"


def _block(candidate: Candidate, plan: Plan, licence: str, commit: str) -> str:
    """The entry as TOML."""
    data = candidate.run.record.data
    parts = [f"trained on {plural(data.train, 'image')}"] if data.limit_train else []
    parts += [f"measured on {plural(data.test, 'image')}"] if data.limit_test else []
    where = f"{HUB}{candidate.repo}@{commit}"
    return entry_text(candidate.model, entry_of(plan.package, candidate.dataset, where, licence, ", ".join(parts)))


# ---- the Hub -----------------------------------------------------------------------------------------


def _on_the_hub(entry: TrainedWeights, repo: str, package: Package) -> str:
    """The reference of a repository's commit with all that a package has besides prose and pictures; "" for none.

    For weights beside the registry file, that is its newest commit.
    """
    ref = parse_ref(entry.where) if entry.where.startswith(HUB) else Ref(repo)
    if ref.repo != repo:
        return ""
    found = _manifest(ref)
    names = [name for name in package.hashes if name not in FOR_PEOPLE]
    held = found is not None and _has_files(found, package.folder, names)
    return str(Ref(repo, found.commit)) if found is not None and held else ""


def _manifest(ref: Ref) -> Manifest | None:
    """What the Hub states about a repository's revision; None where there is none.

    Raises:
        HubError: or a subclass: the Hub cannot be asked.
    """
    try:
        with talking(str(ref)):
            return ask(ref)
    except HubNotFoundError:
        return None


def _tagged(head: Manifest, plan: Plan) -> str:
    """The commit that a repository has already, with its tag, which a process that was killed may not have set."""
    with talking(head.repo):
        retrying(lambda: hub_api().create_tag(head.repo, tag=plan.tag, revision=head.commit, exist_ok=True))
    return head.commit


def _holds(head: Manifest, plan: Plan) -> bool:
    """Whether a repository has the plan's files already; the card and pictures may have been edited there."""
    names = [name for name, _ in plan.files if name not in FOR_PEOPLE]
    return _has_files(head, plan.package.folder, names) and COMMIT.fullmatch(head.commit) is not None


def _has_files(head: Manifest, folder: Path, names: Iterable[str]) -> bool:
    """Whether a commit has files of a folder, to the last bit."""
    return all(name in head.files and matches(folder / name, head.files[name]) for name in names)
