"""The conformance kit: each of its checks finds the fault that it is there for, and an empty suite is red."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import msgspec
import pytest
from click.testing import CliRunner
from plugin_site import Site, components, site_in

from zoo.catalogue.provenance import changes, provenance
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Node
from zoo.cli import cli
from zoo.errors import PluginError, UnknownNameError
from zoo.plugin import Component, Kind
from zoo.testing import Case, Outcome, cases_of
from zoo.testing.cases import _of_component, check_listing
from zoo.testing.data import check_listener
from zoo.testing.effects import changed_by_import

FAULTS: dict[str, tuple[str, str]] = {
    "bare": ("signature", "'gain' has no annotation"),
    "positional": ("signature", "takes channels, height, width by keyword; not 'channels'"),
    "half": ("shapes", "a part must keep its shape"),
    "unused": ("finite", "no gradient reaches body.other"),
    "first_only": ("parts", "passes over of[1]"),
    "infinite": ("finite", "not finite"),
    "growing": ("parameters", "changes from one build to the next"),
    "hidden": ("safetensors", "not in the state dict"),
    "unkept": ("safetensors", "after a training: something is not in the state dict"),
    "neighbourly": ("independence", "with the other images of the batch"),
    "double": ("bf16", "float32 only"),
    "mixing": ("bf16", "dtype"),
    "strided": ("channels-last", "stride"),
    "compiled": ("compile", "compiled, the logits differ"),
    "peeking": ("export", ""),
    "deaf": ("overfits", "bring the loss to"),
    "counting": ("resume", "differs after resuming"),
    "in_place": ("input", "changes its input in place"),
    "drops_in_place": ("input", "changes its input in place"),
    "hidden_in_place": ("input", "changes its input in place"),
    "fixed": ("seed", "sets the state of torch's random generator while it is built"),
    "fixed_elsewhere": ("seed", "sets the state of Python's random generator while it is built"),
    "drawn_elsewhere": ("seed", "body.weight differs from one build to the next with the same seed"),
    "seeding": ("seed", "sets the state of torch's random generator while it is run"),
    "printing": ("output", "prints to stdout while it is built ('building')"),
    "writing": ("output", "prints to stdout while it is built ('from C')"),
    "loud": ("output", "prints to stdout while it is run ('hello from forward')"),
    "double_for_all": ("settings", "changes torch's default dtype for the whole process, to torch.float64"),
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    ours = load_registry()
    kinds: dict[str, Kind] = {"deaf": "classifier", "first_only": "combinator", "in_turn": "combinator"}
    names = ("in_turn", "right", "tied", "wide", "needy", "small_only", "large_only", *FAULTS)
    offered = {
        f"bad.{n}": Component(name=n, kind=kinds.get(n, "part"), factory=f"faulty_components:{n}") for n in names
    }
    return msgspec.structs.replace(ours, components={**ours.components, **offered})


def outcomes(name: str, registry: Registry, check: str = "", **example: object) -> dict[str, Outcome]:
    full = f"bad.{name}"
    given = {full: example} if example else {}
    cases = _of_component(full, registry.component(full), registry, given)
    return {case.check: case.run() for case in cases if check in ("", case.check)}


def test_a_combinator_that_builds_all_of_its_parts_is_right(registry: Registry) -> None:
    assert outcomes("in_turn", registry, "parts")["parts"].note == "2 parts"


@pytest.mark.parametrize("name", ["right", "tied"])
def test_a_component_that_is_right_passes_every_check(name: str, registry: Registry) -> None:
    found = outcomes(name, registry)
    assert {o.check: o.note for o in found.values() if o.result != "passed"} == {}
    assert set(found) == {check for check, _ in FAULTS.values()} - {"parts"}  # which is for combinators


def test_a_parameter_that_larger_images_need_is_used(registry: Registry) -> None:
    found = outcomes("wide", registry, "finite")["finite"]
    assert found.result == "passed", found.note


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_by_the_check_that_is_for_it(name: str, registry: Registry) -> None:
    check, said = FAULTS[name]
    outcome = outcomes(name, registry, check)[check]
    assert outcome.result == "failed", outcome
    assert said in outcome.note
    assert "\n" not in outcome.note
    assert "Traceback" in outcome.detail


def test_a_setting_that_changes_when_the_code_is_imported_is_a_fault(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for in a process of its own: here, the code may have been imported long ago."""
    (tmp_path / "doubling.py").write_text(
        "import torch\nfrom faulty_components import right\nprint('hello')\ntorch.set_default_dtype(torch.float64)\n"
    )
    (tmp_path / "polite.py").write_text("import atexit\natexit.register(print, 'bye')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    component = Component(name="doubling", kind="part", factory="doubling:right")
    more = msgspec.structs.replace(registry, components={**registry.components, "bad.doubling": component})
    monkeypatch.setitem(sys.modules, "doubling", import_module("faulty_components"))
    outcome = outcomes("doubling", more, "settings")["settings"]
    assert outcome.result == "failed"
    assert outcome.note == (
        "changes torch's default dtype for the whole process when it is imported: other models run with it too"
    )
    assert changed_by_import("polite") == ""


def test_a_size_that_is_refused_by_a_shape_error_is_no_fault(registry: Registry) -> None:
    outcome = outcomes("small_only", registry, "shapes")["shapes"]
    assert outcome.result == "passed"
    assert "refuses 3x32x32, 3x24x16" in outcome.note


def test_a_component_that_takes_large_images_only_is_tried_with_them(registry: Registry) -> None:
    outcome = outcomes("large_only", registry, "shapes")["shapes"]
    assert outcome.result == "passed", outcome
    assert outcome.note == "takes 3x64x64; refuses 3x16x16, 3x32x32, 8x8x8, 16x16x16, 3x24x16"


def test_a_component_is_tried_at_the_sizes_of_the_models_that_use_it(registry: Registry) -> None:
    """40 pixels are none of the sizes that the kit has of itself."""
    model = msgspec.structs.replace(
        registry.models["hybrid-alt-1"],
        dataset="at-40",
        recipe="default",
        build=Node(use="hybrid.classifier", args={"body": Node(use="bad.right")}),
    )
    at_40 = msgspec.structs.replace(registry.datasets["digits"], size=(40, 40))
    more = msgspec.structs.replace(
        registry, models={**registry.models, "its": model}, datasets={**registry.datasets, "at-40": at_40}
    )
    cases = _of_component("bad.right", more.component("bad.right"), more, {}, ["its"])
    (outcome,) = (case.run() for case in cases if case.check == "shapes")
    assert "3x40x40" in outcome.note


def test_a_listener_that_changes_what_it_is_given_is_a_fault(registry: Registry) -> None:
    component = Component(name="clears", kind="listener", factory=f"{__name__}:Clears")
    with pytest.raises(AssertionError, match=r"epoch\(\) changes what it is given"):
        check_listener("bad.clears", component)


class Clears:
    def __init__(self, *, folder: Path) -> None:
        pass

    def epoch(self, row: dict[str, object], best: bool) -> None:
        row.clear()


def test_an_argument_without_default_is_taken_from_the_examples_or_skipped_aloud(registry: Registry) -> None:
    skipped = outcomes("needy", registry)["shapes"]
    assert skipped.result == "skipped"
    assert "give them in `examples`" in skipped.note
    assert outcomes("needy", registry, "shapes", gain=2.0)["shapes"].result == "passed"


def test_what_a_plugin_does_when_it_is_listed_is_a_fault(registry: Registry) -> None:
    (record,) = [r for r in registry.plugins if r.name == "cnn"]
    assert "imported no torch" in check_listing(record, registry)
    heavy = msgspec.structs.replace(record, warnings=("imports torch when listed",))
    with pytest.raises(AssertionError, match="imports torch"):
        check_listing(heavy, registry)


def test_an_unknown_plugin_and_one_without_anything_to_check_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="did you mean cnn"):
        cases_of("cmn")
    with pytest.raises(PluginError, match=r"examples for 'cnn\.nothing'"):
        cases_of("cnn", {"cnn.nothing": {}})


# ---- as an author meets it ---------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_in(tmp_path)


def suite(site: Site, plugin: str, *words: str) -> tuple[int, str]:
    """Exit code and output of pytest on the three lines that the tutorial gives."""
    site.work.mkdir(exist_ok=True)
    test = site.work / "test_it.py"
    test.write_text(f"from zoo.testing import conformance\n\nTestIt = conformance({plugin!r})\n")
    done = site.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *words, str(test))
    return done.returncode, done.stdout + done.stderr


GOOD = """
from torch import nn

def same(*, channels, height, width):
    return nn.Conv2d(channels, channels, 3, padding=1)
"""


def test_the_suite_says_how_many_checks_ran(site: Site) -> None:
    site.add("good", components("part"), parts=GOOD)
    code, shown = suite(site, "good", "-k", "not compile and not export")
    assert code == 0, shown
    assert "zoo.testing: plugin good: 15 checks ran, 0 skipped" in shown


def test_a_suite_in_which_every_check_is_skipped_is_red(site: Site) -> None:
    site.add("needy", components("part"), parts=GOOD.replace("width):", "width, gain: float):"))
    code, shown = suite(site, "needy")
    assert code == 1, shown
    assert "not one check of what 'needy' builds ran" in shown
    assert "1 failed" in shown


@pytest.mark.slow
def test_a_suite_for_a_plugin_that_is_not_installed_or_offers_nothing_is_red(site: Site) -> None:
    recipes = dedent(
        """
        from pathlib import Path
        from zoo.plugin import hookimpl

        @hookimpl
        def zoo_registry():
            return Path(__file__).parent / "zoo_recipes.toml"
        """
    )
    site.add("recipes", recipes, toml="[recipes.r]\nepochs = 1\n")
    code, shown = suite(site, "absent")
    assert code not in (0, 5), shown
    assert "no plugin named 'absent'" in shown
    code, shown = suite(site, "recipes")
    assert code not in (0, 5), shown
    assert "there is nothing to check" in shown


def test_zoo_plugins_check_prints_a_table_and_fails_where_a_check_does(site: Site) -> None:
    wrong = GOOD.replace("return nn", "return nn.Dropout(0.5) if width == 0 else nn.Identity() if 0 else nn")
    site.add("good", components("part"), parts=wrong.replace("padding=1", "padding=0"))
    done = site.run("plugins", "check", "good")
    assert done.returncode == 1
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["SUBJECT", "CHECK", "RESULT", "MS", "NOTE"]
    assert rows[0].split()[:3] == ["good", "listing", "passed"]
    assert any(row.split()[:3] == ["good.part", "shapes", "FAILED"] for row in rows)
    assert "checks: " in done.stderr


def test_in_a_pipe_each_line_is_printed_when_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin prints stays out of the result."""
    events: list[str] = []

    def body(name: str) -> str:
        events.append(f"ran {name}")
        print("from the plugin")
        return ""

    cases = [Case("a", check, lambda check=check: body(check)) for check in ("shapes", "finite")]  # type: ignore[misc]
    monkeypatch.setattr("zoo.testing.cases_like", lambda names, only: cases)
    monkeypatch.setattr("zoo.cli.shared.table.emit", lambda lines: events.extend(list(lines)))
    done = CliRunner().invoke(cli, ["plugins", "check", "a"])
    assert done.exit_code == 0, done.output
    assert [event.split()[:2] for event in events] == [
        ["SUBJECT", "CHECK"],
        ["ran", "shapes"],
        ["a", "shapes"],
        ["ran", "finite"],
        ["a", "finite"],
    ]
    assert "from the plugin" not in done.stdout


# ---- provenance --------------------------------------------------------------------------------


def test_a_record_names_who_brought_each_component_and_what_changed_since() -> None:
    ours = load_registry()
    node = Node(use="hybrid.classifier", args={"body": Node(use="cnn.residual")})
    recorded = provenance(ours, node, model="hybrid-alt-1", recipe="mixture-vit", dataset="digits")
    assert set(recorded) == {"hybrid.classifier", "cnn.residual"}
    assert changes(recorded, ours) == []
    other = recorded | {"cnn.residual": "zoo-other 2.0 (folder)"}
    (line,) = changes(other, ours)
    assert line == f"cnn.residual: from {recorded['cnn.residual']} now, from zoo-other 2.0 (folder) before"
