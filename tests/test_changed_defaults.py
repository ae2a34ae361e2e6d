"""A plugin changes the default of an argument: runs and packages from before it are still the models that they were."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server.runs import own_caches, untrained_run
from plugin_site import REGISTRY_HOOK, components, site_in

from zoo.catalogue.registry import Registry, load_registry
from zoo.errors import RunError
from zoo.evaluate.classifier import open_classifier
from zoo.evaluate.opened import open_run
from zoo.hub.pack import package
from zoo.hub.package import open_package
from zoo.models.arguments import changed_defaults
from zoo.runs.load import load
from zoo.runs.record import RECORD, configuration, read_record, tree_of
from zoo.train.start import continued, plan_from

NET = """
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, pixels, classes, hidden, slope):
        first = nn.Linear(pixels, hidden)
        super().__init__(nn.Flatten(), first, nn.LeakyReLU(slope or 0.0), nn.Linear(hidden, classes))

def net(
    *, in_channels: int, height: int, width: int, num_classes: int, hidden: int = 8, slope: float | None = None,
    pair: tuple[int, int] = (1, 2), far: float = float("inf"), make=nn.Linear,
):
    assert isinstance(pair, tuple)
    return Net(in_channels * height * width, num_classes, hidden, slope)
"""
MODEL = """
[models.shifty-net]
summary = "a net"
family = "mlp"
recipe = "default"
dataset = "digits"
build = { use = "shifty.net" }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Registry]]:
    """A run and a package of it, and the catalogue with its plugin."""
    folder = tmp_path_factory.mktemp("made")
    site = site_in(folder)
    source = components("net", kind="classifier", factory="{module}_parts:net") + REGISTRY_HOOK
    site.add("shifty", source, parts=NET, toml=MODEL)
    with own_caches(folder), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site.folder))
        run = untrained_run(folder / "run", model="shifty-net", limit_train=64, limit_test=64)
        package(run, folder / "package")
        yield folder, load_registry()


@pytest.fixture
def later(made: tuple[Path, Registry], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Registry]:
    """The same, after the plugin has changed two of its defaults."""
    factory = importlib.import_module("zoo_shifty_parts").net
    monkeypatch.setitem(factory.__kwdefaults__, "hidden", 16)
    monkeypatch.setitem(factory.__kwdefaults__, "slope", 0.5)
    return made


WAYS: dict[str, Callable[[Path, Registry], Any]] = {
    "load": lambda folder, registry: load(folder / "run", registry),
    "predict, serve, export": lambda folder, registry: open_classifier(folder / "run", registry).module,
    "eval": lambda folder, registry: open_run(folder / "run", registry=registry, device="cpu").classifier.module,
    "resume": lambda folder, registry: continued(folder / "run", registry, epochs=500).build(),
    "repeat": lambda folder, registry: plan_from(str(folder / "run"), {}, registry=registry).build(),
    "fine-tune": lambda folder, registry: plan_from(
        str(folder / "run"), {"dataset": "digits"}, registry=registry
    ).build(),
    "load a package": lambda folder, registry: load(folder / "package", registry),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_keeps_the_defaults_that_it_was_made_with(way: str, later: tuple[Path, Registry]) -> None:
    module = WAYS[way](*later)
    assert (module[1].out_features, module[2].negative_slope) == (8, 0.0)


def test_a_package_fits_its_model_after_a_default_has_changed(later: tuple[Path, Registry], tmp_path: Path) -> None:
    folder, registry = later
    assert open_package(folder / "package", registry=registry).config.parameters
    again = package(folder / "run", tmp_path / "again").folder
    for name in ("config.json", "model.safetensors", RECORD):
        assert (again / name).read_bytes() == (folder / "package" / name).read_bytes()


def test_fine_tuning_records_the_defaults_that_it_built_with(later: tuple[Path, Registry]) -> None:
    folder, registry = later
    plan = plan_from(str(folder / "run"), {"dataset": "digits"}, registry=registry)
    assert plan.record.defaults == read_record(folder / "run").defaults
    assert '"hidden":8' in plan.record.defaults["shifty.net"]


def test_what_no_package_may_hold_is_not_recorded(made: tuple[Path, Registry]) -> None:
    recorded = read_record(made[0] / "run").defaults
    assert recorded == {"shifty.net": '{"hidden":8,"slope":null,"pair":[1,2]}'}


def test_a_default_of_an_argument_that_is_gone_is_forgotten(made: tuple[Path, Registry]) -> None:
    def net(*, hidden: int = 8, wide: bool = False) -> None: ...

    assert changed_defaults(net, {"hidden": 8, "wide": 0, "gone": 3, "pair": [1, 2]}) == {}
    assert changed_defaults(net, {"hidden": 4, "gone": 3}) == {"hidden": 4}


def test_a_record_without_defaults_is_read_and_has_the_same_configuration(
    made: tuple[Path, Registry], tmp_path: Path
) -> None:
    folder, registry = made
    old = shutil.copytree(folder / "run", tmp_path / "old")
    (old / RECORD).write_text((old / RECORD).read_text().partition("\n[defaults]")[0] + "\n")
    record = read_record(old)
    assert tree_of(record).defaults == {}
    assert configuration(record) == configuration(read_record(folder / "run"))
    assert torch.equal(load(old, registry)[1].weight, load(folder / "run", registry)[1].weight)


def test_damaged_defaults_are_named(made: tuple[Path, Registry], tmp_path: Path) -> None:
    run = shutil.copytree(made[0] / "run", tmp_path / "run")
    (run / RECORD).write_text((run / RECORD).read_text().replace('{\\"hidden', "{{"))
    with pytest.raises(RunError, match=r"recorded defaults of 'shifty.net' are no JSON table.*damaged"):
        read_record(run)
