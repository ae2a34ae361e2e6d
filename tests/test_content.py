"""A dataset is known by its images, whatever their order and whatever files they came in."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.catalogue.registry import load_registry
from zoo.data.content import content_sha256
from zoo.data.load import load
from zoo.data.split import Split

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def split() -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (9, 3, 4, 5), np.uint8)
    return Split(images, np.arange(9, dtype=np.int64) % 3)


def test_the_order_of_images_and_of_classes_changes_nothing(split: Split) -> None:
    rows = np.random.default_rng(1).permutation(9)
    assert content_sha256(split.select(rows), CLASSES) == content_sha256(split, CLASSES)
    renumbered = Split(split.images, 2 - split.labels)
    assert content_sha256(renumbered, CLASSES[::-1]) == content_sha256(split, CLASSES)


def test_a_pixel_a_label_a_size_and_a_repeated_image_change_it(split: Split) -> None:
    images, labels = np.array(split.images), np.array(split.labels)
    images[4, 1, 2, 3] ^= 1
    labels[0] = 1
    others = [
        Split(images, split.labels),
        Split(split.images, labels),
        Split(np.asarray(split.images).reshape(9, 3, 5, 4), split.labels),
        split.select(np.array([0, 0, *range(1, 9)])),
        split.select(np.arange(8)),
    ]
    assert len({content_sha256(one, CLASSES) for one in (split, *others)}) == len(others) + 1


@pytest.mark.slow  # sixty thousand images are decoded
def test_the_lossless_copy_of_cifar10_has_the_images_that_the_catalogue_names(cifar10_parquet) -> None:
    registry = load_registry()
    data = load(f"parquet:{cifar10_parquet}/plain_text", registry)
    assert content_sha256(data.test, data.classes) == registry.datasets["cifar10"].sha256["test"]
