"""A package with ONNX: other runtimes read it without us, and give what `zoo predict` gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from hub_server import HubServer
from hub_server.here import led_here
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import zoo
from zoo.catalogue.recipe import TestTimeViews
from zoo.cli import cli
from zoo.data.files.decode import Rule
from zoo.errors import InputError, PackageError
from zoo.evaluate.classifier import Classifier
from zoo.evaluate.preparing import Preprocessing
from zoo.export import onnx_file
from zoo.export.write import export
from zoo.hub.download import fetch
from zoo.hub.publish import prepare
from zoo.hub.ref import Ref
from zoo.hub.runtimes import config_keys, processor_table
from zoo.hub.sums import CONFIG, ONNX, PROCESSOR, SUMS, read_sums, write_sums
from zoo.runs.record import WEIGHTS, Sizes

CLOSE = 1e-4
REPO, TOKEN = "me/digits", "hf_write"
SMALL = Sizes(in_channels=3, height=8, width=8, num_classes=4)


class Made(NamedTuple):
    """A package with ONNX, and pictures of several kinds and sizes."""

    package: Path
    pictures: list[Path]


@pytest.fixture(scope="module")
def made(with_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    pictures = []
    for number, (mode, shape) in enumerate(
        [("RGB", (8, 8, 3)), ("RGB", (30, 45, 3)), ("L", (9, 5)), ("RGB", (3, 4, 3))]
    ):
        pictures.append(folder / f"{number}-{mode}.png")
        Image.fromarray(draw.integers(0, 256, shape, np.uint8)).save(pictures[-1])
    return Made(with_onnx, pictures)


def as_transformers(path: Path, table: dict[str, Any]) -> NDArray[np.float32]:
    """What the processors of transformers and transformers.js do with a picture, step by step as their files say."""
    image = Image.open(path)
    if table["do_convert_rgb"]:
        image = image.convert("RGB")
    if table["do_resize"]:
        size = table["size"]
        if "shortest_edge" in size:
            factor = size["shortest_edge"] / min(image.size)
            wanted = (round(image.width * factor), round(image.height * factor))
        else:
            wanted = (size["width"], size["height"])
        image = image.resize(wanted, table["resample"])
    if table["do_center_crop"]:
        width, height = table["crop_size"]["width"], table["crop_size"]["height"]
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    values = np.asarray(image, np.float32)
    if table["do_rescale"]:
        values = values * table["rescale_factor"]
    if table["do_normalize"]:
        values = (values - table["image_mean"]) / table["image_std"]
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None], np.float32)


def probabilities(package: Path, picture: Path) -> dict[str, float]:
    """Every class of a picture by ONNX Runtime and the package's JSON files alone."""
    session = onnxruntime.InferenceSession(str(package / ONNX), providers=["CPUExecutionProvider"])
    values = as_transformers(picture, json.loads((package / PROCESSOR).read_text("utf-8")))
    (logits,) = session.run(["logits"], {"pixel_values": values})
    exponentials = np.exp(logits[0] - logits[0].max())
    names = json.loads((package / CONFIG).read_text("utf-8"))["id2label"]
    return {names[str(row)]: float(p) for row, p in enumerate(exponentials / exponentials.sum())}


# ---- the files ---------------------------------------------------------------------------------


def test_a_hybrid_runs_without_us_as_it_runs_here(made: Made) -> None:
    model = zoo.load(made.package)
    for picture in made.pictures:
        here = {score.name: score.probability for score in model.predict(picture, top=10)[0]}
        there = probabilities(made.package, picture)
        assert here.keys() == there.keys()
        assert max(here.values()) > 0.2  # far from the tenth that a model says which knows nothing
        for name, probability in here.items():
            assert there[name] == pytest.approx(probability, abs=CLOSE), (picture, name)


def test_both_files_are_parts_of_the_package(made: Made) -> None:
    hashes = read_sums(made.package / SUMS)
    assert {ONNX, PROCESSOR} <= set(hashes)
    files = {path.relative_to(made.package).as_posix() for path in made.package.rglob("*") if path.is_file()}
    assert files == {*hashes, SUMS}
    said = {p.key: p.value for p in onnx.load(made.package / ONNX).metadata_props}
    assert json.loads(said["zoo.input"])["inside"]["tta"] == "none"
    assert said["zoo.dataset"] == "sklearn:digits"


def test_nothing_is_done_twice_to_an_image(made: Made) -> None:
    table = json.loads((made.package / PROCESSOR).read_text("utf-8"))
    assert (table["do_rescale"], table["do_normalize"]) == (False, False)
    assert (table["size"], table["do_resize"], table["resample"]) == ({"height": 8, "width": 8}, True, 2)


def test_a_rule_that_cuts_is_told_as_one() -> None:
    cut = Preprocessing(Rule(resize=12, crop=8, interpolation="bicubic"), (0.5,) * 3, (0.5,) * 3, normalize=True)
    table = processor_table(cut, SMALL)
    assert (table["size"], table["crop_size"]) == ({"shortest_edge": 12}, {"height": 8, "width": 8})
    assert (table["do_center_crop"], table["resample"]) == (True, Image.Resampling.BICUBIC)
    squashed = processor_table(Preprocessing(Rule(resize=12, squash=True, crop=8)), SMALL)
    assert (squashed["size"], squashed["do_center_crop"]) == ({"height": 12, "width": 12}, True)
    only_cut = processor_table(Preprocessing(Rule(crop=8)), SMALL)
    assert (only_cut["do_resize"], only_cut["do_center_crop"]) == (False, True)


def test_the_classes_stand_in_both_directions() -> None:
    keys = config_keys(("cat", "dog"))
    assert keys["id2label"] == {"0": "cat", "1": "dog"}
    assert keys["label2id"] == {"cat": 0, "dog": 1}


@pytest.mark.parametrize("tta", ["mirror-translate", "dihedral"])
def test_the_views_of_an_image_are_inside(tta: TestTimeViews, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)).eval()
    given = Preprocessing(Rule(size=(8, 8)), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), normalize=True)
    classifier = Classifier(name="small", module=module, sizes=SMALL, preprocessing=given, tta=tta)
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    path = export(classifier, tmp_path / "model.onnx", takes="pixel_values").path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixel_values": pixels.numpy().astype(np.float32)})
    assert np.abs(logits - classifier.logits(pixels).numpy()).max() < CLOSE
    assert np.abs(logits - module(classifier.prepare(pixels)).detach().numpy()).max() > CLOSE  # one view is another


# ---- checked as a part of the package -----------------------------------------------------------


def test_verify_runs_the_graph_on_recorded_images(made: Made) -> None:
    last = zoo.verify(made.package).checks[-1]
    assert (last.name, last.holds) == ("onnx", True)
    assert last.seen.startswith("same class for 64 of 64 test images, logits differ by ")


def test_a_graph_with_other_weights_is_found(made: Made, tmp_path: Path) -> None:
    copy = shutil.copytree(made.package, tmp_path / "copy")
    graph = onnx.load(copy / ONNX)
    largest = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    largest.raw_data = bytes(len(largest.raw_data))
    onnx.save(graph, copy / ONNX)
    with pytest.raises(PackageError, match=r"onnx/model\.onnx: is damaged"):
        zoo.verify(copy)
    write_sums(copy)
    failed = zoo.verify(copy).failed
    assert failed is not None
    assert failed.name == "onnx"


def test_without_the_libraries_the_graph_is_not_checked(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "NEEDED", ("no_such_library",))
    verification = zoo.verify(made.package)
    assert verification.holds
    assert verification.checks[-1].seen.startswith("not checked: ")


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_without_the_libraries_no_package_is_made(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "NEEDED", ("no_such_library",))
    with pytest.raises(InputError, match=r"ONNX needs no_such_library: pip install .*; or leave out --onnx"):
        zoo.package(made.package.parent / "run", tmp_path / "package", onnx=True)
    assert not (tmp_path / "package").exists()
    done = typed("package", made.package.parent / "run", "--onnx", "--output", tmp_path / "package")
    assert done.exit_code != 0


def test_a_linked_folder_is_not_sent(made: Made, tmp_path: Path) -> None:
    copy = shutil.copytree(made.package, tmp_path / "copy")
    (copy / "onnx").rename(tmp_path / "elsewhere")
    (copy / "onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageError, match="onnx: is a symbolic link"):
        prepare(copy, Ref(REPO), tmp_path / "sent")


def test_a_package_without_the_graph_is_not_published_as_one_with_it(made: Made, tmp_path: Path) -> None:
    plain = shutil.copytree(made.package, tmp_path / "plain", ignore=shutil.ignore_patterns("onnx", PROCESSOR))
    write_sums(plain)
    assert zoo.verify(plain).checks[-1].name == "loss"
    with pytest.raises(InputError, match=r"a package without onnx/model\.onnx; make it again with"):
        zoo.publish(plain, REPO, dry_run=True, onnx=True)


# ---- on the Hub --------------------------------------------------------------------------------


def test_on_the_hub_and_back(made: Made, tmp_path: Path) -> None:
    with HubServer() as hub, led_here(hub, tmp_path / "hf", TOKEN):
        hub.store.users[TOKEN] = ("me", "write")
        published = zoo.publish(made.package, REPO)
        assert zoo.publish(made.package, REPO).commit == published.commit
        folder = fetch(Ref(REPO, published.commit)).folder
        assert (folder / WEIGHTS).is_file()
        assert not (folder / ONNX).exists()  # loading needs no graph
        pulled = zoo.pull(published.reference, tmp_path / "pulled")
        assert read_sums(pulled.folder / SUMS).keys() == read_sums(made.package / SUMS).keys()
        assert (pulled.folder / ONNX).read_bytes() == (made.package / ONNX).read_bytes()
        assert zoo.verify(published.reference).holds
        _refused_if_too_large(hub)


def _refused_if_too_large(hub: HubServer) -> None:
    """A graph that its model cannot need is refused before it is fetched."""
    hub.store.put(REPO, {ONNX: bytes(200 << 20)})
    hub.log.clear()
    with pytest.raises(PackageError, match=r"onnx/model\.onnx has 209,715,200 bytes; its model takes at most"):
        zoo.pull(REPO)
    assert not [request for request in hub.log if "model.onnx" in request.path]


# ---- transformers.js ---------------------------------------------------------------------------

CLASSIFY = """
import { createRequire } from 'node:module';
const { env, pipeline } = createRequire(process.argv[2] + '/')('@huggingface/transformers');
env.allowRemoteModels = false;
env.localModelPath = process.argv[3];
const classify = await pipeline('image-classification', process.argv[4]);
console.log(JSON.stringify(await classify(process.argv[5], {top_k: 10})));
"""


@pytest.mark.slow
def test_transformers_js_classifies_as_we_do(made: Made, tmp_path: Path) -> None:
    modules = os.environ.get("ZOO_TEST_TRANSFORMERS_JS")
    if not modules:
        pytest.skip("set ZOO_TEST_TRANSFORMERS_JS to a folder with node_modules/@huggingface/transformers")
    script = tmp_path / "classify.mjs"
    script.write_text(CLASSIFY, "utf-8")
    words = [modules, f"{made.package.parent}/", made.package.name, str(made.pictures[0])]
    done = subprocess.run(["node", script, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    there = {row["label"]: row["score"] for row in json.loads(done.stdout)}
    here = {score.name: score.probability for score in zoo.load(made.package).predict(made.pictures[0], top=10)[0]}
    assert there == pytest.approx(here, abs=CLOSE)
