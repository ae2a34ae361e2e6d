"""`zoo.predict`, `zoo.explain`, `zoo.export` and `zoo.serve` give what their commands print, and print nothing."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hub_server.runs import own_caches, untrained_run
from PIL import Image

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import cli
from zoo.errors import DataError, InputError, ZooWarning
from zoo.evaluate.classifier import open_classifier
from zoo.predict.drawer import taken_path
from zoo.runs.api import open_run
from zoo.serve.server import listen


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("calls")
    with own_caches(base):
        yield untrained_run(base / "run", "cnn-baseline", limit_train=64, limit_test=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for name in ("a.png", "b.png", "sub/c.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing may be printed by what a test calls."""
    yield
    assert capfd.readouterr() == ("", "")


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [*map(str, words)])


# ---- zoo.predict ------------------------------------------------------------------------------------


def test_predict_gives_what_the_command_prints_to_the_last_digit(run: Path, photos: Path, silent: None) -> None:
    words = [str(photos), f"{photos}/sub/*.png"]
    done = typed("predict", run, *words, "-k", "2", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    found = zoo.predict(run, words, top=2)
    assert [one.as_dict() for one in found] == rows
    assert len(rows) == 4
    scores = [[(c["name"], c["probability"]) for c in row["classes"]] for row in rows]
    model = open_classifier(run, load_registry())
    paths = [row["image"] for row in rows]
    assert [list(one.classes) for one in found] == model.predict(paths, top=2) == scores
    assert [one.as_dict() for one in zoo.predict(model, words, top=2)] == rows
    assert [one.as_dict() for one in open_run(run).predict(words, top=2)] == rows


def test_a_prediction_knows_all_probabilities_and_is_shown_with_bars(run: Path, photos: Path, silent: None) -> None:
    (found,) = zoo.predict(run, photos / "a.png")
    assert (found.top1, found.probability) == tuple(found.classes[0])
    assert (found.probabilities.shape, found.probabilities.dtype) == ((10,), np.float32)
    assert found.probabilities.max() == np.float32(found.probability)
    assert (found.picture, found.explanation) == (None, None)
    assert repr(found) == f"Prediction({photos}/a.png: " + ", ".join(f"{n} {p:.1%}" for n, p in found.classes) + ")"
    shown = found._repr_html_()
    assert shown.count("<tr>") == 5
    assert "data:image/png;base64," in shown
    named = type(found)("<b>.png", (("<i>", 0.5),), found.probabilities)  # type: ignore[arg-type]  # wrong on purpose
    assert "&lt;b&gt;.png" in named._repr_html_()
    assert not {"<b>", "<i>"} & set(named._repr_html_().replace("<", " <").split())
    assert pickle.loads(pickle.dumps(found)).as_dict() == found.as_dict()


def test_pictures_of_every_kind_are_predicted_alike(run: Path, photos: Path, silent: None) -> None:
    path = photos / "a.png"
    opened = Image.open(path)
    pixels = np.asarray(opened)
    given = [path, str(path), path.read_bytes(), opened, opened.copy(), pixels]
    found = zoo.predict(run, iter(given), top=10)
    assert all(one.classes == found[0].classes for one in found)
    assert [one.image for one in found] == [*[str(path)] * 2, "images[2]", str(path), "images[4]", "images[5]"]
    for one in (path, pixels, path.read_bytes(), pixels[None]):
        assert zoo.predict(run, one, top=10)[0].classes == found[0].classes
    with pytest.raises(InputError, match=r"images\[1\]: an array of float64 \(12, 10, 3\) is no image"):
        zoo.predict(run, [pixels, pixels / 255])


def test_an_unreadable_image_raises_is_left_out_or_stands_in_its_place(
    run: Path, photos: Path, tmp_path: Path, silent: None
) -> None:
    (tmp_path / "list.txt").write_bytes(f"{photos}/a.png\0nowhere.png\0{photos}/b.png".encode())
    options = {"files_from": tmp_path / "list.txt", "null": True}
    with pytest.raises(DataError, match=r"nowhere\.png: cannot be read"):
        zoo.predict(run, **options)
    with pytest.warns(ZooWarning, match=r"nowhere\.png: cannot be read .*; left out") as caught:
        found = zoo.predict(run, **options, skip_bad=True)
    assert caught[0].filename == __file__
    stream = zoo.predict(run, **options, stream=True)
    first, second, third = stream
    assert isinstance(second, DataError)
    assert [first.as_dict(), third.as_dict()] == [one.as_dict() for one in found]
    done = typed("predict", run, "--files-from", tmp_path / "list.txt", "-0", "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [one.as_dict() for one in found]
    assert done.stderr == f"error: {second}\n"
    assert str(done.exception) == "1 of 3 images could not be read"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no images given"),
        ({"images": []}, "no images given"),
        ({"images": "-", "files_from": "-"}, "not both"),
        ({"images": "a.png", "top": 0}, "top 0: allowed: at least 1"),
        ({"images": "a.png", "batch_size": 5000}, "batch_size 5000: allowed: 1 to 4,096"),
        ({"images": "a.png", "threads": 65}, "threads 65: allowed: 1 to 64"),
        ({"images": "a.png", "explain": "x", "explain_method": "gaze"}, "'gaze'; allowed: auto, hires-cam"),
        ({"images": "a.png", "explain_method": "grad-cam"}, "--explain-method grad-cam: is for the pictures"),
        ({"images": "a.png", "null": True}, "--null says how the paths of --files-from end"),
        ({"images": "a.png", "device": "tpu"}, "no device named 'tpu'"),
        ({"images": "a.png", "files_from": "nowhere.txt"}, "--files-from nowhere.txt: cannot be read"),
    ],
)
def test_wrong_input_is_said_as_the_command_says_it(run: Path, options: dict, said: str, silent: None) -> None:
    with pytest.raises((InputError, DataError), match=said):
        zoo.predict(run, **options)


def test_what_is_no_run_is_said_and_a_loaded_model_stays_where_it_is(run: Path, photos: Path, silent: None) -> None:
    with pytest.raises(InputError, match="no run folder 'nowhere'"):
        zoo.predict("nowhere", photos)
    with pytest.raises(InputError, match="int is no run"):
        zoo.predict(3, photos)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(InputError, match=r"the classifier lies on cpu; classifier\.to\('cuda'\) moves it"):
        zoo.predict(open_classifier(run, load_registry()), photos, device="cuda")


# ---- zoo.explain ------------------------------------------------------------------------------------


def test_explain_gives_the_pictures_of_the_command(run: Path, photos: Path, tmp_path: Path, silent: None) -> None:
    done = typed("predict", run, photos, "--explain", tmp_path / "seen", "--json")
    rows = [json.loads(line)["explained"] for line in done.stdout.splitlines()]
    model = open_classifier(run, load_registry())
    found = zoo.explain(model, photos, output=tmp_path / "called")
    assert [one.as_dict() | {"picture": ""} for one in found] == [row | {"picture": ""} for row in rows]
    for one, row in zip(found, rows, strict=True):
        assert one.picture == tmp_path / "called" / Path(row["picture"]).name
        assert one.picture.read_bytes() == one.overlay == Path(row["picture"]).read_bytes()
        assert (one.saliency.shape, one.saliency.dtype) == ((8, 8), np.float32)
        assert 0 <= one.saliency.min() <= one.saliency.max() == 1
    assert all(parameter.requires_grad for parameter in model.parameters())
    predicted = zoo.predict(run, photos, explain=tmp_path / "more", explain_method="occlusion")
    assert {one.explanation.method for one in predicted if one.explanation} == {"occlusion"}
    assert all(one.picture is not None and one.picture.is_file() for one in predicted)
    assert "data:image/png;base64," in found[0]._repr_html_()
    (unsaved,) = zoo.explain(model, photos / "a.png")
    assert unsaved.picture is None
    assert Image.open(io.BytesIO(unsaved.overlay)).size == (320, 320)


def test_without_captum_it_is_said_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch, silent: None) -> None:
    monkeypatch.setattr("zoo.predict.api.find_spec", lambda name: None)
    for ask in (lambda: zoo.explain("nowhere", "a.png"), lambda: zoo.predict("nowhere", "a.png", explain="x")):
        with pytest.raises(InputError, match="--explain needs captum"):
            ask()


# ---- zoo.export -------------------------------------------------------------------------------------


def test_export_gives_what_the_command_prints(run: Path, tmp_path: Path, silent: None) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    done = typed("export", copied, "--format", "torch", "--with-preprocessing", "--json")
    made = zoo.export(copied, format="torch", with_preprocessing=True)
    assert made.as_dict() == json.loads(done.stdout)
    assert made.path == copied / "model.pt2"
    assert repr(made).startswith(f"Exported({copied}/model.pt2: cnn-baseline, torch.export 2.")
    assert "takes `pixels`: uint8" in made._repr_html_()


def test_a_loaded_model_is_exported_as_a_copy(run: Path, tmp_path: Path, silent: None) -> None:
    model = open_classifier(run, load_registry()).train()
    made = zoo.export(model, tmp_path / "a.pt2", format="torch", batch="dynamic", check=False)
    assert made.metadata["zoo.weights"] == "of a loaded model, perhaps changed since"
    assert model.training
    assert model.module.training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 3}, "--num-classes, --image-size and --seed need --untrained"),
        ({"output": "a.bin"}, "a file of format onnx ends in .onnx"),
        ({"format": "tflite"}, "--format 'tflite'; allowed: onnx, torch"),
        ({"batch": 0}, "--batch 0: a batch has at least 1 image"),
        ({"batch": "some"}, "--batch some: a batch has at least 1 image"),
        ({"tolerance": 0}, "tolerance 0: allowed: more than 0"),
        ({}, "is a model, not a run; zoo export cnn-res5 --untrained"),
    ],
)
def test_a_wrong_option_of_export_is_said_as_the_command_says_it(options: dict, said: str, silent: None) -> None:
    with pytest.raises(InputError, match=said):
        zoo.export("cnn-res5", **options)


# ---- zoo.serve --------------------------------------------------------------------------------------


def asked(url: str, data: bytes) -> dict:
    request = urllib.request.Request(f"{url}predict?top=10", data, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def signal_handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_a_server_in_a_thread_answers_as_predict_and_leaves_nothing(run: Path, photos: Path, silent: None) -> None:
    before, handlers, told = threads(), signal_handlers(), []
    data = (photos / "a.png").read_bytes()
    with zoo.serve(run, port=0, block=False, ready=told.append) as server:
        assert told == [server.url]
        assert signal_handlers() == handlers
        (found,) = zoo.predict(run, data, top=10)
        assert asked(server.url, data)["classes"] == found.as_dict()["classes"]
        assert repr(server) == f"Serving(cnn-baseline, {server.url})"
        assert server.running
        assert server.url in server._repr_html_()
    assert (server.whole, server.running, server.stop()) == (True, False, True)
    assert "stopped" in repr(server)
    assert threads() == before
    with pytest.raises(urllib.error.URLError):
        asked(server.url, data)


def test_a_model_that_fails_is_answered_and_told_to_the_log(
    run: Path, photos: Path, caplog: pytest.LogCaptureFixture, silent: None
) -> None:
    model = open_classifier(run, load_registry())
    model.probabilities = lambda pixels: 1 / 0  # type: ignore[method-assign]  # wrong on purpose
    with zoo.serve(model, port=0, block=False) as server, pytest.raises(urllib.error.HTTPError, match="500"):
        asked(server.url, (photos / "a.png").read_bytes())
    assert [(r.name, r.getMessage()) for r in caplog.records if r.name == "zoo"] == [
        ("zoo", "error: ZeroDivisionError: division by zero")
    ]


def test_ctrl_c_ends_a_call_that_blocks_and_is_no_error(run: Path, silent: None) -> None:
    before = threads()
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    done = zoo.serve(open_classifier(run, load_registry()), port=0, ready=lambda url: timer.start())
    assert done.whole
    timer.join()
    assert threads() == before


def test_the_command_and_the_call_take_the_same_port_and_say_the_same(
    run: Path, monkeypatch: pytest.MonkeyPatch, silent: None
) -> None:
    from zoo.serve.serving import Serving

    monkeypatch.setattr(Serving, "run", lambda self, started: (started(), setattr(self, "whole", True)))
    done = typed("serve", run, "--port", "0", "--host", "0.0.0.0")
    assert done.exit_code == 0
    warning, serving, stopped = done.stderr.splitlines()
    assert warning.startswith("warning: whoever can reach 0.0.0.0 can use this server")
    assert (serving, stopped) == ("serving cnn-baseline; Ctrl-C stops", "stopped")
    assert re.fullmatch(r"http://0\.0\.0\.0:\d+/\n", done.stdout)
    with pytest.warns(ZooWarning, match=r"whoever can reach 0\.0\.0\.0"):
        zoo.serve(run, host="0.0.0.0", port=0, block=False).stop()


def test_what_cannot_be_served_is_said_and_frees_the_port(run: Path, silent: None) -> None:
    for options, said in (
        ({"port": 70000}, "port 70000: allowed: 0 to 65,535"),
        ({"rate": -1}, "rate -1: allowed"),
        ({"block": False, "handle_signals": True}, "blocks in the main thread"),
    ):
        with pytest.raises(InputError, match=said):
            zoo.serve(run, **options)
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="give another --port"):
            zoo.serve(run, port=port)
    with pytest.raises(InputError, match="no run folder 'nowhere'"):
        zoo.serve("nowhere", port=port)
    listen("127.0.0.1", port).close()
    with pytest.raises(ZeroDivisionError):
        zoo.serve(run, port=0, block=False, ready=lambda url: 1 / 0)
    assert "zoo-serve" not in threads()


def test_one_host_is_one_name_and_not_its_letters(run: Path, silent: None) -> None:
    with zoo.serve(run, port=0, block=False, allow_host="zoo.example") as server:
        asked = urllib.request.Request(server.url, headers={"host": "zoo.example"})
        assert urllib.request.urlopen(asked).status == 200


# ---- what people give by mistake, and what they keep ------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [None, 3, np.uint8(3), torch.tensor(1), io.BytesIO(b"x"), bytearray(b"x"), memoryview(b"x")]
)
def test_what_is_neither_an_image_nor_several_is_refused_by_its_type(run: Path, wrong: Any) -> None:
    model = zoo.load(run)
    for call in (model.predict, model.read, lambda given: zoo.predict(model, given)):
        with pytest.raises(InputError, match=f"{type(wrong).__name__} is no image; give a path"):
            call(wrong)


def test_no_class_cannot_be_asked_for_and_no_image_gives_none(run: Path) -> None:
    model = zoo.load(run)
    for top in (0, -1):
        with pytest.raises(InputError, match=f"top {top}: allowed: at least 1"):
            model.predict(np.zeros((8, 8), np.uint8), top=top)
    assert model.predict([]) == []
    assert model.read([]).shape == (0, 3, 8, 8)


def test_an_image_without_a_path_is_named_by_its_number(run: Path, photos: Path) -> None:
    good, cut = (photos / "a.png").read_bytes(), (photos / "a.png").read_bytes()[:60]
    with pytest.raises(DataError, match=r"images\[1\]: cannot be read"):
        zoo.load(run).predict([good, cut])


def test_an_error_that_is_kept_keeps_no_threads(run: Path, photos: Path) -> None:
    (photos / "cut.txt").write_bytes(b"no image")
    with pytest.raises(DataError) as kept:
        zoo.predict(run, [photos / "cut.txt", *[photos / "a.png"] * 40], batch_size=4)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert "cut.txt" in str(kept.value)


def test_pictures_drawn_at_one_time_into_one_folder_have_names_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: taken_path("photos/cat.jpg", tmp_path / "pictures"), range(40)))
    names = {"cat.explained.png", *(f"cat-{number}.explained.png" for number in range(2, 41))}
    assert {path.name for path in found} == names == {path.name for path in (tmp_path / "pictures").iterdir()}
