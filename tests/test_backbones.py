"""timm's conventions over the catalogue, by timm's own checks of its models: our compositions are backbones too."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_server.runs import own_caches, untrained_run
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn

import zoo
from zoo.catalogue.registry import load_registry
from zoo.errors import InputError
from zoo.models.backbones import FeatureMaps, described
from zoo.models.compose import compose, sizes_for
from zoo.models.features import feature_of
from zoo.plugin.layers import StagedClassifier
from zoo.train.optim.freeze import logits_layer

NOT_OURS = "torchvision.model"
LARGE = ("vit-b16", "vit-l16", "vit-h14", "perceiver-large", "vgg16")
"""What is looked at last of models of the same components."""


def models() -> list[Any]:
    """The models of the catalogue; those of components that another one has as well, only deeper or wider, are slow."""
    registry, seen = load_registry(), set()
    found: list[Any] = []
    for name, model in sorted(registry.models.items(), key=lambda item: item[0] in LARGE):
        components = tuple(part.use for _, part in model.build.walk("build"))
        if NOT_OURS not in components:
            found.append(pytest.param(name, marks=pytest.mark.slow) if components in seen else name)
            seen.add(components)
    return found


def test_the_models_that_are_always_checked_have_every_component_of_ours_that_classifies() -> None:
    registry = load_registry()
    names = [name for name in models() if isinstance(name, str)]
    uses = {part.use for name in names for _, part in registry.model(name).build.walk("build")}
    whole = {"cnn.baseline", "cnn.vgg16", "cnn.resnet9", "cnn.wide", "vit.classifier", "vit.timm", "timm.model"}
    heads = {"hybrid.classifier", "hybrid.pool", "cnn.scaled-head", "perceiver.classifier", "mixer.classifier"}
    assert uses >= whole | heads


@torch.no_grad()
@pytest.mark.parametrize("name", models())
def test_a_model_of_the_catalogue_passes_the_checks_that_timm_makes_of_its_own(name: str) -> None:
    """After timm's `tests/test_models.py`: `test_model_forward`, `test_model_default_cfgs` and those of features."""
    registry = load_registry()
    build, sizes = registry.model(name).build, sizes_for(registry.model(name), registry, num_classes=10)
    with torch.device("meta"):  # nothing takes memory there
        module: Any = compose(build, registry, **sizes).eval()
    size = (sizes["in_channels"], sizes["height"], sizes["width"])
    images, before, config = torch.zeros(2, *size, device="meta"), set(module.state_dict()), module.pretrained_cfg
    assert {"input_size", "mean", "std", "num_classes", "classifier"} <= config.keys()
    assert f"{config['classifier']}.weight" in before
    if build.use != "timm.model":  # timm says of its own models what their pretrained weights were made for
        assert (config["input_size"], config["num_classes"]) == (size, 10)
    assert (module(images).shape, module.num_classes) == ((2, 10), 10)
    features = module.forward_features(images)
    assert features.ndim in (3, 4)
    assert module.forward_head(features).shape == (2, 10)
    width = module.forward_head(features, pre_logits=True).shape[1]
    assert width == module.num_features == module.get_classifier().in_features
    if isinstance(module, StagedClassifier):
        check_maps(module, images)
    module.reset_classifier(0)
    assert module(images).shape == (2, width)
    assert not any(key.startswith(f"{config['classifier']}.") for key in module.state_dict())
    module.reset_classifier(7)
    assert (module(images).shape, module.num_classes) == ((2, 7), 7)
    assert set(module.state_dict()) == before


def check_maps(module: Any, images: torch.Tensor) -> None:
    """After timm's `test_model_forward_features` and `test_model_forward_intermediates_features`."""
    infos = module.feature_info
    maps = module.forward_intermediates(images, intermediates_only=True)
    assert infos
    for info, one in zip(infos, maps, strict=True):
        assert one.shape[:2] == (2, info["num_chs"])
        assert abs(one.shape[2] * info["reduction"] - images.shape[2]) <= 2 * info["reduction"]
    reductions = [info["reduction"] for info in infos]
    assert reductions == sorted(set(reductions))
    last, several = module.forward_intermediates(images, indices=1)
    assert (len(several), last.shape) == (1, module.forward_features(images).shape)


def tree(head: str) -> Any:
    """A small model with this head."""
    body = zoo.part("cnn.residual", widths=[4])
    return {
        "flatten": zoo.part("hybrid.classifier", body=body),
        "pool": zoo.part("hybrid.classifier", body=body, head=zoo.part("hybrid.pool", dropout=0.1)),
        "scaled": zoo.part("hybrid.classifier", body=body, head=zoo.part("cnn.scaled-head")),
        "resnet9": zoo.part("cnn.resnet9", widths=[4, 4, 4, 4]),
        "vit": zoo.part("vit.classifier", embed=8, depth=1, heads=1, head_width=8, mlp=8),
        "perceiver": zoo.part("perceiver.classifier", depth=1),
    }[head]


@torch.no_grad()
@pytest.mark.parametrize("head", ["flatten", "pool", "scaled", "resnet9", "vit", "perceiver"])
def test_features_then_head_are_the_model_to_the_bit_and_without_classes_it_gives_the_features(head: str) -> None:
    model: Any = zoo.create(tree(head), image_size=16, num_classes=10, seed=0).eval()
    images = torch.randn(2, 3, 16, 16)
    logits, features = model(images), model.forward_features(images)
    assert torch.equal(model.forward_head(features), logits)
    wanted = model.forward_head(features, pre_logits=True)
    assert torch.equal(model.get_classifier()(wanted), logits)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        copied.reset_classifier(0)
        assert (copied.num_classes, copied.num_features) == (0, wanted.shape[1])
        assert torch.equal(copied(images), wanted)
        assert isinstance(copied.get_classifier(), nn.Identity)
        copied.double().reset_classifier(3)
        assert copied(images.double()).shape == (2, 3)
        assert type(copied.get_classifier()) is type(model.get_classifier())
        assert not copied.get_classifier().training
    with pytest.raises(InputError, match="the pooling of this model is fixed"):
        model.reset_classifier(3, "avg")
    with pytest.raises(InputError, match="give 0 or more"):
        model.reset_classifier(-1)


class OddHead(nn.Module):
    """A head of a stranger's, which says nothing of what its last layer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x.amax((2, 3)).relu()) * 2


@torch.no_grad()
def test_of_a_strangers_head_the_input_of_its_last_layer_is_looked_at() -> None:
    model, images = StagedClassifier(nn.Conv2d(3, 4, 3), OddHead()), torch.randn(2, 3, 8, 8)
    wanted = model[0](images).amax((2, 3)).relu()
    assert torch.equal(model.forward_head(model.forward_features(images), pre_logits=True), wanted)
    assert not model[1].last._forward_pre_hooks
    assert model.feature_info == []


class ConvHead(nn.Module):
    """A head that ends with a convolution, as all-convolutional networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x).mean((2, 3))


class Mixed(nn.Module):
    """A part with a linear layer of its own, which gives no logits."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.movedim(1, -1)).movedim(-1, 1)


@torch.no_grad()
def test_a_linear_layer_in_front_of_the_head_is_not_taken_for_the_last_layer() -> None:
    model, images = StagedClassifier(nn.Conv2d(3, 4, 3), Mixed(), ConvHead()).eval(), torch.randn(2, 3, 8, 8)
    assert logits_layer(model) == {"2.last.weight", "2.last.bias"}
    for ask in (model.get_classifier, lambda: model.reset_classifier(5), lambda: model.num_classes):
        with pytest.raises(InputError, match="has no linear layer that gives its logits"):
            ask()
    assert isinstance(model[1].linear, nn.Linear)
    features = feature_of(model, images[:1], 3)
    assert torch.allclose(features.read(images), model.forward_features(images).mean((2, 3)), atol=1e-6)
    described(model, in_channels=3, height=8, width=8, num_classes=3)
    assert (model.num_classes, model.pretrained_cfg["classifier"]) == (3, "")
    (maps,) = FeatureMaps(model, "net")(images)
    assert torch.equal(maps, model.forward_features(images))


def test_timm_reads_how_images_are_prepared_from_a_trained_model(tmp_path: Path) -> None:
    with own_caches(tmp_path):
        model = zoo.load(untrained_run(tmp_path / "run", "cnn-baseline", limit_train=64, limit_test=32))
    config = resolve_model_data_config(model.module)
    assert config["input_size"] == (3, 8, 8)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    theirs = create_transform(**config, is_training=False)(image)
    assert torch.allclose(theirs, model.transform(image), atol=1e-5)
    assert theirs.std() > 0.5  # normalised


def test_a_model_without_its_head_gives_maps_as_timms_do() -> None:
    for name, size in (("cnn-baseline", 32), ("timm/test_resnet", 64)):
        model: Any = zoo.create(name, image_size=size, features_only=True, out_indices=[1, -1], seed=0).eval()
        maps = model(torch.zeros(2, 3, size, size))
        assert [m.shape[1] for m in maps] == model.feature_info.channels()
        assert [size // m.shape[2] for m in maps] == model.feature_info.reduction()
        assert len(model.feature_info.module_name()) == 2
    whole: Any = zoo.create("cnn-baseline", seed=0).eval()
    images = torch.randn(2, 3, 32, 32)
    ours = zoo.create("cnn-baseline", features_only=True, seed=0).eval()(images)
    assert torch.equal(ours[-1], whole.forward_features(images))


@pytest.mark.parametrize(
    ("model", "asked", "message"),
    [
        ("perceiver", {"features_only": True}, "perceiver has no feature maps: it reads an image as tokens"),
        ("cnn-baseline", {"features_only": True, "out_indices": [9]}, "cnn-baseline has the maps 0 to 3"),
        ("cnn-baseline", {"out_indices": [0]}, "give features_only=True too"),
    ],
)
def test_maps_that_are_not_there_are_said_in_a_line(model: str, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.create(model, **asked)


def test_asking_for_the_maps_leaves_frozen_parts_as_they_are() -> None:
    model: Any = zoo.create("cnn-baseline-bn", seed=0).train()
    model[0][0].eval()
    assert model.feature_info
    assert (model.training, model[0][0].training, model[0][1].training) == (True, False, True)
    assert int(model[0][1][1].num_batches_tracked) == 0
