"""A static Space: its page in a real browser, and how it comes to the Hub."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import msgspec
import numpy as np
import PIL
import pytest
from click.testing import CliRunner, Result
from hub_server import Fault, HubServer
from hub_server.here import led_here
from hub_server.runs import own_caches
from PIL import Image

import zoo
from zoo.base.paths import cache_dir
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.data.files.decode import Rule, transform_rule
from zoo.errors import HubConflictError, HubPermissionError, InputError
from zoo.hub.package import open_package
from zoo.hub.publication import Published
from zoo.hub.static_space import Asked, asked_space, make_space
from zoo.hub.sums import ONNX, SUMS
from zoo.hub.web_runtime import PACKAGE, RUNTIME, VERSION, runtime_folder
from zoo.plugin import Transform

REPO, TOKEN = "me/digits", "hf_write"
CLOSE = 1e-3
PILLOW = int(PIL.__version__.partition(".")[0])
TEMPLATES = Path(zoo.__file__).parent / "hub" / "templates"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of the runtime's names, for what is about their way and not about their content."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME:
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime Web, fetched by npm as a user's would be."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, which fetches onnxruntime-web")
    with own_caches(tmp_path_factory.mktemp("npm")):
        try:
            return runtime_folder(None)
        except InputError as error:
            pytest.skip(f"needs onnxruntime-web: {error}")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as server, led_here(server, tmp_path / "hf", TOKEN):
        server.store.users[TOKEN] = ("me", "write")
        yield server


# ---- the page ----------------------------------------------------------------------------------


def pictures(folder: Path) -> list[Path]:
    """Files of the kinds that a browser decodes to exactly Pillow's pixels; each is scaled in another way."""
    draw = np.random.default_rng(3)

    def image(*shape: int) -> Image.Image:
        return Image.fromarray(draw.integers(0, 256, shape, np.uint8))

    clear = np.dstack([np.full((6, 9, 3), 90, np.uint8), np.where(np.arange(54).reshape(6, 9) % 2, 255, 0)])
    turned = Image.Exif()
    turned[0x0112] = 6
    made = {
        "same.png": image(8, 8, 3),
        "large.png": image(61, 47, 3),
        "small.png": image(3, 5, 3),
        "grey.png": image(12, 8),
        "clear.png": Image.fromarray(clear.astype(np.uint8)),
        "palette.gif": image(20, 20, 3).quantize(16),
        "turned.png": image(16, 11, 3),
    }
    paths = []
    for name, picture in made.items():
        paths.append(folder / name)
        picture.save(paths[-1], **({"exif": turned} if name == "turned.png" else {}))
    return paths


def shown(page: chromium.Page) -> dict[str, float]:
    """The classes of the newest answer with their probabilities, before they are rounded for people."""
    rows = page.run(
        "[...document.querySelectorAll('#answers li:first-child tr')].map("
        "row => [row.querySelector('th').textContent, row.querySelector('progress').value])"
    )
    return dict(rows)


def give(page: chromium.Page, path: Path) -> None:
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)


@pytest.mark.slow
def test_a_visitor_sees_what_zoo_predict_says(with_onnx: Path, runtime: Path, hub: HubServer, tmp_path: Path) -> None:
    published = zoo.publish(with_onnx, REPO, space=True, runtime=runtime)
    model, address = zoo.load(with_onnx), f"{published.space}/page/"
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with chromium.opened(tmp_path / "profile") as page:
        page.view(390, 800, touch=True)
        page.open(address)
        for number, path in enumerate(pictures(tmp_path), 1):
            give(page, path)
            page.wait(f"document.querySelectorAll('#answers table').length === {number}", 120)
            wanted = {score.name: score.probability for score in model.predict(path, top=5)[0]}
            assert max(wanted.values()) > 0.2  # far from the tenth that a model says which knows nothing
            assert shown(page) == pytest.approx(wanted, abs=CLOSE), path.name
            assert list(shown(page)) == list(wanted)
        give(page, tmp_path / "bad.png")
        page.wait("document.querySelector('#answers li:first-child .error')")
        assert "cannot read it" in page.run("document.querySelector('#answers .error').textContent")
        Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "deep.png")
        give(page, tmp_path / "deep.png")
        page.wait("document.querySelector('#answers li:first-child .error')?.textContent.includes('16 bits a channel')")
        assert page.run("document.documentElement.scrollWidth") <= 390
        assert page.low_contrasts() == []
        assert page.complaints() == []
        assert {url.removeprefix(address) for url in page.requests()} == {"", "model.onnx", *RUNTIME}
        del hub.store.repos[f"spaces/{REPO}"].head().files["model.onnx"]
        page.open(address)
        page.wait("document.getElementById('status').textContent.startsWith('The model cannot be loaded: ')", 60)


@pytest.mark.parametrize("side", [(8, 8), (47, 3), (5, 90), (30, 31)])
def test_the_page_scales_as_pillow_does(side: tuple[int, int], tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node, which runs the page's script")
    pixels = np.random.default_rng(1).integers(0, 256, (*side, 3), np.uint8)
    filters = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    rules: list[dict[str, Any]] = [{"size": [8, 8], "interpolation": name} for name in filters]
    rules += [{"size": [11, 30], "interpolation": name} for name in filters]
    rules += [
        {"resize": 9, "crop": 7, "interpolation": "bicubic"},
        {"resize": 5, "interpolation": "bilinear"},
        {"crop": 3},
        {"resize": 20, "crop": 5, "interpolation": "bicubic", "rounding": "torchvision"},
        {"resize": 9, "squash": True, "crop": 6, "interpolation": "bilinear", "rounding": "torchvision"},
    ]
    script = (TEMPLATES / "scale.js").read_text("utf-8") + (
        "const [image, rules] = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "image.data = Uint8Array.from(image.data);"
        "console.log(JSON.stringify(rules.map(rule => fitted(image, rule)).map("
        "({width, height, data}) => [height, width, [...data]])));"
    )
    given = {"width": side[1], "height": side[0], "data": pixels.ravel().tolist()}
    done = subprocess.run(
        ["node", "-e", script], input=json.dumps([given, rules]), capture_output=True, text=True, check=True, timeout=60
    )
    for rule, (height, width, data) in zip(rules, json.loads(done.stdout), strict=True):
        ours = Rule(**{key: tuple(value) if key == "size" else value for key, value in rule.items()})
        wanted = np.asarray(ours.apply(Image.fromarray(pixels)), np.int64)
        difference = np.abs(np.array(data).reshape(height, width, 3) - wanted).max()
        assert difference <= (0 if PILLOW >= 13 else 2), rule  # older ones always begin with the width


def facts_of(page: str) -> Any:
    (facts,) = re.findall(r'<script type="application/json" id="facts">(.*)</script>', page)
    return json.loads(facts)


def test_the_page_knows_the_whole_rule(with_onnx: Path, stand_in: Path, tmp_path: Path) -> None:
    registry = load_registry()
    opened = open_package(with_onnx, registry=registry)
    as_timm = Transform(size=(8, 8), resize=9, squash=True, interpolation="bicubic", rounding="torchvision")
    data = msgspec.structs.replace(opened.record.data, transform=as_timm)
    tuned = opened._replace(record=msgspec.structs.replace(opened.record, data=data))
    space = make_space(tuned, Asked(REPO, stand_in), REPO, tmp_path / "made", registry)
    rule = facts_of((space.folder / "index.html").read_text("utf-8"))["rule"]
    assert Rule(**rule) == transform_rule(as_timm)


def test_names_are_text_on_the_page(with_onnx: Path, stand_in: Path, tmp_path: Path) -> None:
    registry = load_registry()
    opened = open_package(with_onnx, registry=registry)
    names = tuple(f"</script><img src=x onerror=alert({n})>" for n in range(10))
    config = msgspec.structs.replace(opened.config, classes=names)
    record = msgspec.structs.replace(opened.record, model="</title><script>alert(1)</script>\n- x: [y](z)")
    strange = opened._replace(config=config, record=record)
    space = make_space(strange, Asked(REPO, stand_in), REPO, tmp_path / "made", registry)
    page = (space.folder / "index.html").read_text("utf-8")
    assert (page.count("<script"), page.count("</script>"), page.count("<img")) == (2, 2, 0)
    assert facts_of(page)["classes"] == list(names)
    readme = (space.folder / "README.md").read_text("utf-8")
    assert "<script>" not in readme.split("---\n", 2)[2]


# ---- on the Hub --------------------------------------------------------------------------------


def sent(hub: HubServer, kind: str) -> list[str]:
    return [request.path for request in hub.log if request.kind == kind]


def publish(with_onnx: Path, stand_in: Path, **options: Any) -> Published:
    return zoo.publish(with_onnx, REPO, space=True, runtime=stand_in, **options)


def test_publishing_again_sends_nothing(with_onnx: Path, stand_in: Path, hub: HubServer) -> None:
    first = publish(with_onnx, stand_in)
    space = hub.store.repos[f"spaces/{REPO}"]
    names = {"README.md", "index.html", "model.onnx", SUMS, *RUNTIME}
    assert set(space.head().files) == {*names, ".gitattributes"}
    assert hub.store.content(space.head().files["model.onnx"]) == (with_onnx / ONNX).read_bytes()
    assert first.space == f"{hub.endpoint}/spaces/{REPO}"
    hub.log.clear()
    assert publish(with_onnx, stand_in) == first
    assert sent(hub, "commit") == sent(hub, "lfs-put") == []


def test_what_was_interrupted_goes_on(with_onnx: Path, stand_in: Path, hub: HubServer) -> None:
    hub.faults.append(Fault("commit", "403", path="/api/spaces/"))
    with pytest.raises(HubPermissionError, match=rf"hf://{REPO}@[0-9a-f]{{40}} is published; publish again for the"):
        publish(with_onnx, stand_in)
    assert f"spaces/{REPO}" not in hub.store.repos  # it was empty
    hub.faults.clear()
    hub.store.create(f"spaces/{REPO}")  # as a killed process leaves it
    hub.log.clear()
    publish(with_onnx, stand_in)
    assert sent(hub, "commit") == [f"/api/spaces/{REPO}/commit/main"]


def test_a_lost_answer_is_looked_for(with_onnx: Path, stand_in: Path, hub: HubServer) -> None:
    hub.faults.append(Fault("commit", "lost", path="/api/spaces/", times=1))
    publish(with_onnx, stand_in)
    assert len(hub.store.repos[f"spaces/{REPO}"].commits) == 2


def test_a_space_of_somebody_else_stays(with_onnx: Path, stand_in: Path, hub: HubServer) -> None:
    hub.store.put(f"spaces/{REPO}", {"index.html": b"mine"})
    with pytest.raises(HubConflictError, match="a Space of this name that zoo has not made"):
        publish(with_onnx, stand_in)
    assert publish(with_onnx, stand_in, replace_edits=True).space
    hub.store.put(f"spaces/{REPO}", {"index.html": b"edited"})
    with pytest.raises(HubConflictError, match=r"somebody edited index\.html there"):
        publish(with_onnx, stand_in)


def test_a_newer_page_replaces_ours(with_onnx: Path, stand_in: Path, hub: HubServer, tmp_path: Path) -> None:
    publish(with_onnx, stand_in)
    newer = shutil.copytree(stand_in, tmp_path / "newer")
    (newer / RUNTIME[0]).write_bytes(b"newer")
    publish(with_onnx, newer)
    files = hub.store.repos[f"spaces/{REPO}"].head().files
    assert files[RUNTIME[0]].data == b"newer"


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


def test_the_command(with_onnx: Path, stand_in: Path, hub: HubServer) -> None:
    words = ("publish", with_onnx, REPO, "--runtime", stand_in, "--space")
    shown = typed(*words, "me/page", "--dry-run")
    assert "and one in the Space me/page: 7 files" in shown.stderr
    planned = json.loads(typed(*words, "--dry-run", "--json").stdout)
    assert (planned["space"]["repo"], len(planned["space"]["files"])) == (REPO, 7)
    assert not hub.store.repos
    done = typed(*words, "me/page")
    assert done.exit_code == 0, done.exception
    assert f"the Space: {hub.endpoint}/spaces/me/page\n" in done.stderr
    assert json.loads(typed(*words, "me/page", "--json").stdout)["space"].endswith("/spaces/me/page")


# ---- what is refused ---------------------------------------------------------------------------


def test_options_that_do_not_fit_are_refused(stand_in: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--runtime .* give --space too"):
        asked_space(False, REPO, stand_in, create_pr=False)
    with pytest.raises(InputError, match="--create-pr only proposes it"):
        asked_space(True, REPO, stand_in, create_pr=True)
    with pytest.raises(InputError, match="leave out @v1"):
        asked_space("me/page@v1", REPO, stand_in, create_pr=False)
    with pytest.raises(InputError, match=rf"has no {re.escape(RUNTIME[0])}; needed are .* npm's package {PACKAGE}"):
        asked_space(True, REPO, tmp_path, create_pr=False)


def test_the_folder_of_the_package_will_do(stand_in: Path, tmp_path: Path) -> None:
    shutil.copytree(stand_in, tmp_path / "node_modules" / PACKAGE / "dist")
    assert runtime_folder(tmp_path) == tmp_path / "node_modules" / PACKAGE / "dist"


def test_without_npm_a_folder_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        InputError, match=r"npm, which would fetch it, is not installed; install npm, or .* --runtime FOLDER"
    ):
        runtime_folder(None)


def test_npm_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code E404' >&2\nexit 1\n", "utf-8")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(InputError, match=rf"npm cannot fetch {PACKAGE}@{re.escape(VERSION)} \(npm error code E404\)"):
        runtime_folder(None)
    assert not (cache_dir() / PACKAGE).exists()
