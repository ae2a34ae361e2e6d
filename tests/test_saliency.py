"""Where a model looked, for the architectures of this zoo: shown on squares that are the only thing to see."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import node_from_table
from zoo.data.files.decode import make_rule
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier, Preprocessing
from zoo.evaluate.ensemble import EnsembleClassifier
from zoo.models.compose import compose
from zoo.predict.places import layers_with_places
from zoo.predict.saliency import Explainer, Saliency, overlay
from zoo.runs.record import Sizes

SIDE = 16
TREES: dict[str, dict[str, Any]] = {
    "cnn": {"use": "cnn.baseline", "widths": [8], "dense": [32]},
    "vit": {
        "use": "vit.classifier",
        "patch": 2,
        "embed": 32,
        "depth": 2,
        "heads": 2,
        "head_width": 16,
        "mlp": 64,
        "dropout": 0.0,
        "init_std": 0.02,
    },
    "hybrid": {
        "use": "hybrid.classifier",
        "body": {
            "use": "hybrid.alternate",
            "of": [
                {"use": "cnn.residual", "widths": [8, 8]},
                {"use": "vit.image", "patch": 2, "embed": 32, "read": "patches", "mlp": 64, "dropout": 0.0},
            ],
        },
    },
}
EXPECTED = {
    "cnn": ("hires-cam", "map 8x8"),
    "vit": ("layer-integrated-gradients", "tokens 8x8"),
    "hybrid": (None, "body"),  # what its last part keeps of places is learnt
}


def squares(count: int, seed: int) -> tuple[np.ndarray, torch.Tensor, list[tuple[int, int]]]:
    """Dark images with one square, red or green: (uint8 pixels, classes, the squares' top left corners)."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 40, (count, 3, SIDE, SIDE), dtype=np.uint8)
    classes, corners = draw.integers(0, 2, count), []
    for i in range(count):
        top, left = (int(n) for n in draw.integers(0, SIDE - 4, 2))
        pixels[i, classes[i], top : top + 4, left : left + 4] = 255
        corners.append((top, left))
    return pixels, torch.from_numpy(classes), corners


def classifier(module: nn.Module) -> Classifier:
    rule = make_rule(None, (SIDE, SIDE), None, None)
    return Classifier(
        name="squares",
        module=module.eval(),
        sizes=Sizes(in_channels=3, height=SIDE, width=SIDE, num_classes=2),
        preprocessing=Preprocessing(rule, mean=(0.5,) * 3, std=(0.25,) * 3, normalize=True),
        classes=("red", "green"),
    )


def built(tree: dict[str, Any]) -> Classifier:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sizes = {"in_channels": 3, "height": SIDE, "width": SIDE, "num_classes": 2}
    module = compose(node_from_table(tree, "test"), load_registry(), where="test", **sizes)
    return classifier(module)


@pytest.fixture(scope="module", params=TREES)
def trained(request: pytest.FixtureRequest) -> tuple[str, Classifier]:
    """A tiny model of each kind that knows red squares from green ones."""
    found = built(TREES[request.param])
    pixels, classes, _ = squares(256, 0)
    images, optimizer = found.prepare(pixels), torch.optim.AdamW(found.module.parameters(), 3e-3)
    found.module.train()
    for step in range(40):
        rows = slice(step % 4 * 64, step % 4 * 64 + 64)
        loss = nn.functional.cross_entropy(found.module(images[rows]), classes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found.module.eval().requires_grad_(False)
    return request.param, found


def focus(found: Saliency, corner: tuple[int, int]) -> float:
    """How much hotter than the whole image the square is, with two pixels around it: 1 for a flat heat."""
    top, left = corner
    near = found.heat[max(0, top - 2) : top + 6, max(0, left - 2) : left + 6]
    return float(near.mean() / found.heat.mean().clamp(min=1e-9))


def looked(model: Classifier, method: Any) -> tuple[float, Saliency]:
    pixels, classes, corners = squares(6, 1)
    assert (model.probabilities(pixels).argmax(1) == classes).all()
    explainer = Explainer(model, method)
    found = [explainer.explain(pixels[i], int(classes[i])) for i in range(6)]
    return float(np.mean([focus(*both) for both in zip(found, corners, strict=True)])), found[0]


def test_the_heat_lies_on_the_only_thing_to_see(trained: tuple[str, Classifier]) -> None:
    kind, model = trained
    found, first = looked(model, "auto")
    assert found > 1.6
    method, layer = EXPECTED[kind]
    assert method is None or first.method == method
    assert layer in first.layer
    for method in ("grad-cam", "integrated-gradients", "occlusion") if kind == "cnn" else ():
        found, first = looked(model, method)
        assert found > 1.6
        assert first.method == method
        assert bool(first.layer) == (method == "grad-cam")


def test_the_model_is_afterwards_as_it_was() -> None:
    model = classifier(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(2))
    )
    model(torch.zeros(1, 3, SIDE, SIDE))
    model.module.train()
    model.module[0].bias.requires_grad_(False)
    Explainer(model).explain(squares(1, 0)[0][0], 0)
    assert model.module[1].inplace
    assert all(part.training for part in model.module.modules())
    assert [name for name, p in model.module.named_parameters() if not p.requires_grad] == ["0.bias"]


def test_latents_and_maps_without_places_are_left_out() -> None:
    """64 latents could be an 8x8 grid, and a part that writes its image from one mean has a map like any other."""
    of = {"use": "perceiver.image", "depth": 1, "latents": 64}
    model = built({"use": "hybrid.classifier", "body": {"use": "hybrid.alternate", "of": [of]}})
    names = [layer.name for layer in layers_with_places(model.module, model.prepare(squares(1, 0)[0]))]
    assert names == ["body.blocks.0.0.perceiver.blocks.0.cross.context_norm"]


def test_a_model_without_places_falls_back_to_the_image_and_says_so() -> None:
    model = classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)))
    found = Explainer(model).explain(squares(1, 0)[0][0], 0)
    assert (found.method, found.layer) == ("integrated-gradients", "")
    with pytest.raises(InputError, match="no layer of squares keeps the places"):
        Explainer(model, "grad-cam").explain(squares(1, 0)[0][0], 0)


def test_an_ensemble_is_explained_by_all_of_its_members(trained: tuple[str, Classifier]) -> None:
    members = [trained[1], classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)))]
    image, heats = squares(1, 0)[0][0], []
    for order in (members, members[::-1]):
        together = EnsembleClassifier(order, ["one", "other"])
        found = Explainer(together).explain(image, 0)
        assert (found.method, found.layer) == ("integrated-gradients", "")
        heats.append(found.heat)
        with pytest.raises(InputError, match=r"each member of .* has its own"):
            Explainer(together, "hires-cam").explain(image, 0)
    torch.testing.assert_close(*heats, atol=1e-4, rtol=1e-3)


def test_a_picture_shows_what_the_model_saw_with_the_method_in_its_text() -> None:
    heat = torch.zeros(SIDE, SIDE)
    heat[2, 3] = 1
    data = overlay(squares(1, 0)[0][0], Saliency(heat, "occlusion", ""), {"method": "occlusion", "image": "bad\udcff"})
    picture = Image.open(io.BytesIO(data))
    picture.load()
    assert picture.size == (320, 320)
    assert picture.text == {"method": "occlusion", "image": "bad?"}
    bright = np.asarray(picture).sum(2)
    row, column = np.unravel_index(bright[:160, :160].argmax(), (160, 160))
    assert 2 * 20 <= row < 3 * 20
    assert 3 * 20 <= column < 4 * 20
