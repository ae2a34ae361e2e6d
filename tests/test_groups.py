"""Groups of images that belong together stay on one side of every division that is drawn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from zoo.data.grouped import whole_groups
from zoo.data.split import Split, divided_rows, drawn_test, validation_split
from zoo.data.types import GROUP, VALIDATES, Labels
from zoo.errors import DataError, InputError


def patients(count: int, classes: int, seed: int = 0) -> tuple[Labels, Labels]:
    """Labels and groups of images of patients, who have 1 to 20 images each, mostly of one class."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count) * 7 - 50, rng.integers(1, 21, count))
    usual = rng.integers(0, classes, count).repeat(np.unique(groups, return_counts=True)[1])
    labels = np.where(rng.random(len(groups)) < 0.8, usual, rng.integers(0, classes, len(groups)))
    order = rng.permutation(len(groups))
    return labels[order], groups[order]


def deviation(labels: Labels, held: Labels, share: float) -> float:
    """By how much the shares of the classes that are held out differ from what was wanted, at most."""
    counts = np.bincount(labels[held], minlength=labels.max() + 1) / np.bincount(labels)
    return float(np.abs(counts - share).max())


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_torn_and_the_shares_are_as_near_as_scikit_learn_s(share: float, seed: int) -> None:
    labels, groups = patients(200, 5, seed)
    train, held = validation_split(labels, share, seed, groups=groups)
    assert sorted([*train, *held]) == list(range(len(labels)))
    assert not set(groups[train]) & set(groups[held])
    folds = StratifiedGroupKFold(round(1 / share), shuffle=True, random_state=seed)
    theirs = max(deviation(labels, test, share) for _, test in folds.split(labels, labels, groups))
    assert deviation(labels, held, share) <= max(theirs, 0.015)


def test_the_same_seed_draws_the_same_groups_and_another_one_others() -> None:
    labels, groups = patients(60, 3)
    first = drawn_test(labels, 0, "x", groups)[1]
    assert np.array_equal(first, drawn_test(labels, 0, "x", groups)[1])
    assert not np.array_equal(first, drawn_test(labels, 1, "x", groups)[1])
    renamed = np.unique(groups, return_inverse=True)[1] + 1000
    assert np.array_equal(first, drawn_test(labels, 0, "x", renamed)[1])


def test_a_few_large_groups_are_held_out_whole_and_every_class_keeps_an_image() -> None:
    labels, groups = np.tile([0, 1], 30), np.repeat(range(4), 15)
    train, held = drawn_test(labels, 0, "x", groups)
    assert len(set(groups[held])) == 1
    assert set(labels[train]) == {0, 1}
    alone = whole_groups(np.array([0, 0, 1, 1]), np.array([5, 5, 6, 6]), 2, 0)
    assert not len(alone)


def test_groups_that_hold_whole_classes_are_said() -> None:
    labels, groups = np.repeat([0, 1, 2], 10), np.repeat([0, 1, 2], 10)
    with pytest.raises(DataError, match=r"pets: every group holds all images of a class"):
        drawn_test(labels, 0, "pets", groups)
    with pytest.raises(InputError, match=r"every group of training images holds all images of a class"):
        validation_split(labels, 0.2, 0, groups=groups)


def test_all_altered_copies_of_a_group_stay_together() -> None:
    labels, groups = patients(40, 2)
    split = Split(np.zeros((3 * len(labels), 3, 1, 1), np.uint8), np.tile(labels, 3), 3)
    split = Split(split.images, split.labels, 3, columns={GROUP: np.tile(groups, 3)})
    train, held = divided_rows(split, 0.2, 0)
    assert not set(split.columns[GROUP][train]) & set(split.columns[GROUP][held])
    assert np.array_equal(held[: len(held) // 3] + len(labels), held[len(held) // 3 : 2 * len(held) // 3])


def test_given_validation_images_are_the_validation_split_whatever_their_groups() -> None:
    labels, groups = patients(20, 2)
    given = np.arange(len(labels)) % 5 == 0
    split = Split(np.zeros((len(labels), 3, 1, 1), np.uint8), labels, columns={GROUP: groups, VALIDATES: given})
    train, held = divided_rows(split, 0.5, 0)
    assert np.array_equal(held, np.flatnonzero(given))
    assert np.array_equal(train, np.flatnonzero(~given))


def test_a_hundred_thousand_groups_of_a_thousand_classes_need_no_table_of_all() -> None:
    rng = np.random.default_rng(0)
    groups, labels = rng.integers(0, 100_000, 400_000), rng.integers(0, 1000, 400_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = whole_groups(labels, groups, 40_000, 0)
    assert abs(len(held) - 40_000) < 400
