"""Uneven classes: losses, weights of classes, samplers, and the metrics that do not hide a rare class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from zoo.catalogue.recipe import Recipe
from zoo.errors import InputError
from zoo.train.loss import Loss, focal, make_loss, weights_of_classes

NAMES, COUNTS = ("cat", "dog", "ship"), (70, 25, 5)


def batch(rows: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(rows, 3, generator=generator), torch.randint(3, (rows,), generator=generator)


def mixed(labels: Tensor, share: float = 0.7) -> Tensor:
    one = F.one_hot(labels, 3).float()
    return torch.lerp(one.flip(0), one, share)


def test_the_default_loss_is_torchs_to_the_bit() -> None:
    logits, labels = batch()
    for smoothing in (0.0, 0.1):
        loss = make_loss(Recipe(label_smoothing=smoothing), COUNTS, NAMES)
        assert loss.count(labels) == 24
        for targets in (labels, mixed(labels)):
            assert torch.equal(loss(logits, targets, 24), F.cross_entropy(logits, targets, label_smoothing=smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_cross_entropy_is_torchs(smoothing: float) -> None:
    logits, labels = batch()
    loss = make_loss(Recipe(class_weights="balanced", label_smoothing=smoothing), COUNTS, NAMES)
    wanted = F.cross_entropy(logits, labels, weight=loss.class_weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss(logits, labels, loss.count(labels)), wanted)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = np.repeat(np.arange(3), COUNTS)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert weights_of_classes(Recipe(class_weights="balanced"), COUNTS, NAMES) == pytest.approx(wanted.tolist())


def test_a_class_without_images_counts_one_and_changes_no_other() -> None:
    assert weights_of_classes(Recipe(class_weights="balanced"), (30, 0, 10), NAMES) == pytest.approx([2 / 3, 1, 2])


def test_focal_without_gamma_is_cross_entropy_and_with_gamma_the_papers() -> None:
    logits, labels = batch()
    targets = F.one_hot(labels, 3).float()
    torch.testing.assert_close(focal(logits, targets, 0.0), F.cross_entropy(logits, labels, reduction="none"))
    p = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(focal(logits, targets, 2.0), -((1 - p) ** 2) * p.log())


def test_focal_has_a_gradient_where_the_model_is_sure() -> None:
    logits = torch.tensor([[80.0, -80.0, 0.0]], requires_grad=True)
    focal(logits, torch.tensor([[1.0, 0.0, 0.0]]), 0.5).sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_binary_cross_entropy_is_timms(smoothing: float, soft: bool) -> None:
    from timm.loss import BinaryCrossEntropy

    logits, labels = batch()
    targets = mixed(labels) if soft else labels
    ours = make_loss(Recipe(loss="bce", label_smoothing=smoothing), COUNTS, NAMES)(logits, targets, 24)
    smooth = targets * (1 - smoothing) + smoothing / 3 if soft else targets  # timm's mixup smooths, not its loss
    torch.testing.assert_close(ours, BinaryCrossEntropy(smoothing=smoothing)(logits, smooth))


@pytest.mark.parametrize("kind", ["cross-entropy", "focal", "bce"])
@pytest.mark.parametrize("soft", [False, True])
def test_micro_batches_together_are_the_whole_batch(kind: str, soft: bool) -> None:
    logits, labels = batch()
    loss = make_loss(Recipe(loss=kind, class_weights="balanced", label_smoothing=0.1), COUNTS, NAMES)
    halves = torch.cat((torch.arange(5), torch.arange(19, 24))), torch.arange(5, 19)  # rows beside their mirror images
    targets = mixed(labels) if soft else labels
    whole = loss.count(labels)
    parts = [loss(logits[rows], targets[rows], loss.count(labels[rows])) * loss.count(labels[rows]) for rows in halves]
    torch.testing.assert_close(sum(parts) / whole, loss(logits, targets, whole))


def test_the_weights_of_a_mixed_batch_add_up_to_those_of_its_labels() -> None:
    _, labels = batch()
    loss = make_loss(Recipe(class_weights="balanced"), COUNTS, NAMES)
    torch.testing.assert_close((mixed(labels) @ loss.class_weights).sum(), loss.count(labels))


def test_images_have_weights_of_their_own() -> None:
    logits, labels = batch()
    each, weights = F.cross_entropy(logits, labels, reduction="none"), torch.arange(24.0)
    loss = Loss()
    wanted = (each * weights).sum() / weights.sum()
    torch.testing.assert_close(loss(logits, labels, loss.count(labels, weights), weights), wanted)
    nothing = torch.zeros(24)
    assert loss(logits, labels, loss.count(labels, nothing), nothing) == 0


@pytest.mark.parametrize(
    ("given", "wanted"), [({"ship": 9}, [1, 1, 9]), ({"2": 9, "cat": 0.5}, [0.5, 1, 9]), ({"dog": 0}, [1, 0, 1])]
)
def test_a_table_weighs_classes_by_name_or_number(given: dict[str, float], wanted: list[float]) -> None:
    assert weights_of_classes(Recipe(class_weights=given), COUNTS, NAMES) == wanted


@pytest.mark.parametrize(
    ("given", "names", "said"),
    [
        ({"shop": 2.0}, NAMES, "no class is called 'shop'; did you mean ship?"),
        ({"3": 2.0}, NAMES, "no class is called '3'; allowed: cat, dog, ship, or numbers from 0 to 2"),
        ({"0": 2.0}, ("1", "2", "3"), "no class is called '0'; allowed: 1, 2, 3"),
        ({"ship": 2.0, "2": 3.0}, NAMES, "'ship' and '2' are the same class"),
        ({"ship": float("inf")}, NAMES, "'ship' counts inf; give a finite number"),
        ({"ship": float("nan")}, NAMES, "'ship' counts nan; give a finite number"),
        ({"cat": 0.0, "dog": 0.0, "ship": 0.0}, NAMES, "every class with training images counts 0"),
    ],
)
def test_weights_that_cannot_be_are_refused_in_a_line(
    given: dict[str, float], names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError) as error:
        weights_of_classes(Recipe(class_weights=given), COUNTS, names)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
