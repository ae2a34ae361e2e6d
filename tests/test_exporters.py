"""Formats that plugins bring: `zoo export --format NAME`, with every check that ONNX has."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from plugin_site import Site, components, site_in
from torch import nn

from zoo.base.install import install_line
from zoo.catalogue.export_formats import BUILT_IN, export_formats, find_format
from zoo.catalogue.registry import load_registry
from zoo.data.files.decode import Rule
from zoo.errors import InputError, PluginError, ZooError
from zoo.evaluate.classifier import Classifier, Preprocessing
from zoo.export.exporting import start
from zoo.export.graph import ExportError, Pixels, sample
from zoo.export.write import export
from zoo.plugin import Component
from zoo.runs.record import Sizes
from zoo.testing.exporters import check_exporter
from zoo.testing.subject import Failed, Skipped

PLUGIN = components("npz", kind="exporter", factory="exporters_of_tests:npz").replace(
    "factory=", "suffix='.npz', summary='arrays', factory="
)
HERE = str(Path(__file__).parent)


def exporter(factory: str = "npz") -> Component:
    return Component(name="npz", kind="exporter", factory=f"exporters_of_tests:{factory}", suffix=".npz")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval()
    sizes = Sizes(in_channels=3, height=8, width=8, num_classes=4)
    given = Preprocessing(Rule(size=(8, 8)), (0.5,) * 3, (0.25,) * 3, normalize=True)
    return Classifier(name="small", module=module, sizes=sizes, preprocessing=given, classes=tuple("abcd"))


# ---- on the command line ---------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = site_in(tmp_path)
    found.add("arrays", PLUGIN)
    return found


def test_a_plugin_s_format_is_written_checked_and_shown(site: Site) -> None:
    words = ("export", "cnn-baseline", "--untrained", "--format", "npz", "--with-preprocessing")
    done = site.run(*words, PYTHONPATH=f"{site.folder}:{HERE}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "cnn-baseline.npz\n"
    said = done.stderr.splitlines()
    assert "noise on stdout" in said
    assert any(line.startswith("cnn-baseline: 66,706 parameters, operators ") for line in said)
    assert "takes `pixels`: uint8 (batch, 32, 32, 3)" in done.stderr
    assert "differs from torch by" in done.stderr
    about = json.loads((site.work / "cnn-baseline.npz.json").read_text())
    assert about["input"]["inside"]["scale"] == "1/255"
    with np.load(site.work / "cnn-baseline.npz") as file:
        assert json.loads(json.loads(str(file["graph"]))["about"]["zoo.classes"])[3] == "cat"


def test_help_completion_and_the_list_of_plugins_name_it_without_torch(site: Site) -> None:
    site.hide_heavy()
    assert "[onnx|torch|executorch|npz]" in site.run("export", "--help").stdout
    words = {"COMP_WORDS": "zoo export x --format np", "COMP_CWORD": "4", "_ZOO_COMPLETE": "bash_complete"}
    assert site.run(**words).stdout == "plain,npz\n"
    rows = {row["name"]: row for row in json.loads(site.run("plugins", "--json").stdout)}
    assert rows["arrays"]["components"] == ["arrays.npz"]
    assert rows["exporters"]["components"] == ["exporters.executorch"]


def test_an_unknown_format_is_one_line_with_those_that_there_are(site: Site) -> None:
    site.hide_heavy()
    done = site.run("export", "cnn-baseline", "--untrained", "--format", "tflite")
    assert done.returncode == 2
    assert done.stderr == "error: --format 'tflite'; allowed: onnx, torch, executorch, npz\n"


def test_an_exporter_that_says_no_suffix_is_left_out(tmp_path: Path) -> None:
    site = site_in(tmp_path)
    site.add("arrays", components("npz", kind="exporter"))
    site.add("odd", components("same", kind="part").replace("factory=", "suffix='.x', factory="))
    rows = {row["name"]: row for row in json.loads(site.run("plugins", "--json").stdout)}
    assert "an exporter says how the names of its files end" in rows["arrays"]["reason"]
    assert "suffix '.x' is for an exporter; this is a part" in rows["odd"]["reason"]


# ---- names -----------------------------------------------------------------------------------


def test_a_short_name_of_two_plugins_must_be_written_whole_and_ours_mean_ours() -> None:
    npz = exporter()
    theirs = {"a.npz": npz, "b.npz": npz, "b.onnx": msgspec.structs.replace(npz, name="onnx")}
    registry = msgspec.structs.replace(load_registry(), components=theirs)
    with pytest.raises(InputError, match=r"'npz' is ambiguous: a\.npz or b\.npz; give the full name"):
        find_format("npz", registry)
    assert find_format("b.npz", registry) is npz
    assert find_format("onnx", registry) is BUILT_IN[0]
    assert find_format("b.onnx", registry).suffix == ".npz"
    assert list(export_formats(registry)) == ["onnx", "torch", "a.npz", "b.npz", "b.onnx"]


# ---- what is written -------------------------------------------------------------------------


def test_any_number_of_bytes_goes_through_and_gives_torch_s_logits(classifier: Classifier, tmp_path: Path) -> None:
    done = export(classifier, tmp_path / "a.npz", format=exporter(), takes="pixels")
    assert done.agreement is not None
    assert done.agreement.batches == (1, 2, 5)
    assert done.details["operators"] == int(done.kind.removeprefix("operators "))
    assert done.opset is None
    images = sample(classifier, 7, takes="pixels", seed=9)
    found = start(exporter()).runner(tmp_path / "a.npz")(images)
    with torch.inference_mode():
        assert torch.allclose(found, Pixels(classifier)(images), atol=1e-6)


@pytest.mark.parametrize(
    ("factory", "kind", "message"),
    [
        ("Off", ExportError, r"differ from torch's by up to 1\.00e-02.*nothing was kept"),
        ("Failing", ExportError, r"^small: cannot be written as npz: no operator for this$"),
        ("Silent", ExportError, r"^small: the exporter npz wrote no file$"),
        ("Unreadable", ExportError, r"^the written npz file cannot be loaded: a number too many$"),
        ("OneByOne", ExportError, r"^the npz file cannot run a batch of 2: one image only$"),
        ("NoRunner", PluginError, r"^the exporter npz has no method runner\(\); see zoo\.plugin\.Exporter$"),
        ("Toolless", ExportError, r"^small: cannot be written as npz: .*No such file or directory: 'no-such-compiler'"),
        ("Libless", ExportError, r"^the written npz file cannot be loaded: .*No such file or directory: 'runtime\.so'"),
        ("Wordless", ExportError, r"^small: the exporter npz says of: PosixPath of its file; expected a text or a num"),
        ("Unnumbered", ExportError, r"the exporter npz says opset: str of its file; expected a whole number$"),
        (
            "Littering",
            ExportError,
            r"wrote run\.toml beside its file; allowed there: files whose names begin with a\.$",
        ),
        ("Nesting", ExportError, r"wrote a\.parts beside its file; allowed there: files"),
        ("Tiny", PluginError, r"^the exporter npz has largest_batch = 0; expected None, or a number .* at least 5"),
        ("absent", PluginError, r"^npz files need numpy: pip install numpy$"),
        ("broken", InputError, r"^--format npz cannot be started: KeyError: 'its own mistake'$"),
        ("nowhere", PluginError, r"^component 'npz': cannot import 'exporters_of_tests:nowhere'"),
    ],
)
def test_what_goes_wrong_is_one_line_and_nothing_is_kept(
    classifier: Classifier, tmp_path: Path, factory: str, kind: type[ZooError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        export(classifier, tmp_path / "a.npz", format=exporter(factory))
    assert list(tmp_path.iterdir()) == []


def test_options_and_names_that_do_not_fit_are_refused_first(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--opset is ONNX's; leave it out with --format npz"):
        export(classifier, tmp_path / "a.npz", format=exporter(), opset=20)
    with pytest.raises(InputError, match=r"a file of format npz ends in \.npz"):
        export(classifier, tmp_path / "a.onnx", format=exporter())


def test_a_format_may_bound_the_batch_that_a_file_of_any_batch_takes(classifier: Classifier, tmp_path: Path) -> None:
    done = export(classifier, tmp_path / "a.npz", format=exporter("Small"))
    assert done.details["at most"] == 8
    assert done.kind.endswith(", at most 8")
    assert start(exporter()).largest_batch is None


# ---- the conformance kit ---------------------------------------------------------------------


@pytest.mark.parametrize("component", [exporter(), *BUILT_IN], ids=lambda component: component.name)
def test_the_kit_takes_a_model_through_an_exporter_and_back(component: Component) -> None:
    assert check_exporter("arrays.npz", component).startswith("logits differ from torch's by ")


def test_the_kit_finds_faults_and_skips_what_is_not_installed() -> None:
    with pytest.raises(ExportError, match="differ from torch's"):
        check_exporter("arrays.npz", exporter("Off"))
    with pytest.raises(Failed, match=r"tiny\.npz holds a path of the machine that wrote it"):
        check_exporter("arrays.npz", exporter("Telling"))
    with pytest.raises(Skipped, match="npz files need numpy"):
        check_exporter("arrays.npz", exporter("absent"))


# ---- ExecuTorch ------------------------------------------------------------------------------


def test_executorch_s_program_gives_torch_s_logits_and_says_what_it_takes(
    classifier: Classifier, tmp_path: Path
) -> None:
    pytest.importorskip("executorch.exir", reason="the extra executorch is not installed")
    from executorch.runtime import Runtime

    component = load_registry().component("exporters.executorch")
    done = export(classifier, tmp_path / "a.pte", format=component, takes="pixels")
    assert done.kind.endswith("batches of at most 64")
    program = Runtime.get().load_program(tmp_path / "a.pte")
    (facts,) = program.load_method("zoo_json").execute([])
    assert json.loads(facts) == done.metadata
    run = start(component).runner(tmp_path / "a.pte")
    for count in (3, 64):
        images = sample(classifier, count, takes="pixels", seed=count)
        with torch.inference_mode():
            assert torch.allclose(run(images), Pixels(classifier)(images), atol=1e-5)
    with pytest.raises(ExportError, match="the executorch file cannot run a batch of 65"):
        run(sample(classifier, 65, takes="pixels"))
    assert check_exporter("exporters.executorch", component)


def test_without_executorch_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "executorch", None)
    component = load_registry().component("exporters.executorch")
    with pytest.raises(PluginError) as caught:
        start(component)
    assert str(caught.value) == f"ExecuTorch files need executorch: {install_line('executorch')}"
    with pytest.raises(Skipped, match="ExecuTorch files need executorch"):
        check_exporter("exporters.executorch", component)
