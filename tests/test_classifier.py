"""What `zoo.load` gives: a model with all that its images need."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hub_server.runs import own_caches, untrained_run
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import zoo
from zoo.base.text import plural
from zoo.catalogue.registry import load_registry
from zoo.data.files.decode import Rule
from zoo.data.split import VALIDATION_FRACTION
from zoo.errors import DataError, InputError, RunError
from zoo.evaluate.classifier import Classifier, Preprocessing, Score
from zoo.evaluate.one_pass import Keep, evaluate, places
from zoo.evaluate.opened import open_run
from zoo.models.max_pool import RowMaxPool2d
from zoo.models.window import WindowConv2d
from zoo.runs.images import images_of, split_of
from zoo.runs.load import load as load_module
from zoo.runs.record import Sizes, read_record
from zoo.train.plan import replan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("classifier")
    with own_caches(base):
        yield untrained_run(base / "run", "cnn-baseline", limit_train=100, limit_test=64)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_file_its_bytes_and_an_opened_image_give_the_same_classes(run: Path, photo: Path) -> None:
    model = zoo.load(run)
    with Image.open(photo) as image:
        rows = model.predict([photo, str(photo), photo.read_bytes(), image], top=3)
        assert image.getpixel((0, 0))  # still open
    assert rows[0] == rows[1] == rows[2] == rows[3]
    assert [len(row) for row in rows] == [3] * 4
    assert rows[0][0].probability >= rows[0][1].probability >= rows[0][2].probability
    alone = model.predict(photo, top=99)[0][:3]  # in a batch of its own, which may round otherwise
    assert [score.name for score in alone] == [score.name for score in rows[0]]
    assert [score.probability for score in alone] == pytest.approx([score.probability for score in rows[0]])
    assert sorted(score.name for score in model.predict(photo, top=99)[0]) == list("0123456789")


def test_an_image_that_cannot_be_read_is_named(run: Path, tmp_path: Path, photo: Path) -> None:
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:100])
    with pytest.raises(DataError, match=r"broken\.png"):
        zoo.load(run).predict([photo, tmp_path / "broken.png"])


@pytest.mark.parametrize("compute", ["predict", "embed"])
def test_we_compute_by_quick_layers_with_and_without_a_device(compute: str, run: Path, photo: Path) -> None:
    """The same numbers to the bit, in the same time; until then a model has torch's own layers."""
    plain, moved = zoo.load(run), zoo.load(run, device="cpu")
    layers = list(plain.module.modules())
    kinds, seen = [type(layer) for layer in layers], set()
    for layer in layers:
        layer.register_forward_hook(lambda layer, *_: seen.add(type(layer)))
    if compute == "predict":
        assert plain.predict(photo) == moved.predict(photo)
    else:
        files = [photo.with_name(f"{name}.npy") for name in ("plain", "moved")]
        pairs = zip((plain, moved), files, strict=True)
        features = [zoo.embed(model, [photo], output=file) for model, file in pairs]
        assert np.array_equal(features[0].features, features[1].features)
    assert {RowMaxPool2d, WindowConv2d} <= seen
    assert kinds.count(nn.Conv2d) == 3
    assert [type(layer) for layer in layers] == [type(layer) for layer in moved.module.modules()]
    assert any(type(layer) is RowMaxPool2d for layer in moved.module.modules())


def test_threads_may_predict_with_one_model_at_the_same_time(run: Path, photo: Path) -> None:
    """They take turns often here: a layer must not become another one while a thread is in the middle of it."""
    model = zoo.load(run)
    images = [photo] * 8
    alone = zoo.load(run).predict(images)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda _: model.predict(images), range(200)))
    finally:
        sys.setswitchinterval(usual)
    for rows in together:
        for row, expected in zip(rows, alone, strict=True):
            assert [score.name for score in row] == [score.name for score in expected]
            assert [score.probability for score in row] == pytest.approx([score.probability for score in expected])


def test_a_call_is_the_modules_own_with_gradients(run: Path) -> None:
    model, module = zoo.load(run), load_module(run, load_registry())
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    logits = model(images)
    assert torch.equal(logits, module(images))
    logits.sum().backward()
    assert images.grad is not None
    assert not model.module.training
    assert all(p.requires_grad and p.grad is not None for p in model.module.parameters())


def test_more_images_than_a_batch_come_out_in_their_order(run: Path) -> None:
    model = zoo.load(run)
    images = [Image.new("RGB", (8, 8), (n, 255 - n, n)) for n in range(150)]
    rows = model.predict(iter(images), top=1)
    alone = [model.predict(images[n], top=1)[0][0] for n in (0, 63, 64, 149)]
    for number, score in zip((0, 63, 64, 149), alone, strict=True):
        assert rows[number][0].name == score.name
        assert rows[number][0].probability == pytest.approx(score.probability, abs=1e-6)
    assert len(rows) == 150


def test_predictions_are_those_of_the_evaluation(run: Path) -> None:
    opened = open_run(run)
    pixels = np.asarray(opened.images.images)
    correct = int((zoo.load(run).to("cpu").probabilities(pixels).argmax(1).numpy() == opened.images.labels).sum())
    assert correct == opened.measure().correct


def test_the_views_of_the_recipe_are_averaged_and_a_call_takes_the_image_alone() -> None:
    torch.manual_seed(0)
    model = Classifier(
        name="linear",
        module=nn.Sequential(nn.Flatten(), nn.Linear(48, 3)),
        sizes=Sizes(in_channels=3, height=4, width=4, num_classes=3),
        preprocessing=Preprocessing(Rule(size=(4, 4))),
        tta="mirror",
    )
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    images = pixels.float() / 255
    mean = (model(images) + model(images.flip(-1))) / 2
    torch.testing.assert_close(model.logits(pixels), mean)
    assert not torch.allclose(model.logits(pixels), model(images))
    best = model.best(torch.tensor([0.2, 0.5, 0.3]), 2)
    assert [score.name for score in best] == ["1", "2"]  # without names, their numbers
    assert isinstance(best[0], Score)


# ---- a module as torch knows one ------------------------------------------------------------------


def test_its_state_has_the_names_of_the_file_also_inside_of_another_module(run: Path) -> None:
    model, saved = zoo.load(run), load_file(run / "model.safetensors")
    assert model.state_dict().keys() == saved.keys()
    outer = nn.ModuleDict({"backbone": model})
    assert outer.state_dict().keys() == {f"backbone.{name}" for name in saved}
    first = next(iter(model.state_dict()))
    with torch.no_grad():
        next(model.parameters()).zero_()
    assert not torch.equal(model.state_dict()[first], saved[first])
    outer.load_state_dict({f"backbone.{name}": tensor for name, tensor in saved.items()})
    assert torch.equal(model.state_dict()[first], saved[first])
    model.load_state_dict(saved)
    model.module.load_state_dict(model.state_dict())  # and the model's own module takes it
    missing, unexpected = model.load_state_dict({"other": torch.ones(1)}, strict=False)
    assert (missing[0], unexpected) == (first, ["other"])
    assert outer.load_state_dict({}, strict=False).missing_keys[0] == f"backbone.{first}"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), "torch"])
def test_a_copy_and_a_saved_one_answer_alike_and_stand_alone(run: Path, photo: Path, again: Any) -> None:
    model = zoo.load(run)
    rows = model.predict(photo, top=10)
    if again == "torch":
        file = io.BytesIO()
        torch.save(model, file)
        other = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    else:
        other = again(model)
    assert other.predict(photo, top=10) == rows
    assert (other.record, other.classes, other.transform) == (model.record, model.classes, model.transform)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert other.predict(photo, top=10) != rows == model.predict(photo, top=10)


def test_it_trains_compiles_and_changes_its_type_as_any_module(run: Path, photo: Path) -> None:
    model = zoo.load(run)
    model.module = nn.Sequential(nn.Dropout(0.5), model.module).eval()
    before = model.predict(photo, top=3)
    assert not model.training
    assert model.train() is model
    assert all(part.training for part in model.modules())
    assert model.predict(photo, top=3) == before  # in eval mode, whatever the mode
    assert all(part.training for part in model.modules())
    model.eval()
    images = model.read([photo, photo])
    assert torch.allclose(torch.compile(model, backend="eager")(images), model(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.bfloat16
    assert model.to("cpu") is model
    assert model.double().probabilities(np.zeros((1, 3, 8, 8), np.uint8)).dtype == torch.float32
    assert model.prepare(np.zeros((1, 3, 8, 8), np.uint8)).dtype == torch.float64
    assert model.to(dtype=torch.float32).device == torch.device("cpu")


@pytest.mark.parametrize("outputs", [1, 3, 13])
def test_another_head_does_not_answer_with_the_names_of_the_old_classes(outputs: int, run: Path, photo: Path) -> None:
    model = zoo.load(run)
    model.module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, outputs))
    said = (
        f"its module gives {plural(outputs, 'logit')} for an image, and `classes` has 10 names; .* set `model.classes`"
    )
    with pytest.raises(InputError, match=said):
        model.predict(photo)
    model.classes = tuple(f"class {number}" for number in range(outputs))
    assert {score.name for score in model.predict(photo, top=20)[0]} == set(model.classes)


def test_what_it_is_stands_on_one_line_and_in_a_notebook(run: Path) -> None:
    model = zoo.load(run)
    assert isinstance(model, zoo.Classifier)
    assert model.record == read_record(run)
    assert repr(model) == (
        f"Classifier(cnn-baseline: {model.parameter_count:,} parameters, 10 classes, 8x8, "
        "trained on sklearn:digits, cpu)"
    )
    model.classes = ("<script>", *model.classes[1:])
    shown = model._repr_html_()
    assert "&lt;script&gt;, 1, 2" in shown
    assert "<script>" not in shown
    assert "cnn.baseline" in shown


def test_the_transform_is_what_an_evaluation_feeds_and_can_be_sent_to_workers(run: Path, photo: Path) -> None:
    model = zoo.load(run)
    transform = pickle.loads(pickle.dumps(model.transform))
    pixels = np.asarray(Image.open(photo))
    for picture in (photo, str(photo), photo.read_bytes(), Image.open(photo), pixels):
        image = transform(picture)
        assert (image.shape, image.dtype) == ((3, 8, 8), torch.float32)
        assert torch.equal(image, model.read(photo)[0])
    opened = open_run(run)
    small = np.asarray(opened.images.images)[:5]
    arrays = [np.ascontiguousarray(one.transpose(1, 2, 0)) for one in small]
    assert torch.equal(torch.stack([transform(one) for one in arrays]), model.prepare(small))
    assert model.predict(np.stack(arrays), top=2) == model.predict(arrays, top=2)
    assert torch.equal(transform(pixels[..., 0]), transform(pixels[..., :1]))
    for wrong in (pixels.astype(float), pixels[..., :2], np.zeros((0, 4, 3), np.uint8), 7):
        with pytest.raises(InputError, match="is no image; give a path, the bytes"):
            transform(wrong)


# ---- the images of a run --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_a_runs_images_are_divided_alike_for_an_evaluation_and_for_going_on(run: Path, protocol: str) -> None:
    registry = load_registry()
    record = msgspec.structs.replace(read_record(run), protocol=protocol)
    plan = replan(record)
    images = images_of(record, registry)
    held_out = round(100 * VALIDATION_FRACTION) if protocol == "clean" else 0
    assert len(images.train) == 100 - held_out
    assert len(images.test) == 64
    for split, planned in (("train", plan.train), ("test", plan.test)):
        again = split_of(record, split, registry)
        assert np.array_equal(again.labels, planned.labels)
        assert np.array_equal(again.images, planned.images)
    assert np.array_equal(images.selecting.images, plan.selecting.images)
    if protocol == "clean":
        assert np.array_equal(split_of(record, "val", registry).images, plan.selecting.images)
    else:
        assert images.selecting is images.test


def test_other_images_than_the_recorded_ones_are_refused_for_both(run: Path) -> None:
    record = read_record(run)
    other = msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, fingerprint="0" * 64))
    for use in (lambda: split_of(other, "test", load_registry()), lambda: replan(other)):
        with pytest.raises(RunError, match="is not the recorded one: its fingerprint is"):
            use()


def test_of_equal_outputs_the_first_class_wins_however_many_are_asked_for(run: Path) -> None:
    model = zoo.load(run)
    even = torch.full((10,), 0.1)
    for top in range(1, 11):
        assert [score.name for score in model.best(even, top)] == list("0123456789")[:top]
    logits = torch.zeros(10, 10)
    labels = torch.arange(10)
    assert places(logits, labels).tolist() == list(range(10))
    keep = Keep()
    keep(logits, labels)
    assert keep.predictions().predicted.tolist() == [0] * 10
    whole = evaluate(nn.Identity(), iter([(labels, logits, labels)]), lambda x: x, autocast=nullcontext)
    assert (whole.correct, whole.top5) == (1, 0.5)


def test_a_batch_that_is_sorted_at_once_gives_what_each_row_gives(run: Path) -> None:
    model = zoo.load(run)
    rows = torch.randint(0, 4, (50, 10), generator=torch.Generator().manual_seed(0)).float() / 7
    rows[3, 4] = torch.nan
    rankings = model.rankings(rows)
    for number, (row, ranking) in enumerate(zip(rows, rankings, strict=True)):
        if number == 3:
            with pytest.raises(RunError, match="not finite numbers"):
                model.scores(ranking, 5)
            continue
        order = [place for _, place in sorted((-value, place) for place, value in enumerate(row.tolist()))]
        wanted = [(str(place), float(row[place])) for place in order]
        assert model.scores(ranking, 10) == model.best(row, 10) == wanted
    even = torch.full((1, 10), 0.5, dtype=torch.bfloat16)
    assert model.best(even[0], 1) == [("0", 0.5)]


def test_places_are_those_of_a_sorted_row_and_what_is_no_number_predicts_nothing() -> None:
    logits = torch.randint(0, 5, (200, 9), generator=torch.Generator().manual_seed(0)).float()
    labels = torch.arange(200) % 9
    order = logits.sort(dim=1, descending=True, stable=True).indices
    assert torch.equal(places(logits, labels), (order == labels[:, None]).int().argmax(1))
    assert places(torch.full((1, 3), torch.nan), torch.tensor([0])).item() == 3
