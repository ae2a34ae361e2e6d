"""Which runs are released: for each model and dataset one, and for every other run the reason why not.

Only run folders and the catalogue are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from zoo.base.paths import local_path
from zoo.base.text import plural
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.weights import AT
from zoo.data.portable import portable_spec
from zoo.errors import InputError
from zoo.hub.ref import parse_ref
from zoo.runs.find import Run, number
from zoo.runs.own_source import refuse_own
from zoo.runs.record import without


class Candidate(NamedTuple):
    """A run that is released as weights of its model for a dataset.

    Attributes:
        dataset: its name in the catalogue. repo: OWNER/NAME-DATASET. named: whether the user named this very run.
    """

    run: Run
    dataset: str
    repo: str
    named: bool

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.run.record.model

    @property
    def name(self) -> str:
        """NAME@DATASET."""
        return f"{self.model}{AT}{self.dataset}"

    @property
    def top1(self) -> float:
        """Recorded top-1 on the test images, a fraction."""
        return float(number(self.run.result, "test.top1") or 0.0)

    @property
    def rank(self) -> tuple[float, float]:
        """What the best of several runs has most of: test images that were measured, then top-1 on them."""
        return number(self.run.result, "test.count") or 0, self.top1


class LeftOut(NamedTuple):
    """A run that is not released, and why."""

    run: Run
    named: bool
    reason: str


class Target(NamedTuple):
    """Where runs are released to.

    Attributes:
        file: the registry file that gets the entries. registry: the catalogue, with this file in it.
        specs: names of datasets of the catalogue to SPECs that stand for the same images.
    """

    owner: str
    file: Path
    registry: Registry
    specs: Mapping[str, tuple[str, ...]]


def target_of(owner: str, file: Path, datasets: Sequence[str]) -> Target:
    """Check and read what a release is asked for.

    Args:
        datasets: NAME=SPEC each.
    Raises:
        InputError: no such file, an owner that the Hub cannot have, or words that are not NAME=SPEC.
        UnknownNameError: no such dataset. SpecError: the file is wrong.
    """
    if "/" in owner or "@" in owner:
        raise InputError(f"--to {owner!r}: expected the name of a user or an organisation on the Hub, without a /")
    parse_ref(f"{owner}/name")
    if not file.is_file():
        raise InputError(
            f"{file}: there is no such registry file; release runs in the folder of your registry.toml, or give "
            "--registry FILE"
        )
    registry = load_registry()
    if not any(_is_same(Path(origin.file), file) for origin in registry.origins.values()):
        registry = load_registry(extra=(file,))
    specs: dict[str, tuple[str, ...]] = {}
    for word in datasets:
        name, mark, spec = word.partition("=")
        if not mark or not spec or ":" in name:
            raise InputError(f"--dataset {word!r}: expected NAME=SPEC, such as cifar10=parquet:data/cifar10")
        registry.dataset(name)
        specs[name] = (*specs.get(name, ()), spec)
    return Target(owner, file, registry, specs)


def _is_same(path: Path, file: Path) -> bool:
    return path.is_file() and path.samefile(file)


def choose(runs: Iterable[Run], named: Collection[Path], target: Target) -> tuple[list[Candidate], list[LeftOut]]:
    """The runs to release, by name of their weights, and all others.

    Args:
        named: the resolved folders of runs that the user named, one by one.
    Raises:
        InputError: two runs were named for the same weights.
    """
    candidates: dict[str, list[Candidate]] = {}
    left_out = []
    for run in runs:
        is_named = run.folder.resolve() in named
        try:
            candidate = _candidate(run, is_named, target)
            candidates.setdefault(candidate.name, []).append(candidate)
        except InputError as error:
            left_out.append(LeftOut(run, is_named, str(error)))
    chosen = []
    for name, group in sorted(candidates.items()):
        best = _best(name, group)
        chosen.append(best)
        left_out += [LeftOut(one.run, one.named, _why_second(best)) for one in group if one is not best]
    return _without_clashes(chosen, left_out)


def _candidate(run: Run, named: bool, target: Target) -> Candidate:
    """The run as weights of a model of the registry file.

    Raises:
        InputError: why it cannot be released.
    """
    record, registry = run.record, target.registry
    if run.state != "finished":
        raise InputError("is being trained" if run.state == "training" else "was not finished")
    if record.data.is_multi_label:
        raise InputError("its images have several labels, and entries of the catalogue state top-1")
    if number(run.result, "test.top1") is None:
        raise InputError("its result has no top-1 on test images")
    refuse_own(run.folder, record)
    _check_model(record.model, record.build, target)
    if record.recipe not in registry.recipes:
        raise InputError(f"its recipe {record.recipe!r} is not in the catalogue, which an entry needs")
    dataset = _dataset_of(record.data.spec, record.data.classes, target)
    if record.protocol != "clean" and not named:
        raise InputError(f"has the protocol {record.protocol!r}, whose epoch was selected on test images; name the run")
    repo = parse_ref(f"{target.owner}/{record.model}-{dataset}").repo
    return Candidate(run, dataset, repo, named)


def _check_model(name: str, build: dict[str, Any], target: Target) -> None:
    """Refuse a model that has no entry in the registry file, or another one than the run's."""
    model = target.registry.models.get(name)
    if model is None:
        raise InputError(f"its model {name!r} has no entry in a registry file")
    file = target.registry.origin("model", name).file
    if not _is_same(Path(file), target.file):
        raise InputError(f"the entry of its model is in {file}; give --registry {quote(str(file))} for it")
    if without(model.build.to_table(), "pretrained") != without(build, "pretrained"):
        raise InputError(f"its model is not the {name!r} that {target.file} has now")


def _dataset_of(spec: str, classes: tuple[str, ...], target: Target) -> str:
    """The name in the catalogue of the images that a run was trained on.

    Raises:
        InputError: they have none, or other classes.
    """
    datasets = target.registry.datasets
    names = [name for name, given in target.specs.items() if any(_is_spec(spec, one) for one in given)]
    names += [spec] if spec in datasets else [n for n, d in datasets.items() if d.source == spec and not d.options]
    if not names:
        named = quote(f"NAME={spec}")
        raise InputError(f"was trained on {spec!r}, which is no dataset of the catalogue; give --dataset {named}")
    if (known := datasets[names[0]].classes) and known != classes:
        raise InputError(f"was trained on {spec!r}, whose classes are not those of the dataset {names[0]!r}")
    return names[0]


def _is_spec(spec: str, given: str) -> bool:
    """Whether a recorded SPEC is the given one, or leads to the same path."""
    return spec in (given, portable_spec(given)) or _resolved(spec) == _resolved(given)


def _resolved(spec: str) -> tuple[str, Path, str]:
    scheme, _, rest = spec.partition(":")
    path, _, options = rest.partition("?")
    return scheme, local_path(path).resolve(), options


def _best(name: str, group: Sequence[Candidate]) -> Candidate:
    """The one that was named, or the best one; of equal ones the first by name.

    Raises:
        InputError: several were named.
    """
    named = [one for one in group if one.named]
    if len(named) > 1:
        raise InputError(
            f"{named[0].run.name} and {named[1].run.name} are both named, and {name} can be one of them; name one"
        )
    return named[0] if named else max(group, key=lambda one: one.rank)


def _why_second(best: Candidate) -> str:
    if best.named:
        return f"{best.run.name} was named for {best.name}"
    images = plural(number(best.run.result, "test.count") or 0, "test image")
    return f"{best.run.name} is the best for {best.name}: top-1 {best.top1:.2%} on {images}"


def _without_clashes(chosen: Sequence[Candidate], left_out: Sequence[LeftOut]) -> tuple[list[Candidate], list[LeftOut]]:
    """Leave out what would be sent to one repository under two names."""
    repos = [one.repo for one in chosen]
    clashing = [one for one in chosen if repos.count(one.repo) > 1]
    others = {one.name: next(o.name for o in clashing if o.repo == one.repo and o is not one) for one in clashing}
    why = [
        LeftOut(one.run, one.named, f"{one.name} and {others[one.name]} would both be {one.repo}; rename a model")
        for one in clashing
    ]
    return [one for one in chosen if one.name not in others], [*left_out, *why]
