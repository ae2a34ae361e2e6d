"""The published models: every printed parameter count, to the last digit; each one trains."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zoo.catalogue.registry import Registry, load_registry
from zoo.models.compose import check, compose

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = tomllib.loads((ROOT / "registry.toml").read_text(encoding="utf-8"))
MODELS: dict[str, Any] = CATALOGUE["models"]
PAPERS = [name for name, entry in MODELS.items() if entry.get("published")]
ROWS = [(name, i) for name in PAPERS for i, row in enumerate(MODELS[name]["published"]) if "params" in row]
SIZES = {"cifar10": (32, 10), "cifar100": (32, 100), "stl10": (96, 10), "cifar10-224": (224, 10), "stl10-32": (32, 10)}
SAME = {"stl10-96": "stl10"}
HUGE = 100_000_000
"""Larger ones are run on the meta device only."""


def native(dataset: str) -> dict[str, int]:
    side, classes = SIZES.get(dataset, (32, 10))
    return {"in_channels": 3, "height": side, "width": side, "num_classes": classes}


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def registry() -> Registry:
    return load_registry()


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_a_printed_parameter_count_is_met_to_the_last_digit(registry: Registry, name: str, row: int) -> None:
    model = registry.model(name)
    published = model.published[row]
    sizes = native(published.dataset)
    if published.params_classes:
        sizes["num_classes"] = published.params_classes
    assert parameters(check(model.build, registry, **sizes)) == published.params + published.params_difference


@pytest.mark.parametrize("name", list(MODELS))
def test_the_catalogue_states_the_count_that_is_built(registry: Registry, name: str) -> None:
    model = registry.model(name)
    assert parameters(check(model.build, registry, **native(model.dataset))) == model.parameters


def reference() -> dict[str, Any]:
    file = Path(os.environ.get("ZOO_TEST_REFERENCE", ROOT.parent / "shared" / "reference")) / "published.toml"
    if not file.is_file():
        pytest.skip(f"needs the sources' facts in {file}")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def test_every_published_result_stands_in_the_catalogue() -> None:
    facts = reference()
    for result in facts["results"]:
        entry = MODELS[result["model"]]
        for dataset, fact in ((k, v) for k, v in result.items() if isinstance(v, dict)):
            found = [
                row
                for row in entry["published"]
                if row["dataset"] == SAME.get(dataset, dataset)
                and row.get("source", entry["source"]) == result["source"]
            ]
            assert len(found) == 1, (result["model"], dataset)
            assert {key: found[0].get(key) for key in fact} == fact
            assert found[0].get("pretrained") == result.get("pretrained")


def test_the_sources_stand_in_the_catalogue_as_they_are() -> None:
    assert CATALOGUE["sources"] == reference()["sources"]


@pytest.mark.parametrize("name", PAPERS)
def test_a_published_models_recipe_is_its_sources(registry: Registry, name: str) -> None:
    model = registry.model(name)
    assert registry.recipe(model.recipe).source in {model.source, "mixer-report"}
    assert "paper" in model.tags
    assert model.best in registry.recipes


def test_a_sources_recipe_computes_in_fp32_as_the_source_did(registry: Registry) -> None:
    assert {recipe.precision for recipe in registry.recipes.values() if recipe.source} == {"fp32"}
    assert registry.recipe("mixture-perceiver-47").precision == "fp32"
    assert registry.dataset("digits").adapt["precision"] == "auto", "no source has digits"


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("perceiver", 50),
        ("perceiver-large", 47),
        ("hybrid-joint-perceiver-1", 29),
        ("hybrid-joint-perceiver-2", 27),
        ("hybrid-alt-perceiver-2", 50),
    ],
)
def test_a_perceivers_recipe_has_the_epochs_of_its_row(registry: Registry, name: str, epochs: int) -> None:
    """As many as the curves of the source's repository, CSVs/perceiver_validation_acc.csv, have."""
    model = registry.model(name)
    recipe = registry.recipe(model.recipe)
    assert (recipe.epochs, recipe.lr, recipe.batch_size) == (epochs, 3e-4, 16)
    assert model.published[0].epochs in (None, epochs)


@pytest.mark.parametrize("name", PAPERS)
def test_a_published_model_trains_at_its_native_size(registry: Registry, name: str) -> None:
    model = registry.model(name)
    sizes = native(model.dataset)
    if (model.parameters or 0) > HUGE:
        with torch.device("meta"):
            module = compose(model.build, registry, **sizes)
            assert module(torch.empty(2, 3, sizes["height"], sizes["width"])).shape == (2, 10)
        return
    torch.manual_seed(0)
    module = compose(model.build, registry, **sizes)
    images, labels = torch.rand(2, 3, sizes["height"], sizes["width"]), torch.tensor([0, 1])
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    before = [p.detach().clone() for p in module.parameters()][-1]
    for _ in range(2 if sizes["height"] == 32 else 1):
        loss = F.cross_entropy(module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert not torch.equal(before, list(module.parameters())[-1])


@pytest.mark.parametrize(
    ("size", "layers", "patch", "width", "channel_mlp", "token_mlp", "count"),
    [
        ("S/32", 8, 32, 512, 2048, 256, 19_104_624),
        ("S/16", 8, 16, 512, 2048, 256, 18_528_264),
        ("B/32", 12, 32, 768, 3072, 384, 60_293_428),
        ("B/16", 12, 16, 768, 3072, 384, 59_880_472),
        ("L/32", 24, 32, 1024, 4096, 512, 206_939_264),
        ("L/16", 24, 16, 1024, 4096, 512, 208_196_168),
        ("H/14", 32, 14, 1280, 5120, 640, 432_350_952),
    ],
)
def test_mixer_sizes_have_the_counts_of_the_mixer_table(
    registry: Registry, size: str, layers: int, patch: int, width: int, channel_mlp: int, token_mlp: int, count: int
) -> None:
    node = registry.model(f"mixer-{size.replace('/', '').lower()}").build
    shape = {"depth": layers, "patch": patch, "embed": width, "channel_mlp": channel_mlp, "token_mlp": token_mlp}
    assert {key: node.args[key] for key in shape} == shape
    sizes = {"in_channels": 3, "height": 224, "width": 224, "num_classes": 1000}
    assert parameters(check(node, registry, **sizes)) == count


@pytest.mark.parametrize(
    ("name", "count"), [("vit-b16", 86_567_656), ("vit-l16", 304_326_632), ("vit-h14", 630_764_800 + 1_281_000)]
)
def test_vit_sizes_have_timms_counts(registry: Registry, name: str, count: int) -> None:
    # timm's huge one comes without a head (1280 x 1000 + 1000) by default
    sizes = {"in_channels": 3, "height": 224, "width": 224, "num_classes": 1000}
    assert parameters(check(registry.model(name).build, registry, **sizes)) == count


@pytest.mark.slow
def test_info_counts_every_model_of_the_catalogue_as_it_says() -> None:
    from zoo.catalogue.describe import native_sizes
    from zoo.catalogue.registry import load_registry
    from zoo.models.flops import count, published_counts

    registry = load_registry()
    for name, model in registry.models.items():
        assert count(name, model, registry, native_sizes(model, registry))["parameters"] == model.parameters, name
        for row in published_counts(name, model, registry):
            assert row["difference"] == row["expected_difference"], (name, row)
