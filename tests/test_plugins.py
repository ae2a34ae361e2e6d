"""Discovery of plugins: real distributions in a folder, real processes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner
from plugin_site import REGISTRY_HOOK, Site, components, site_in

import zoo
from zoo.catalogue.describe import recipe_of
from zoo.catalogue.plugins import Found, Selection, load, selection
from zoo.catalogue.registry import load_registry
from zoo.catalogue.weights import find_weights_of
from zoo.cli import cli
from zoo.data.dataset_spec import find
from zoo.errors import InputError, PluginError, UnknownNameError
from zoo.models.compose import sizes_for
from zoo.testing import cases_of
from zoo.train.listeners import find_listeners

MODEL = """
[models.{name}]
summary = "one"
family = "extra"
recipe = "default-{name}"
dataset = "data-{name}"
build = {{ use = "{use}" }}
[recipes.default-{name}]
epochs = 1
[datasets.data-{name}]
source = "sklearn:digits"
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_in(tmp_path)


def found(site: Site, **environment: str) -> dict[str, dict[str, object]]:
    """`zoo plugins --json`, by the entry point's name."""
    done = site.run("plugins", "--json", **environment)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


BROKEN = {
    "raises": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "leaves": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "missing": ("import no_such_library", "No module named 'no_such_library'"),
    "syntax": ("def :", "SyntaxError"),
    "empty": ("", "offers nothing"),
    "wrong-type": (
        components("a").replace("Component(name=n,", "dict(name=n,"),
        "must return Component objects, got dict",
    ),
    "wrong-kind": (components("a", kind="soup"), "component 'a': Invalid enum value 'soup'"),
    "wrong-kinds": (components("a", kind="soup"), "allowed: classifier, part, combinator, stem, head"),
    "wrong-hook": (
        components("a").replace("zoo_components()", "zoo_components(wanted)"),
        "Argument(s) {'wanted'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "no-factory": (components("a", factory="nothing"), 'is not "module:name"'),
    "twice": (components("a", "a"), "offers the component 'a' twice"),
    "bad-name": (components("a b"), "a name is letters and digits"),
    "no-file": (REGISTRY_HOOK, "which is not a file"),
}


def test_broken_plugins_are_quarantined_with_the_reason_and_all_others_are_listed(site: Site) -> None:
    for name, (source, _) in BROKEN.items():
        site.add(name, source)
    site.add("good", components("part"))
    rows = found(site)
    for name, (_, reason) in BROKEN.items():
        assert rows[name]["status"] == "failed"
        assert reason in str(rows[name]["reason"]), name
    assert rows["good"]["status"] == "loaded"
    assert rows["good"]["components"] == ["good.part"]
    assert rows["hybrid"]["status"] == "loaded"
    listed = site.run("list")
    assert listed.returncode == 0
    assert "hybrid-alt-1" in listed.stdout
    assert "plugin 'raises' (zoo-raises 1.0) is left out: RuntimeError: no luck" in listed.stderr


def test_offers_is_a_short_way_to_write_the_hook(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    written = components("a", "b", kind="stem", factory="parts:same")
    listed = ", ".join(f"Component(name={name!r}, kind='stem', factory='parts:same')" for name in "ab")
    short = f"from zoo.plugin import Component, offers\nzoo_components = offers({listed})"
    monkeypatch.syspath_prepend(site.folder)
    answers = []
    for name, source in (("written", written), ("short", short)):
        site.add(name, source)
        answers.append(load(Found(name, f"zoo_{name}", f"zoo-{name}", "1.0")))
    assert [(answer.status, answer.reason) for answer in answers] == [("loaded", "")] * 2
    assert [(c.name, c.kind, c.factory) for c in answers[1].components] == [
        ("a", "stem", "parts:same"),
        ("b", "stem", "parts:same"),
    ]
    assert answers[1].components == answers[0].components


def test_debug_shows_the_traceback_of_a_plugin_that_failed(site: Site) -> None:
    site.add("raises", "raise RuntimeError('no luck')")
    assert "Traceback" not in site.run("plugins").stderr
    assert "Traceback" in site.run("plugins", "--debug").stderr


def test_what_a_plugin_prints_does_not_reach_stdout_and_is_named(site: Site) -> None:
    site.add("loud", "print('hello')\n" + components("part"))
    done = site.run("list", "--json")
    json.loads(done.stdout)
    assert "prints to stdout when listed" in done.stderr


def test_a_plugin_that_imports_torch_when_listed_is_named(site: Site) -> None:
    site.add("heavy", "import torch\n" + components("part"))
    (site.folder / "torch.py").write_text("")
    row = found(site)["heavy"]
    assert row["status"] == "loaded"
    assert "imports torch when listed" in str(row["warnings"])


def test_a_plugin_with_the_name_of_a_built_in_one_is_refused(site: Site) -> None:
    site.add("other", components("residual"), entry="cnn")
    done = site.run("plugins")
    assert "has the name of a built-in plugin" in done.stderr
    assert "zoo-other 1.0" in done.stderr
    assert "cnn.residual" in done.stdout


def test_a_component_claimed_by_two_plugins_names_both_distributions_and_only_its_use_fails(site: Site) -> None:
    for name in ("one", "two"):
        site.add(name, components("part"), entry="shared")
    site.add("user", REGISTRY_HOOK, toml=MODEL.format(name="m", use="shared.part"))
    listed = site.run("list")
    assert listed.returncode == 0
    assert "component 'shared.part' is claimed by both zoo-one 1.0 and zoo-two 1.0" in listed.stderr
    used = site.run("info", "m", "--build")
    assert used.returncode == 2
    assert "claimed by both zoo-one 1.0 and zoo-two 1.0" in used.stderr.splitlines()[-1]


def test_a_model_claimed_by_two_plugins_names_both_distributions(site: Site) -> None:
    for name in ("one", "two"):
        toml = MODEL.format(name="same", use="hybrid.classifier")
        site.add(
            name,
            REGISTRY_HOOK,
            toml=toml.replace("default-same", f"default-{name}").replace("data-same", f"data-{name}"),
        )
    done = site.run("info", "same")
    assert done.returncode == 2
    assert "model 'same' is claimed by both zoo-one 1.0 and zoo-two 1.0" in done.stderr.splitlines()[-1]


def test_a_namespace_claimed_by_two_plugins_names_both_distributions(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        site.add(name, spaced("common", "timm"))
    monkeypatch.syspath_prepend(str(site.folder))
    registry = load_registry()
    with pytest.raises(InputError, match=r"namespace 'common' is claimed by both zoo-one 1\.0 and zoo-two 1\.0"):
        registry.model("common/net")
    assert registry.model("timm/resnet18").build.use == "timm.model", "nobody shadows a built-in one"
    assert any("namespace 'common' is claimed by both" in problem for problem in registry.problems)


def test_what_is_made_of_a_name_that_two_plugins_claim_is_an_error_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values of a recipe, sizes of a dataset and weights would be those of the plugin that comes first by its name."""
    shared = """
        [recipes.shared]
        epochs = {number}
        [datasets.shared]
        source = "sklearn:digits"
        size = [{number}, {number}]
        [models.shared]
        summary = "a model"
        family = "cnn"
        recipe = "default"
        build = {{ use = "hybrid.classifier" }}
    """
    mine = """
        [recipes.parent]
        extends = "shared"
        [recipes.child]
        extends = "parent"
        [models.mine]
        summary = "a model"
        family = "cnn"
        recipe = "default"
        dataset = "shared"
        build = {use = "hybrid.classifier"}
    """
    for number, name in enumerate(("one", "two"), 1):
        site.add(name, REGISTRY_HOOK, toml=dedent(shared.format(number=number)))
    site.add("user", REGISTRY_HOOK, toml=dedent(mine))
    monkeypatch.syspath_prepend(str(site.folder))
    registry = load_registry()
    uses = {
        "recipe 'child' extends 'parent': recipe 'parent' extends 'shared': recipe": lambda: registry.recipe("child"),
        "dataset 'shared' is": lambda: sizes_for(registry.model("mine"), registry),
        "model 'shared' is": lambda: find_weights_of("shared", registry),
    }
    for said, use in uses.items():
        with pytest.raises(InputError, match=f"^{said}.* claimed by both zoo-one 1.0 and zoo-two 1.0"):
            use()
    assert sizes_for(registry.model("mine"), registry, image_size=8, in_channels=3, num_classes=10)["height"] == 8
    assert registry.recipe("default").epochs
    assert recipe_of("child", registry) == {"name": "child"}


def spaced(*spaces: str) -> str:
    """The source of a plugin with a component for each namespace."""
    source = components(*spaces, kind="classifier")
    return source.replace("kind='classifier',", "kind='classifier', namespace=n,")


MISSES = {
    "model": lambda registry: registry.model("lost-tiny"),
    "namespace": lambda registry: registry.model("lost/tiny"),
    "recipe": lambda registry: registry.recipe("lost-recipe"),
    "dataset": lambda registry: find("lost-images", registry),
    "component": lambda registry: registry.component("lost.part"),
    "logger": lambda registry: find_listeners(["lost.csv"], registry),
    "another name": lambda registry: registry.model("tiny-of-another-name"),
}


def test_a_name_that_is_missing_names_the_plugins_that_are_left_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("lost", "raise RuntimeError('no licence file')")
    monkeypatch.syspath_prepend(str(site.folder))
    registry = load_registry()
    for miss in MISSES.values():
        with pytest.raises(UnknownNameError) as caught:
            miss(registry)
        assert "plugin 'lost' is left out: RuntimeError: no licence file; see `zoo plugins`" in str(caught.value)
    off = load_registry(chosen=Selection(without=frozenset({"lost"})))
    with pytest.raises(UnknownNameError, match="plugin 'lost' is left out: named in ZOO_DISABLE_PLUGINS"):
        off.model("lost-tiny")
    with pytest.raises(PluginError, match="the plugin 'lost' is left out: RuntimeError: no licence file"):
        cases_of("lost")


def test_the_commands_name_the_plugin_that_is_left_out(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.add("lost", "raise RuntimeError('no licence file')")
    monkeypatch.syspath_prepend(str(site.folder))
    monkeypatch.chdir(tmp_path)
    for words in (["train", "lost-tiny"], ["info", "lost-tiny"], ["export", "lost-tiny"], ["bench", "lost-tiny"]):
        done = CliRunner().invoke(cli, words)
        assert isinstance(done.exception, UnknownNameError), done.output
        assert "plugin 'lost' is left out: RuntimeError: no licence file" in str(done.exception)


def test_a_plugin_cannot_shadow_a_built_in_model(site: Site) -> None:
    site.add("thief", REGISTRY_HOOK, toml=MODEL.format(name="hybrid-alt-1", use="hybrid.classifier"))
    done = site.run("info", "hybrid-alt-1", "--json")
    assert json.loads(done.stdout)["family"] == "hybrid"
    assert "zoo-thief 1.0; the built-in one is used" in done.stderr


def test_a_plugin_s_wrong_entry_is_left_out_and_the_rest_of_its_file_kept(site: Site) -> None:
    wrong = MODEL.format(name="bad", use="hybrid.classifier").replace('family = "extra"', "family = 3")
    site.add("mixed", REGISTRY_HOOK, toml=wrong + MODEL.format(name="fine", use="hybrid.classifier"))
    done = site.run("list", "--json")
    names = {row["name"] for row in json.loads(done.stdout)}
    assert "fine" in names
    assert "bad" not in names
    assert "models.bad.family: expected `str`, got `int`, given 3" in done.stderr


def test_plugins_can_be_disabled_or_chosen_by_name(site: Site) -> None:
    for name in ("one", "two"):
        site.add(name, components("part"))
    assert found(site, ZOO_DISABLE_PLUGINS="one")["one"]["status"] == "disabled"
    assert found(site, ZOO_LOAD_PLUGINS="one")["two"]["status"] == "disabled"
    none = found(site, ZOO_DISABLE_PLUGINS="all")
    assert {none[name]["status"] for name in ("one", "two")} == {"disabled"}
    assert none["hybrid"]["status"] == "loaded"
    assert "one.part" not in site.run("--no-plugins", "plugins").stdout


def test_the_selection_reads_names_between_commas() -> None:
    assert selection({}) == Selection()
    assert selection({"ZOO_DISABLE_PLUGINS": "a, b,"}) == Selection(without=frozenset("ab"))
    assert selection({"ZOO_LOAD_PLUGINS": ""}) == Selection(only=frozenset())


# ---- the index ------------------------------------------------------------------------------


def index_files(plugin_index: Path) -> list[Path]:
    """The indexes that a test made, without that of the plugins installed here."""
    there = {path.name for path in plugin_index.iterdir()}
    made = Path(os.environ["ZOO_CACHE_DIR"]).glob("index-*.msgpack")
    return sorted(path for path in made if path.name not in there)


def test_a_second_listing_reads_the_index_and_imports_no_plugin(site: Site, plugin_index: Path) -> None:
    mark = site.folder / "imported"
    site.add("good", f"open({str(mark)!r}, 'a').write('x')\n" + components("part"))
    first = site.run("plugins", "--json")
    assert len(index_files(plugin_index)) == 1
    second = site.run("plugins", "--json")
    assert mark.read_text() == "x"
    assert second.stdout == first.stdout


def test_adding_upgrading_and_removing_a_distribution_shows_at_once(site: Site) -> None:
    site.folder.mkdir()
    assert "good" not in found(site)
    site.add("good", components("part"))
    assert found(site)["good"]["version"] == "1.0"
    site.remove("good")
    site.add("good", components("part", "more"), version="1.1")
    upgraded = found(site)["good"]
    assert upgraded["version"] == "1.1"
    assert upgraded["components"] == ["good.part", "good.more"]
    site.remove("good")
    assert "good" not in found(site)


def test_an_entry_point_written_anew_in_place_shows_at_once(site: Site) -> None:
    site.add("good", components("part"))
    assert "good" in found(site)
    (info,) = site.folder.glob("*.dist-info")
    (info / "entry_points.txt").write_text("[zoo]\nbetter = zoo_good\n")
    rows = found(site)
    assert "better" in rows
    assert "good" not in rows


def test_a_changed_plugin_file_or_registry_shows_at_once(site: Site) -> None:
    source = components("part") + REGISTRY_HOOK
    path = site.add("good", source, toml=MODEL.format(name="m", use="hybrid.classifier"))
    assert found(site)["good"]["models"] == ["m"]
    path.write_text(
        components("renamed").replace("{module}", "zoo_good") + REGISTRY_HOOK.replace("{module}", "zoo_good")
    )
    assert found(site)["good"]["components"] == ["good.renamed"]
    (site.folder / "zoo_good.toml").write_text(MODEL.format(name="n", use="hybrid.classifier"))
    assert found(site)["good"]["models"] == ["n"]


def test_a_changed_module_that_the_plugin_imports_shows_at_once(site: Site) -> None:
    (site.folder / "zoo_pack").mkdir(parents=True)
    site.add("pack", "")
    (site.folder / "zoo_pack.py").unlink()
    (site.folder / "zoo_pack" / "__init__.py").write_text("from zoo_pack.listing import zoo_components\n")
    listing = site.folder / "zoo_pack" / "listing.py"
    listing.write_text(components("part"))
    assert found(site)["pack"]["components"] == ["pack.part"]
    listing.write_text(components("part", "second"))
    assert found(site)["pack"]["components"] == ["pack.part", "pack.second"]


def test_what_plugins_bring_and_take_away_shows_in_the_list_at_once(site: Site) -> None:
    source = components("part") + REGISTRY_HOOK
    site.folder.mkdir()
    assert "mine" not in site.run("list").stdout
    site.add("good", source, toml=MODEL.format(name="mine", use="hybrid.classifier"))
    assert "mine" in site.run("list").stdout
    assert "mine" not in site.run("list", ZOO_DISABLE_PLUGINS="good").stdout
    assert "mine" in site.run("list").stdout
    site.remove("good")
    assert "mine" not in site.run("list").stdout


@pytest.mark.parametrize("damage", [b"", b"\x00" * 64, "cut", "flip"], ids=["empty", "zeros", "cut", "flip"])
def test_a_damaged_index_is_made_again(site: Site, damage: bytes | str, plugin_index: Path) -> None:
    site.add("good", components("widget"))
    before = found(site)
    (path,) = index_files(plugin_index)
    whole = path.read_bytes()
    halves = {"cut": whole[:-9], "flip": whole.replace(b"widget", b"gadget")}
    path.write_bytes(damage if isinstance(damage, bytes) else halves[damage])
    after = found(site)
    assert set(after) == set(before)
    assert found(site)["good"]["components"] == ["good.widget"]


def test_a_cache_folder_that_cannot_be_written_costs_time_only(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = site.run("list", ZOO_CACHE_DIR=str(tmp_path / "file" / "below"))
    assert done.returncode == 0, done.stderr
    assert "hybrid-alt-1" in done.stdout


def test_a_broken_plugin_is_looked_at_afresh_each_time(site: Site) -> None:
    site.add("needs", "import extra_library\n" + components("part"))
    assert found(site)["needs"]["status"] == "failed"
    time.sleep(0.01)
    (site.folder / "extra_library.py").write_text("")
    assert found(site)["needs"]["status"] == "loaded"


FAILS = """
from torch import nn

class Fails(nn.Identity):
    def forward(self, x):
        if self.training and not x.is_meta:
            raise RuntimeError("expected float")
        return x

def same(*, channels, height, width):
    return Fails()
"""


def test_a_part_that_fails_in_a_training_is_named_with_its_plugin(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("fails", components("part"), parts=FAILS)
    monkeypatch.syspath_prepend(str(site.folder))
    tree = zoo.alternate(zoo.part("fails.part"))
    said = r"^fails\.part \(zoo-fails 1\.0\): failed: RuntimeError: expected float \(zoo_fails_parts\.py, line 7\)$"
    with pytest.raises(PluginError, match=said):
        zoo.train(tree, dataset="digits", limit_train=64, epochs=1, device="cpu", output=tmp_path / "run")
