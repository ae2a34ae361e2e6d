"""Labels judged by networks that have not seen the images: a run, and runs of its recipe on all folds but one."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from zoo.base.cpus import Neighbours
from zoo.base.files import WriteError, replacing
from zoo.base.paths import cache_dir
from zoo.base.reporter import Reporter
from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.data.grouped import whole_groups
from zoo.data.split import Split
from zoo.data.suspects import LabelNoise
from zoo.data.types import GROUP, Labels
from zoo.errors import InputError, RunError
from zoo.evaluate.classifier import Classifier, open_classifier
from zoo.evaluate.evaluation import check_finite
from zoo.evaluate.label_noise import Judged, Probabilities, suspects_of
from zoo.evaluate.new_images import other_images, taken_by
from zoo.evaluate.one_pass import Keep
from zoo.evaluate.opened import OpenedSplit
from zoo.hub.ask_library import meant
from zoo.models.device import usable_device
from zoo.runs.images import RunImages, images_of
from zoo.runs.record import RunRecord, configuration, read_record
from zoo.runs.without_labels import refuse_without_labels
from zoo.train.call import as_before
from zoo.train.events import Listener, Tick
from zoo.train.plan import Plan
from zoo.train.runner import Watch, train_in
from zoo.train.speed.threads import beside_others
from zoo.train.start import plan_from

FORMAT = 2  # 1: groups were torn apart
"""Of the predictions that are kept: counted up when they are made in another way."""


def judged_labels(
    spec: str,
    run: str,
    registry: Registry,
    *,
    folds: int = 0,
    data_dir: str | None = None,
    device: str | None = None,
    reporter: Reporter,
) -> LabelNoise:
    """Judge the labels of a dataset by a run.

    Args:
        spec: the run's own dataset, of which only images are judged that the run has not learnt from; or another one,
            of which all are. run: a folder, a package, or `hf://OWNER/NAME`.
        folds: so many runs with the run's model and recipe judge its training images, each those that it has not seen;
            0: these images are not judged.
    Raises:
        InputError: weights of a library, images with several labels, or folds of another dataset than the run's.
        RunError: a damaged run, or its dataset has changed since. Else as training.
    """
    folder = meant(run, registry)
    if not isinstance(folder, Path):
        raise InputError(f"{run}: labels are judged by a run with the dataset's classes, not by weights of a library")
    record = read_record(folder)
    refuse_without_labels(record, run)
    if record.data.is_multi_label:
        raise InputError(f"{run}: labels are judged by a run on images with one label; its images have several")
    where = device or usable_device(record.device)
    images = _own_images(record, spec, registry, data_dir)
    if images is None and folds:
        raise InputError(
            f"--folds {folds}: the run was trained on {record.data.spec}, and judges all images of {spec} without it"
        )
    judge = open_classifier(folder, registry, record=record, device=where)
    if images is None:
        taken, sides = taken_by(record, registry), ("train", "test")
        parts = {side: other_images(taken, registry, spec, side, data_dir=data_dir, device=where) for side in sides}
        parts = parts if _differ(parts) else {"all": parts["test"]}
    else:
        parts = {"validation": images.selecting} if images.validation else {}
        parts |= {"test": images.test}
    judged = [Judged(side, split, probabilities_of(judge, split, run)) for side, split in parts.items()]
    left = len(images.train) // images.train.copies if images is not None else 0
    if images is not None and folds:
        jobs = _Folds(folder, images.train, folds, registry, data_dir, where, reporter)
        judged.insert(0, jobs.judged())
        left -= len(judged[0].images)
    counts = {part.split: len(part.images) for part in judged}
    return LabelNoise(run, folds, counts, left, suspects_of(judged, record.data.classes))


def _own_images(record: RunRecord, spec: str, registry: Registry, data_dir: str | None) -> RunImages | None:
    """The run's images as it divides them; None where the SPEC names other ones."""
    try:
        return images_of(record, registry, data_dir=data_dir, dataset=spec)
    except RunError:
        if spec == record.data.spec:
            raise
        return None


def _differ(parts: dict[str, Split]) -> bool:
    """Whether splits are not both the whole of a folder that is not divided."""
    one, other = parts.values()
    return len(one) != len(other) or one.origins()[:1] != other.origins()[:1]


def probabilities_of(judge: Classifier, split: Split, name: str) -> Probabilities:
    """What a network says about each image of a split, float32 (N, K)."""
    keep = Keep(judge.temperature)
    metrics = OpenedSplit(judge.record, "test", split, judge).measure(keep=keep)
    check_finite(name, metrics.loss)
    probabilities: Probabilities = keep.predictions().probabilities.numpy()
    return probabilities


# ---- out of fold -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Folds:
    """Runs of one recipe, each without a fold of the training images.

    Attributes:
        folder: of the run whose model and recipe are trained. train: the images that it learnt from.
    """

    folder: Path
    train: Split
    folds: int
    registry: Registry
    data_dir: str | None
    device: str
    reporter: Reporter

    def judged(self) -> Judged:
        """The training images, each judged by the run that has not seen it.

        Predictions of a fold are kept in the cache, so that a check that was stopped goes on with the next fold.
        """
        given = {"data_dir": self.data_dir, "device": self.device}
        given = {name: value for name, value in given.items() if value is not None}
        neighbours = Neighbours()
        plan = plan_from(str(self.folder), given, self.reporter.progress, self.registry, warn=self.reporter.warn)
        originals = len(self.train) // self.train.copies
        groups = self.train.columns.get(GROUP)
        fold_of = folds_of(self.train.labels[:originals], self.folds, None if groups is None else groups[:originals])
        probabilities = np.zeros((originals, plan.record.sizes.num_classes), np.float32)
        with as_before(self.device):
            plan, line = beside_others(plan, neighbours.busy())
            if line:
                self.reporter.say(line)
            for fold in sorted(set(fold_of.tolist()) - {-1}):
                probabilities[fold_of == fold] = self._kept(plan, fold, fold_of)
        rows = np.flatnonzero(fold_of >= 0)
        return Judged("train", self.train.select(rows), probabilities[rows])

    def _kept(self, plan: Plan, fold: int, fold_of: Labels) -> Probabilities:
        """The predictions for a fold: those of an earlier check, or of a run that is trained now."""
        key = f"{FORMAT} {configuration(plan.record)} {plan.record.data.fingerprint} {self.folds} {fold}"
        path = cache_dir() / "label-noise" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
        rows = np.flatnonzero(fold_of == fold)
        with suppress(OSError, ValueError, EOFError):
            known: Probabilities = np.load(path, allow_pickle=False)
            if len(known) == len(rows):
                return known
        made = self._trained(plan, fold, fold_of)
        with suppress(WriteError), replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, made)
        return made

    def _trained(self, plan: Plan, fold: int, fold_of: Labels) -> Probabilities:
        held_out = np.flatnonzero(fold_of == fold)
        rest = np.flatnonzero(fold_of != fold)
        copies, originals = self.train.copies, len(fold_of)
        spread = np.concatenate([rest + copy * originals for copy in range(copies)])
        test = self.train.select(held_out)
        train = self.train.select(spread, copies)
        data = msgspec.structs.replace(plan.record.data, train=len(train), test=len(test))
        record = msgspec.structs.replace(plan.record, data=data)
        name = f"fold {fold + 1} of {self.folds}"
        self.reporter.say(f"{name}: training on {plural(len(train), 'image')}")
        watch = Watch(listener=_Epochs(name, self.reporter), say=self.reporter.warn)
        with tempfile.TemporaryDirectory(prefix="zoo-fold-") as place:
            train_in(Path(place) / "run", replace(plan, record=record, train=train, test=test), watch)
            judge = open_classifier(Path(place) / "run", plan.registry, record=record, device=self.device)
            return probabilities_of(judge, test, name)


class _Epochs(Listener):
    """Shows how far the training of a fold is."""

    def __init__(self, name: str, reporter: Reporter) -> None:
        self.name, self.reporter = name, reporter

    def tick(self, tick: Tick) -> None:
        """The steps of the whole run."""
        self.reporter.progress(self.name, tick.total_step, tick.total_steps)


def folds_of(labels: Labels, folds: int, groups: Labels | None = None) -> Labels:
    """Divide images into folds, each with its share of every class; always the same ones.

    Args:
        labels: int64 (N,). groups: int64 (N,), the group of each image; groups stay whole.
    Returns:
        int64 (N,): 0..folds-1; -1 for the only image of a class, which no run could learn without it, or for a group
        that holds all images of a class.
    """
    if groups is not None:
        return _whole_folds(labels, folds, groups)
    generator = np.random.default_rng(0)
    fold_of = np.full(len(labels), -1, np.int64)
    start = 0
    for rows in _classes(labels):
        if len(rows) > 1:
            fold_of[generator.permutation(rows)] = (start + np.arange(len(rows))) % folds
            start += len(rows)
    return fold_of


def _whole_folds(labels: Labels, folds: int, groups: Labels) -> Labels:
    """As `folds_of`: each fold is drawn from what the folds before it have left."""
    fold_of = np.full(len(labels), -1, np.int64)
    alone = [groups[rows[0]] for rows in _classes(labels) if len(np.unique(groups[rows])) == 1]
    rest = np.flatnonzero(~np.isin(groups, alone))
    for fold in range(folds - 1):
        drawn = whole_groups(labels[rest], groups[rest], len(rest) // (folds - fold), fold)
        fold_of[rest[drawn]] = fold
        rest = np.delete(rest, drawn)
    fold_of[rest] = folds - 1
    return fold_of


def _classes(labels: Labels) -> Iterator[Labels]:
    for label in np.unique(labels):
        yield np.flatnonzero(labels == label)
