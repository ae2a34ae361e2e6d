"""The teacher of a run that is distilled: a trained model by its reference, and whether it suits the student.

A teacher is opened by the one machinery that opens runs, packages and weights of libraries. Its weights stand in no
checkpoint and in no file of the student; the record says which they were.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zoo.base.files import sha256_of
from zoo.base.text import plural
from zoo.catalogue.recipe import Distill, Recipe
from zoo.catalogue.registry import Registry
from zoo.data.portable import portable_spec
from zoo.data.sources.labels import composed
from zoo.errors import InputError, RunError
from zoo.evaluate.classifier import Classifier, open_classifier
from zoo.evaluate.library_weights import LibraryWeights
from zoo.hub.ask_library import meant
from zoo.models.own_module import state_hash
from zoo.runs.record import WEIGHTS, RunRecord, TeacherRecord
from zoo.runs.which import known
from zoo.runs.without_labels import refuse_without_labels
from zoo.train.pinned import folder_of

FROM_FILE = "sha256:"
"""How the origin of weights begins that are nowhere but on one machine."""

SHOWN = 12
"""Digits of a sha256 that messages show."""

MOST_NAMED = 4
"""Classes that a message names."""


@dataclass(frozen=True)
class Teacher:
    """A trained model to learn from.

    Attributes:
        classifier: on the CPU, in eval mode. reference: how a resumed run finds it again. record: which weights it has.
        names: lists of names of its classes; the first are those of the logits.
        columns: which of its logits stands for each class of the student; () where classes do not matter.
    """

    classifier: Classifier
    reference: str
    record: TeacherRecord
    names: tuple[tuple[str, ...], ...]
    columns: tuple[int, ...] = ()

    def note(self) -> str:
        """What people are told about it, a line."""
        size = plural(self.classifier.parameter_count, "parameter")
        return f"teacher {self.record.model}, {size} ({self.record.origin}, sha256 {self.record.sha256[:SHOWN]})"


def distill_of(recipe: Recipe) -> Distill:
    """How the recipe learns from its teacher."""
    return recipe.distill or Distill()


def find_teacher(recipe: Recipe, registry: Registry) -> Teacher | None:
    """Open the teacher that a recipe names; None where it names none.

    Raises:
        InputError: no such run, or weights that exist on another machine only. ZooError: they cannot be loaded.
    """
    word = recipe.teacher
    if word is None:
        return None
    if not word:
        raise InputError("--teacher is empty; give a trained model, or leave it out")
    if word.startswith(FROM_FILE):
        raise InputError(
            f"this run was distilled from weights that are not on the Hub ({word[: len(FROM_FILE) + SHOWN]}); if you "
            "have them, give them with --teacher RUN"
        )
    found = meant(word, registry) if known(word) is None and registry.offers_weights(word) else None
    if isinstance(found, LibraryWeights):
        return _of_library(found, registry)
    folder, origin = folder_of(word, registry)
    classifier = open_classifier(folder, registry)
    record = TeacherRecord(
        model=classifier.name,
        dataset=portable_spec(classifier.dataset),
        origin=origin,
        sha256=sha256_of(folder / WEIGHTS),
    )
    reference = os.path.abspath(folder) if origin.startswith(FROM_FILE) else origin
    return Teacher(classifier, reference, record, (classifier.class_names,))


def _of_library(found: LibraryWeights, registry: Registry) -> Teacher:
    classifier = found.open(registry)
    record = TeacherRecord(model=found.name, origin=found.name, sha256=state_hash(classifier.module))
    return Teacher(classifier, found.name, record, found.names())


def matching(teacher: Teacher, record: RunRecord) -> Teacher:
    """The teacher with its classes brought into the order of a run's.

    Args:
        record: of the run; if it names a teacher's weights, the teacher has to have them.
    Raises:
        RunError: it has other ones. InputError: it does not know a class of the run, or labels images in another way.
    """
    if record.teacher and record.teacher.sha256 != teacher.record.sha256:
        now, then = (sha256[:SHOWN] for sha256 in (teacher.record.sha256, record.teacher.sha256))
        raise RunError(
            f"teacher {record.settings.teacher}: its weights are not those that this run was distilled from (sha256 "
            f"{now} now, {then} then); put those back, or start a new run with --teacher"
        )
    kind = distill_of(record.settings).kind
    if kind == "features":
        return teacher
    whose = f"teacher {record.settings.teacher}"
    refuse_without_labels(teacher.classifier.record, whose)
    if record.data.is_multi_label or teacher.classifier.thresholds:
        several = "the images have" if record.data.is_multi_label else f"{whose} gives an image"
        raise InputError(
            f"distill.kind {kind} compares the probabilities of one class an image, and {several} several labels; "
            "set distill.kind to features"
        )
    return replace(teacher, columns=columns_of(teacher.names, record.data.classes, whose))


def columns_of(names: Sequence[tuple[str, ...]], classes: Sequence[str], whose: str) -> tuple[int, ...]:
    """The place of each class among those of a teacher, by its name, whichever way it spells an accent.

    Args:
        names: lists of names of the teacher's classes; the one that knows most of the classes counts.
    Raises:
        InputError: it does not know a class.
    """
    wanted = [*map(composed, classes)]
    best = max(([*map(composed, row)] for row in names), key=lambda row: len({*row} & {*wanted}))
    counts = Counter(best)
    lacking = [name for name in wanted if counts[name] != 1]
    if lacking:
        shown = ", ".join(lacking[:MOST_NAMED]) + (", ..." if len(lacking) > MOST_NAMED else "")
        its = ", ".join(best[:MOST_NAMED]) + (", ..." if len(best) > MOST_NAMED else "")
        raise InputError(
            f"{whose} does not know {len(lacking)} of {plural(len(classes), 'class')} ({shown}); its own: {its}; give "
            "a teacher of the same classes, or set distill.kind to features, which needs none"
        )
    return tuple(best.index(name) for name in wanted)
