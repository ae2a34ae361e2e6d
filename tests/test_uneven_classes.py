"""Uneven classes: losses, weights of classes, samplers, and the metrics that do not hide a rare class."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_things import plan_with, train
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import load
from zoo.catalogue.augmentation import Mixup
from zoo.catalogue.recipe import Recipe
from zoo.data.augment.pipeline import build
from zoo.data.batches.resident import order
from zoo.data.batches.sampler import appearances, epoch_order
from zoo.data.checks import imbalance_findings
from zoo.data.split import Split
from zoo.data.types import WEIGHT
from zoo.errors import InputError
from zoo.evaluate.one_pass import Metrics, evaluate
from zoo.runs.find import read, row_of
from zoo.runs.folder import read_metrics, read_result, read_weights
from zoo.train.loss import Loss, binary, focal, make_loss, weighed, weights_of_classes
from zoo.train.plan import Plan
from zoo.train.position import Position
from zoo.train.progress_text import best_note, epoch_line, summary
from zoo.train.selection import Selection
from zoo.train.set_loss import SetLoss

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
        count = loss.count(labels)
        assert type(count) is int  # the mean of torch's own kernel, whose sums are in another order
        for targets in (labels, mixed(labels)):
            assert torch.equal(
                loss(logits, targets, count), F.cross_entropy(logits, targets, label_smoothing=smoothing)
            )


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


@pytest.mark.parametrize(("kind", "plain"), [("bce", binary), ("focal", lambda x, t: focal(x, t, 2.0))])
def test_weights_of_classes_weigh_images_in_every_loss(kind: Any, plain: Any) -> None:
    logits, labels = batch()
    loss = make_loss(Recipe(loss=kind, class_weights={"ship": 5.0, "dog": 0.5}), COUNTS, NAMES)
    weights = torch.tensor([1.0, 0.5, 5.0])[labels]
    wanted = (weights * plain(logits, F.one_hot(labels, 3).float())).sum() / weights.sum()
    torch.testing.assert_close(loss(logits, labels, loss.count(labels)), wanted)


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


@pytest.mark.parametrize("recipe", [{}, {"loss": "focal"}, {"loss": "bce"}, {"class_weights": "balanced"}])
def test_an_image_that_is_mixed_from_two_has_the_weights_of_both(recipe: dict[str, Any]) -> None:
    logits, labels = batch()
    weights = torch.arange(24.0)
    loss = make_loss(Recipe(**recipe, label_smoothing=0.1), COUNTS, NAMES)
    own, others = (loss.each(logits, F.one_hot(its, 3).float()) for its in (labels, labels.flip(0)))
    wanted = (0.3 * weights * own + 0.7 * weights.flip(0) * others).sum() / weights.sum()
    one = weighed(labels, (weights,), build((Mixup(),), [0.5], [0.5], size=(8, 8), num_classes=3))
    targets = torch.lerp(one.flip(0), one, 0.3)
    torch.testing.assert_close(loss(logits, targets, weights.sum(), weights), wanted)


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


# ---- the sampler ------------------------------------------------------------------------------------

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 3], [4000, 900, 100]))


@pytest.mark.parametrize(("sampler", "shares"), [("balanced", [1 / 3] * 3), ("sqrt", [0.612, 0.290, 0.097])])
def test_classes_are_drawn_as_often_as_the_sampler_says(sampler: Any, shares: list[float]) -> None:
    numbers = epoch_order(sampler, 5, 2, LABELS)
    rows = (numbers % len(LABELS)).numpy()
    counts = np.bincount(LABELS[rows], minlength=4)
    assert len(numbers) == len(LABELS)
    assert counts[2] == 0
    assert counts[[0, 1, 3]] / len(LABELS) == pytest.approx(shares, abs=0.025)
    within = np.bincount(rows, minlength=len(LABELS))[LABELS == 3]  # each image of a class is as probable as any other
    assert within.var() == pytest.approx(within.mean(), rel=0.5)


def test_an_order_is_a_function_of_seed_and_epoch_and_shuffling_is_as_ever() -> None:
    assert torch.equal(epoch_order("shuffled", 5, 2, LABELS), order(5, 2, len(LABELS)))
    one = epoch_order("balanced", 5, 2, LABELS)
    assert torch.equal(one, epoch_order("balanced", 5, 2, LABELS))
    assert not torch.equal(one, epoch_order("balanced", 5, 3, LABELS))
    assert not torch.equal(one, epoch_order("balanced", 6, 2, LABELS))


def test_an_image_that_comes_again_is_another_sample() -> None:
    numbers = epoch_order("balanced", 0, 0, LABELS)
    assert len(numbers.unique()) == len(numbers)
    assert appearances(torch.tensor([4, 2, 4, 4, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]


# ---- metrics ------------------------------------------------------------------------------------------


def measured(logits: Tensor, labels: Tensor, size: int = 16) -> Metrics:
    rows = torch.arange(len(labels)).split(size)
    batches = ((part, logits[part], labels[part]) for part in rows)
    return evaluate(nn.Identity(), batches, lambda logits: logits, autocast=nullcontext)


@pytest.mark.filterwarnings("ignore:y_pred contains")
@pytest.mark.parametrize("present", [(0, 1, 2, 3, 4, 5, 6), (1, 2, 5)])
def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn(present: tuple[int, ...]) -> None:
    luck = np.random.default_rng(1)
    labels = torch.tensor(luck.choice(present, 90))
    logits = torch.tensor(luck.normal(size=(90, 7)), dtype=torch.float32) + 2 * F.one_hot(labels, 7)
    found, predicted = measured(logits, labels), logits.argmax(1)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    wanted = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(wanted)
    assert found.top1 == pytest.approx(float((predicted == labels).float().mean()))
    assert found.count == 90


def test_a_process_without_an_image_adds_nothing_to_the_counts() -> None:
    logits, labels = batch()
    alone = measured(logits, labels)

    def total(mine: Tensor) -> Tensor:
        assert not mine.any()
        seen: list[Tensor] = []
        evaluate(
            nn.Identity(),
            iter([(labels, logits, labels)]),
            lambda logits: logits,
            autocast=nullcontext,
            total=lambda sums: seen.append(sums) or sums,  # type: ignore[func-returns-value]
        )
        return mine + seen[0]

    found = evaluate(nn.Identity(), iter(()), lambda x: x, autocast=nullcontext, total=total, classes=3)
    assert found.as_dict() == pytest.approx(alone.as_dict())


@pytest.mark.parametrize(
    ("rule", "best"), [("top1", 1), ("balanced-top1", 2), ("macro-f1", 3), ("loss", 4), ("last", 4)]
)
def test_each_rule_keeps_the_epoch_that_is_best_by_it(rule: Any, best: int) -> None:
    epochs = ((1.0, 0.9, 0.1, 0.1), (0.9, 0.8, 0.5, 0.2), (0.8, 0.7, 0.4, 0.6), (0.7, 0.6, 0.3, 0.5))
    selection, at = Selection(Recipe(select=rule)), Position()
    for number, (loss, top1, balanced, f1) in enumerate(epochs, 1):
        at.epoch = number
        selection.is_better(at, Metrics(loss, top1, 1.0, 1, 2, balanced, f1))
    assert at.best_epoch == best


# ---- runs -----------------------------------------------------------------------------------------------

TRAIN = np.repeat([0, 1, 2], [50, 8, 3])
TEST = np.repeat([0, 1, 2], [6, 4, 2])
CLASSES = ("cat", "dog", "ship")


def images(labels: Any, seed: int) -> Any:
    noise = np.random.default_rng(seed).integers(0, 90, (len(labels), 8, 8, 3))
    return (noise + labels[:, None, None, None] * 70).astype(np.uint8)


UNEVEN = {"train": (images(TRAIN, 0), TRAIN), "test": (images(TEST, 1), TEST), "classes": CLASSES}


def plan(**recipe: Any) -> Plan:
    return plan_with("cnn-baseline", dataset=UNEVEN, recipe={"precision": "fp32", **recipe}, batch_size=20)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two epochs: with everything for uneven classes, the same in micro-batches, and one that was stopped."""
    home = tmp_path_factory.mktemp("uneven")
    kept = {"class_weights": {"ship": 9.0, "dog": 2}, "sampler": "sqrt", "select": "macro-f1", "label_smoothing": 0.1}
    train(home / "whole", plan(**kept))
    train(home / "parts", plan(**kept, accumulate=4))
    mixing = {**kept, "class_weights": "balanced", "loss": "bce", "augment": [{"op": "mixup"}, {"op": "cutmix"}]}
    train(home / "mixed", plan(**mixing))
    return {name: home / name for name in ("whole", "parts", "mixed")}


def test_micro_batches_train_as_the_whole_batch_does(trained: dict[str, Path]) -> None:
    whole, parts = (read_metrics(trained[name]) for name in ("whole", "parts"))
    assert [row["train_loss"] for row in parts] == pytest.approx([row["train_loss"] for row in whole], rel=1e-5)
    weights = read_weights(trained["parts"])
    for name, tensor in read_weights(trained["whole"]).items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)


def test_a_run_records_what_it_did_for_uneven_classes_and_what_came_of_it(trained: dict[str, Path]) -> None:
    run = read(trained["whole"])
    assert run.record.settings.class_weights == {"ship": 9.0, "dog": 2.0}
    assert (run.record.settings.sampler, run.record.settings.loss) == ("sqrt", "cross-entropy")
    result = read_result(trained["whole"])
    assert result["selection"]["rule"] == "macro-f1"
    best = max(run.rows, key=lambda row: row["val_macro_f1"])
    assert result["selection"]["epoch"] == best["epoch"]
    rows = [{"epoch": 1, "val_top1": 0.9, "val_macro_f1": 0.2}, {"epoch": 2, "val_top1": 0.8, "val_macro_f1": 0.3}]
    assert row_of(replace(run, rows=rows, result=None))["selected_epoch"] == 2
    for split in ("test", "validation"):
        assert 0 <= result[split]["macro_f1"] <= 1
        assert 0 <= result[split]["balanced_accuracy"] <= 1
    assert all(np.isfinite(row["train_loss"]) for row in read_metrics(trained["mixed"]))


def test_the_measured_loss_is_plain_cross_entropy_whatever_the_loss(trained: dict[str, Path]) -> None:
    classifier = load(trained["mixed"])
    test = plan().test
    logits = classifier.logits(np.array(test.images))
    recorded = read_result(trained["mixed"])["test"]
    assert recorded["loss"] == pytest.approx(float(F.cross_entropy(logits, torch.tensor(TEST))))
    assert recorded["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(TEST, logits.argmax(1)))


def test_a_run_says_how_many_images_its_classes_have_and_what_to_do_where_they_are_uneven() -> None:
    uneven, met = plan(), plan(sampler="balanced")
    assert "training images per class: 3 (ship) to 45 (cat)" in summary(uneven, 1).splitlines()
    said = [finding.message for finding in uneven.findings if finding.kind == "imbalance"]
    assert len(said) == 1
    assert said[0].startswith("training images per class are uneven, 3 (ship) to 45 (cat); ")
    assert all(key in said[0] for key in ("recipe.class_weights", "recipe.sampler", "recipe.loss"))
    assert not [finding for finding in met.findings if finding.kind == "imbalance"]
    even = plan_with("cnn-baseline", dataset="digits", limit_train=100)
    assert "training images per class: 9" in summary(even, 1).splitlines()
    assert not [finding for finding in even.findings if finding.kind == "imbalance"]


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"class_weights": "balanced", "sampler": "balanced"}, "both make up for uneven classes"),
        ({"focal_gamma": 3.0}, "focal_gamma is 3, which cross-entropy has no use for"),
        ({"tta_margin": 0.5}, "tta_margin is 0.5, and there are no views that it could spare; set recipe.tta"),
    ],
)
def test_settings_that_make_no_sense_together_are_pointed_out(recipe: dict[str, Any], said: str) -> None:
    assert [finding for finding in plan(**recipe).findings if said in finding.message]


def test_a_class_that_is_not_there_is_refused_before_there_is_a_run() -> None:
    with pytest.raises(InputError, match="no class is called 'shop'; did you mean ship"):
        plan(class_weights={"shop": 2.0})


def test_what_a_run_selects_by_is_shown() -> None:
    row = {"epoch": 2, "train_loss": 1.0, "val_loss": 1.0, "val_top1": 0.9, "images_per_second": 5.0}
    row |= {"val_balanced_accuracy": 0.5, "val_macro_f1": 0.4}
    assert "val balanced top-1  50.00%" in epoch_line(row, 9, True, "balanced-top1")
    assert "macro" not in epoch_line(row, 9, True, "top1")
    notes = {rule: best_note(row, rule) for rule in ("top1", "balanced-top1", "macro-f1")}
    assert notes == {
        "top1": "best 90.0% (epoch 2)",
        "balanced-top1": "best balanced top-1 50.0% (epoch 2)",
        "macro-f1": "best macro F1 40.0% (epoch 2)",
    }


def test_weights_of_images_may_make_up_for_uneven_classes() -> None:
    labels = np.repeat([0, 1], [40, 4])
    for weights, said in ((np.repeat([1.0, 8.0], [40, 4]), 0), (np.repeat([9.0, 8.0], [40, 4]), 1)):
        split = Split(images(labels, 0), labels, columns={WEIGHT: weights.astype(np.float32)})
        assert len(imbalance_findings(split, ("cat", "dog"), Recipe())) == said


def test_images_of_several_classes_keep_their_own_weight_where_they_are_mixed() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    sets = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0.4, 1, 0.6], [1, 1, 1]])
    weights = torch.tensor([0.5, 2, 0, 1])
    loss = SetLoss("bce")
    each = F.binary_cross_entropy_with_logits(logits, sets, reduction="none").mean(1)
    assert torch.allclose(loss(logits, sets, weights.sum(), weights), (each * weights).sum() / weights.sum())
