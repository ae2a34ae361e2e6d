"""The weights that are installed with the library: what the catalogue says of them is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import zoo
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import WHEEL
from zoo.catalogue.weights import find_weights_of, names_of_weights
from zoo.hub.entry import entry_of
from zoo.hub.package import open_package
from zoo.studies.reproduce.recorded import DIRTY

ROOT = Path(__file__).resolve().parent.parent
MOST_IN_ALL, MOST_OF_ONE = 12_000_000, 4_000_000
"""Bytes."""


def names(dataset: str) -> list[str]:
    """Weights for a dataset that lie beside our registry file."""
    registry = load_registry()
    found = [find_weights_of(name, registry) for name in names_of_weights(registry)]
    return [one.name for one in found if one and one.entry.dataset == dataset and one.entry.where.startswith(WHEEL)]


def test_they_are_small_and_nothing_lies_beside_them() -> None:
    files = [path for path in (ROOT / "weights").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_IN_ALL
    assert max(path.stat().st_size for path in files) <= MOST_OF_ONE
    registry = load_registry()
    entries = [entry.where for model in registry.models.values() for entry in model.weights]
    folders = {f"{WHEEL}{path.relative_to(ROOT)}" for path in (ROOT / "weights").iterdir()}
    assert folders == {where for where in entries if where.startswith(WHEEL)}


@pytest.mark.parametrize("name", [*names("digits"), *names("cifar10")])
def test_an_entry_says_what_its_package_says(name: str) -> None:
    registry = load_registry()
    found = find_weights_of(name, registry)
    assert found is not None
    package = open_package(Path(found.reference), registry=registry, partial=False)
    entry = found.entry
    assert entry == entry_of(package, entry.dataset, entry.where, entry.licence, entry.note)
    assert package.record.model == found.model
    assert package.record.data.spec == entry.dataset
    assert package.edited == []
    assert not package.record.environment["commit"].endswith(DIRTY)


@pytest.mark.parametrize("name", names("digits"))
def test_weights_for_digits_measure_what_they_say(name: str) -> None:
    found = zoo.verify(name)
    assert found.holds, found


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", names("cifar10"))
def test_weights_for_cifar10_measure_what_they_say(name: str, cifar10_parquet: Path) -> None:
    found = zoo.verify(name, dataset=f"parquet:{cifar10_parquet}/plain_text")
    assert found.holds, found


def test_a_photograph_is_classified_without_any_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "seven.png"
    seven = (load_digits().images[7] * (255 / 16)).astype(np.uint8)
    Image.fromarray(seven).resize((64, 64), Image.Resampling.NEAREST).save(path)
    (first, *_), *_ = zoo.load("hybrid-alt-1@digits").predict(path)
    assert first.name == "7"
