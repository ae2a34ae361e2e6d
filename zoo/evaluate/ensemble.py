"""An ensemble: several trained models that answer together, by the mean of their probabilities.

The mean is of probabilities, not of logits, as in deep ensembles: Lakshminarayanan, Pritzel and Blundell, "Simple and
Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017, section 2.4. What stands for its logits
is the logarithm of that mean: its softmax is the mean again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.data.sources.labels import composed
from zoo.data.types import Images, Item
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier, open_classifier
from zoo.evaluate.library_weights import LibraryWeights
from zoo.evaluate.multi_label import LabelPredictions
from zoo.evaluate.one_pass import Keep, Metrics, evaluate
from zoo.evaluate.opened import OpenedSplit, open_run, open_weights
from zoo.evaluate.preparing import ImageTransform, Preprocessing
from zoo.evaluate.temperature import logits_of
from zoo.evaluate.views import cooled
from zoo.models.device import usable_device
from zoo.models.precision import usual_torch
from zoo.runs.images import SplitName
from zoo.runs.record import RunRecord, read_record
from zoo.runs.without_labels import refuse_without_labels


class Ensemble(NamedTuple):
    """What "RUN+RUN" means.

    Attributes:
        members: run folders, packages or weights of a library. names: what they are called.
    """

    members: tuple[Path | LibraryWeights, ...]
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The word that names it."""
        return "+".join(self.names)

    @property
    def has_weights(self) -> bool:
        """Whether weights of a library are among the members."""
        return any(isinstance(member, LibraryWeights) for member in self.members)

    def open(self, registry: Registry, device: str | torch.device | None = None) -> EnsembleClassifier:
        """The models together.

        Raises:
            InputError: they have other classes, or a member's images have several labels. Else as each member's.
        """
        opened = [
            member.open(registry, device)
            if isinstance(member, LibraryWeights)
            else open_classifier(member, registry, device=device)
            for member in self.members
        ]
        for name, one in zip(self.names, opened, strict=True):
            refuse_without_labels(one.record, name)
        with usual_torch():
            return EnsembleClassifier(opened, self.names)


class Mean(nn.Module):
    """The logarithm of the mean of the members' probabilities.

    Args:
        members: each with its normalisation, views and temperature. orders: for each, which of its logits stands for
            the first class of the ensemble, the second, ...; int64 (K,).
        shapes: (C, H, W) of each member's images, where they lie one after another in a row of values; empty where all
            take the same images.
    """

    def __init__(
        self, members: Sequence[Classifier], orders: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shapes = tuple(shapes)
        for number, (member, order) in enumerate(zip(members, orders, strict=True)):
            given, ones = member.preprocessing, torch.ones(member.sizes.in_channels)
            mean, std = (given.mean, given.std) if given.normalize else ((0.0,), (1.0,))
            self.register_buffer(f"mean{number}", (torch.tensor(mean) * ones).view(-1, 1, 1), persistent=False)
            self.register_buffer(f"std{number}", (torch.tensor(std) * ones).view(-1, 1, 1), persistent=False)
            self.register_buffer(f"order{number}", order, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Float (B, C, H, W) in 0..1, or rows (B, N) of all members' images, to (B, K)."""
        logs = []
        for number, (member, part) in enumerate(zip(self.members, self._parts(images), strict=True)):
            assert isinstance(member, Classifier)
            prepared = (part - self.get_buffer(f"mean{number}")) / self.get_buffer(f"std{number}")
            logits = cooled(member.averaged(prepared).float(), member.temperature)
            logs.append(logits[:, self.get_buffer(f"order{number}")].log_softmax(1))
        return mean_of(logs)

    def _parts(self, images: Tensor) -> list[Tensor]:
        """What each member sees of a batch."""
        if not self.shapes:
            return [images] * len(self.members)
        rows = images.split([int(np.prod(shape)) for shape in self.shapes], 1)
        return [row.unflatten(1, shape) for row, shape in zip(rows, self.shapes, strict=True)]


def mean_of(logs: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of probabilities.

    Args:
        logs: of each member the logarithms of its probabilities, float (B, K).
    Returns:
        float (B, K).
    """
    return torch.stack(list(logs)).logsumexp(0) - float(np.log(len(logs)))


class EnsembleClassifier(Classifier):
    """Several classifiers as one; see `zoo.load("RUN+RUN")`.

    Each member sees an image by its own transform and normalisation, over its own views, and with its own temperature;
    classes are matched by name. Where all members bring images to the same size in the same way, it takes prepared
    floats (B, C, H, W) in 0..1, not normalised. Else what `read` gives are rows of the images that each member sees.

    Attributes:
        members: the classifiers.
    """

    members: tuple[Classifier, ...]

    def __init__(self, members: Sequence[Classifier], names: Sequence[str]) -> None:
        first = members[0]
        for member, name in zip(members, names, strict=True):
            _refuse_several_labels(member, name)
        orders = [order_of(first, member, name) for member, name in zip(members, names, strict=True)]
        sizes = [member.sizes for member in members]
        shapes = [(size.in_channels, size.height, size.width) for size in sizes] if see_different(members) else []
        super().__init__(
            name="+".join(dict.fromkeys(member.name for member in members)),
            module=Mean(members, orders, shapes).eval(),
            sizes=first.sizes,
            preprocessing=Preprocessing(first.preprocessing.rule),
            classes=first.classes,
            dataset=first.dataset,
        )
        vars(self)["members"] = tuple(members)  # torch would count their parameters twice

    @property
    def is_mixed(self) -> bool:
        """Whether the members bring images to different sizes, or to theirs in different ways."""
        return bool(self._mean.shapes)

    @property
    def _mean(self) -> Mean:
        assert isinstance(self.module, Mean)
        return self.module

    @property
    def transform(self) -> ImageTransform:
        """As of a classifier.

        Raises:
            InputError: the members see different images.
        """
        self.refuse_mixed("`transform`")
        return super().transform

    def refuse_mixed(self, what: str) -> None:
        """Refuse what needs one image for all members.

        Raises:
            InputError: the members see different images.
        """
        if self.is_mixed:
            raise no_one_image(self.name, what)

    def decode(self, item: Item, where: str) -> Images:
        """Decode one image: uint8 (3, H, W), or one row with the image of each member."""
        if not self.is_mixed:
            return super().decode(item, where)
        return np.concatenate([member.decode(item, where).reshape(-1) for member in self.members])

    def prepare(self, pixels: Images | Tensor) -> Tensor:
        """uint8, as `decode` gives them, to floats in 0..1 on the module's device; each member normalises them."""
        if not self.is_mixed:
            return super().prepare(pixels)
        images = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
        return images.to(self.device).float() / 255

    def _facts(self) -> str:
        return f"ensemble of {plural(len(self.members), 'model')}, {super()._facts()}"


def see_different(members: Sequence[Classifier]) -> bool:
    """Whether classifiers bring images to different sizes, or to theirs in different ways."""
    return len({(member.preprocessing.rule, member.sizes) for member in members}) > 1


def no_one_image(name: str, what: str) -> InputError:
    """The error where `what` needs one image for all members, and they see different ones."""
    return InputError(
        f"{name}: the members of this ensemble bring images to different sizes, or to theirs in different "
        f"ways, and {what} needs one image for all; predict, serve and eval work"
    )


def _refuse_several_labels(member: Classifier, name: str) -> None:
    """Refuse a member whose classes have thresholds.

    Raises:
        InputError: names it, and the way to an ensemble that has thresholds of its own.
    """
    if member.thresholds:
        raise InputError(
            f"{name}: its images have several labels; the thresholds of its classes were chosen for it alone and do "
            "not fit the mean of an ensemble; zoo soup RUN RUN --method ensemble makes one run that has its own"
        )


def order_of(first: Classifier, member: Classifier, name: str) -> Tensor:
    """Where a member has each class of the first.

    Raises:
        InputError: they have other classes, or several classes of one name in another order.
    """
    wanted, own = [*map(composed, first.classes)], [*map(composed, member.classes)]
    if set(wanted) != set(own) or first.sizes.num_classes != member.sizes.num_classes:
        odd = sorted(set(wanted) ^ set(own))[:3]
        which = f" (only one knows {', '.join(odd)})" if odd else ""
        raise InputError(f"{name} has other classes than the first member{which}; an ensemble needs the same ones")
    if wanted == own:  # so that two classes of one name, such as ImageNet's cranes, stay two
        return torch.arange(first.sizes.num_classes)
    if twice := [label for label, count in Counter(wanted).items() if count > 1]:
        raise InputError(
            f"{name} has the classes of the first member in another order, in which several are called {twice[0]!r} "
            "and cannot be told apart; give each class a name of its own"
        )
    places = {label: place for place, label in enumerate(own)}
    return torch.tensor([places[label] for label in wanted])


# ---- measuring -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MixedSplit(OpenedSplit):
    """A split for members that see different images of it.

    Attributes:
        parts: the same images as each member sees them.
    """

    parts: tuple[OpenedSplit, ...] = ()

    def predictions(self, images: Any = None, keep: Keep | None = None) -> tuple[Metrics, LabelPredictions | None]:
        """One pass over the split by each member.

        Raises:
            InputError: other images are asked for.
        """
        if images is not None:
            self._ensemble.refuse_mixed("a measurement of altered images")
        labels = torch.tensor(np.asarray(self.images.labels)).long()
        batches = iter([(torch.arange(len(labels)), self._logits, labels)])
        return evaluate(nn.Identity(), batches, lambda x: x, autocast=nullcontext, keep=keep), None

    @property
    def _ensemble(self) -> EnsembleClassifier:
        assert isinstance(self.classifier, EnsembleClassifier)
        return self.classifier

    @cached_property
    def _logits(self) -> Tensor:
        logs, mean = [], self._ensemble._mean
        for number, part in enumerate(self.parts):
            logits = cooled(logits_of(part)[0], part.classifier.temperature)
            logs.append(logits[:, mean.get_buffer(f"order{number}").cpu()].log_softmax(1))
        return mean_of(logs)


def open_ensemble(
    ensemble: Ensemble,
    registry: Registry,
    *,
    split: SplitName = "test",
    data_dir: str | None = None,
    device: str | None = None,
    dataset: str | None = None,
    on: str | None = None,
) -> OpenedSplit:
    """The images of a split of the first member, or other images, and the ensemble to measure on them.

    Args:
        split, data_dir, device, dataset, on: as for `zoo.evaluate.opened.open_run` and `open_weights`.
    Raises:
        InputError: the members were made for other images, and `on` names none. Else as those.
    """
    if on is None:
        _refuse_other_images(ensemble, split)
    where = device or usable_device(_record(ensemble.members[0]).device if _is_run(ensemble.members[0]) else "auto")
    how: dict[str, Any] = {"split": split, "data_dir": data_dir, "device": where, "dataset": dataset, "on": on}
    first = _opened(ensemble.members[0], registry, how)
    classifier = ensemble.open(registry, where)
    about = (first.record, split, first.images, classifier, on, first.names, first.left_out)
    if not classifier.is_mixed:
        return OpenedSplit(*about)
    parts = [first, *(_opened(member, registry, how) for member in ensemble.members[1:])]
    for part, name in zip(parts, ensemble.names, strict=True):
        _check_labels(first, part, name)
    return MixedSplit(*about, tuple(parts))


def _opened(member: Path | LibraryWeights, registry: Registry, how: dict[str, Any]) -> OpenedSplit:
    if isinstance(member, LibraryWeights):
        return open_weights(member, registry, **how)
    return open_run(member, registry=registry, **how)


def _is_run(member: Path | LibraryWeights) -> bool:
    return isinstance(member, Path)


def _record(member: Path | LibraryWeights) -> RunRecord:
    assert isinstance(member, Path)
    return read_record(member)


def _refuse_other_images(ensemble: Ensemble, split: SplitName) -> None:
    """Refuse to measure on the first member's images what other members may have learnt from.

    Raises:
        InputError: another member was made with another dataset, or (but for test images) divided it otherwise.
    """
    if ensemble.has_weights:
        name = next(n for n, m in zip(ensemble.names, ensemble.members, strict=True) if isinstance(m, LibraryWeights))
        raise InputError(f"{name} is no run: no images of its own are recorded; name some with --on SPEC")
    records = [_record(member) for member in ensemble.members]
    first = records[0].data
    divided = ("validation_fraction", "validation_from", "validation_fingerprint", "limit_train")
    for record, name in zip(records[1:], ensemble.names[1:], strict=True):
        data = record.data
        same = data.fingerprint == first.fingerprint or data.spec == first.spec
        if same and split != "test":
            same = all(getattr(data, key) == getattr(first, key) for key in divided)
        if not same or (split == "test" and data.limit_test != first.limit_test):
            raise InputError(
                f"{name} was made with other images than {ensemble.names[0]} ({data.spec} and {first.spec}), or "
                "divides them otherwise; measure the ensemble on images that none has learnt from: --on SPEC"
            )


def _check_labels(first: OpenedSplit, other: OpenedSplit, name: str) -> None:
    """Refuse images in another order.

    Raises:
        InputError: the classes of the images differ.
    """
    names, others = ([*map(composed, opened.classifier.class_names)] for opened in (first, other))
    known = [names[i] for i in np.asarray(first.images.labels)]
    if known != [others[i] for i in np.asarray(other.images.labels)]:
        raise InputError(f"{name}: its split {first.split} has other images, or another order of them: give --on SPEC")
