"""Fine-tuning, part by part: which layers a model has, what is frozen, and images as its weights know them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.optim import param_groups_layer_decay
from torchvision.models import ResNet18_Weights

from zoo.catalogue.recipe import Recipe
from zoo.data.files.decode import transform_rule
from zoo.errors import SpecError
from zoo.models.api import create
from zoo.plugin import Transform
from zoo.train.optim.freeze import freeze
from zoo.train.optim.groups import parameter_groups
from zoo.train.optim.layerwise import layers
from zoo.train.optim.optimizers import make_optimizer
from zoo.train.optim.schedule import lr_at
from zoo.train.pretrained import find_weights

# ---- layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timm/resnet18", "timm/vit_tiny_patch16_224", "timm/convnext_atto", "mixer-b16"])
def test_layer_wise_rates_and_decay_are_timms_for_models_of_timm(name: str) -> None:
    with torch.device("meta"):
        module = create(name)
    theirs = param_groups_layer_decay(
        module, weight_decay=0.05, layer_decay=0.75, no_weight_decay_list=getattr(module, "no_weight_decay", set)()
    )
    recipe = Recipe(optimizer="adamw", lr=1e-3, layer_decay=0.75, weight_decay=0.05, decay="matrices")
    (ours,) = parameter_groups(module, recipe).values()
    names = {id(p): n for n, p in module.named_parameters()}

    def told(groups: list[dict[str, Any]], scale: str) -> dict[str, tuple[float, float]]:
        return {names[id(p)]: (g.get(scale, 1.0), g["weight_decay"]) for g in groups for p in g["params"]}

    mine, reference = told(ours, "lr_share"), told(theirs, "lr_scale")
    assert mine.keys() == reference.keys()
    for key, (share, decay) in mine.items():
        assert (share, decay) == (pytest.approx(reference[key][0]), reference[key][1]), key
    assert len({share for share, _ in mine.values()}) > 5
    optimizer = make_optimizer(module, recipe, torch.device("cpu"))
    rates = {lr_at(recipe, 0, 10, 10, group) for group in optimizer.param_groups}
    assert max(rates) == recipe.lr
    assert min(rates) == pytest.approx(recipe.lr * min(share for share, _ in reference.values()))


def numbers(name: str) -> dict[str, int]:
    with torch.device("meta"):
        return layers(create(name))


def test_torchvisions_layers_are_the_same_as_timms_for_the_same_network() -> None:
    assert numbers("torchvision/resnet18") == numbers("timm/resnet18")


@pytest.mark.parametrize(
    ("name", "count", "first", "inner", "last"),
    [
        ("torchvision/vit_b_16", 14, "encoder.pos_embedding", ("encoder.layers.encoder_layer_4.ln_1.bias", 5), "heads"),
        ("torchvision/swin_t", 17, "features.0.0.weight", ("features.3.1.norm1.weight", 5), "head"),
        ("torchvision/mobilenet_v3_small", 14, "features.0.0.weight", ("features.3.block.1.0.weight", 3), "classifier"),
        ("hybrid-alt-2", 13, "body.blocks.0.0.0.conv.weight", ("body.blocks.0.1.embed.weight", 5), "head"),
    ],
)
def test_layers_are_numbered_part_by_part_from_the_images_to_the_head(
    name: str, count: int, first: str, inner: tuple[str, int], last: str
) -> None:
    found = numbers(name)
    assert sorted(set(found.values())) == list(range(count))
    assert found[first] == 0
    assert found[inner[0]] == inner[1]
    assert {n.partition(".")[0] for n, number in found.items() if number == count - 1} == {last}


def trained(name: str, what: str | tuple[str, ...]) -> set[str]:
    with torch.device("meta"):
        module = create(name)
    freeze(module, what)
    return {n for n, p in module.named_parameters() if p.requires_grad}


def test_what_is_frozen_is_all_but_the_head_or_all_but_the_logits_or_by_name() -> None:
    name = "torchvision/convnext_tiny"
    norm, linear = {"classifier.0.weight", "classifier.0.bias"}, {"classifier.2.weight", "classifier.2.bias"}
    assert trained(name, "backbone") == norm | linear
    assert trained(name, "all-but-last") == linear
    assert trained("timm/deit_tiny_distilled_patch16_224", "all-but-last") == {
        f"{head}.{kind}" for head in ("head", "head_dist") for kind in ("weight", "bias")
    }
    assert not any(n.startswith("features.1.") for n in trained(name, ("features.1.*",)))
    assert norm | linear < trained(name, ("features.1.*",))


@pytest.mark.parametrize(
    ("what", "said"), [(("fetaures.*",), "'fetaures.*' matches no parameter"), (("*",), "leaves nothing to train")]
)
def test_freezing_nothing_or_everything_is_refused(what: tuple[str, ...], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        trained("torchvision/resnet18", what)


# ---- images as the weights know them ------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["test_vit.r160_in1k", "mixer_b16_224.goog_in21k", "eva02_base_patch14_448.mim_in22k_ft_in1k"]
)
def test_images_are_resized_and_cropped_as_timm_does_it(name: str) -> None:
    beginning = find_weights(f"timm/{name}").beginning
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    theirs = create_transform(**config, normalize=False)(image)
    assert beginning.transform is not None
    ours = np.asarray(transform_rule(beginning.transform).apply(image)).transpose(2, 0, 1)
    assert np.array_equal(ours, theirs.numpy())
    assert (beginning.mean, beginning.std) == (config["mean"], config["std"])


def test_images_are_resized_and_cropped_as_torchvision_does_it() -> None:
    weights = ResNet18_Weights.IMAGENET1K_V1
    found = find_weights("torchvision/resnet18")
    assert found.origin == "torchvision/resnet18.IMAGENET1K_V1"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))
    assert found.beginning.transform is not None
    cut = np.asarray(transform_rule(found.beginning.transform).apply(image)).transpose(2, 0, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (found.beginning.mean, found.beginning.std))
    torch.testing.assert_close((torch.tensor(cut) / 255 - mean) / std, weights.transforms()(image))


def test_another_size_keeps_the_proportion_of_the_crop() -> None:
    assert Transform(size=(224, 224), resize=256).at(112) == Transform(size=(112, 112), resize=128)
