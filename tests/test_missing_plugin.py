"""A run or package whose plugin is missing: every way to open it names the plugin, and what to do."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hub_server.runs import own_caches, untrained_run
from plugin_site import site_in

from zoo.catalogue.registry import Registry, load_registry
from zoo.errors import MissingPluginError
from zoo.evaluate.classifier import open_classifier
from zoo.evaluate.opened import open_run
from zoo.runs.load import load
from zoo.runs.record import RECORD
from zoo.train.start import continued, plan_from

WAYS: dict[str, Callable[[Path, Registry], Any]] = {
    "load": load,
    "predict, serve, export": open_classifier,
    "eval": lambda run, registry: open_run(run, registry=registry),
    "resume": lambda run, registry: continued(run, registry, epochs=500),
    "repeat": lambda run, registry: plan_from(str(run), {}, registry=registry),
    "fine-tune": lambda run, registry: plan_from(str(run), {"dataset": "digits"}, registry=registry),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with own_caches(folder):
        return untrained_run(folder / "run", limit_train=64, limit_test=64)


def changed(made: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(made, folder)
    table = tomllib.loads((folder / RECORD).read_text())
    table["data"]["spec"] = changes.pop("spec", table["data"]["spec"])
    (folder / RECORD).write_text(tomli_w.dumps(table | changes))
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The catalogue, with the plugin `lost` left out."""
    site = site_in(tmp_path_factory.mktemp("site"))
    site.add("lost", "raise RuntimeError('no licence file')")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site.folder))
        return load_registry()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("use", "origin", "advice"),
    [
        ("quantum.net", "zoo-quantum 1.2.0", "is not installed; if you trust it: pip install zoo-quantum==1.2.0"),
        ("quantum.net", "zoo-quantum 1.2.0 (editable folder)", "it came from its author's editable folder"),
        ("quantum.net", "zoo-lost 1.0", "plugin 'lost' is left out: RuntimeError: no licence file"),
        ("lost.net", "", "plugin 'lost' is left out: RuntimeError: no licence file"),
    ],
)
def test_each_way_to_open_a_run_names_its_missing_plugin(
    way: str, use: str, origin: str, advice: str, made: Path, registry: Registry, tmp_path: Path
) -> None:
    run = changed(made, tmp_path / "run", build={"use": use}, plugins={use: origin} if origin else {})
    with pytest.raises(MissingPluginError) as caught:
        WAYS[way](run, registry)
    assert f"needs the component {use}" in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize("way", ["eval", "resume", "repeat"])
def test_a_run_whose_dataset_is_of_a_missing_plugin_names_it(
    way: str, made: Path, registry: Registry, tmp_path: Path
) -> None:
    plugins = {"datasets.waves": "zoo-waves 2.0", "waves.images": "zoo-waves 2.0"}
    for place, spec, needs in (
        ("a", "waves", "dataset waves"),
        ("b", "plugin:waves.images?side=8", "component waves.images"),
    ):
        run = changed(made, tmp_path / place, spec=spec, plugins=plugins)
        with pytest.raises(MissingPluginError, match=rf"needs the {needs} of zoo-waves 2\.0, which is not installed"):
            WAYS[way](run, registry)
