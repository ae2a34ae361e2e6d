"""Each architecture: finite, of any fitting size, independent of batch neighbours, saved whole."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from zoo.catalogue.plugins import import_factory
from zoo.catalogue.registry import Registry, load_registry
from zoo.errors import PluginError, ShapeError, UnknownNameError
from zoo.models.compose import compose
from zoo.plugin.contract import GIVEN
from zoo.plugin.layers import set_dropout
from zoo_cnn import blocks
from zoo_cnn import classifiers as cnn
from zoo_hybrid.classifiers import classifier as hybrid
from zoo_hybrid.mixtures import alternate, joint
from zoo_mixer import models as mixer
from zoo_perceiver import models as perceiver
from zoo_timm import models as zoo_timm
from zoo_torchvision import models as zoo_torchvision
from zoo_vit.classifiers import vit_classifier
from zoo_vit.parts import vit_image
from zoo_vit.timm_vit import timm_vit

ROOT = Path(__file__).resolve().parent.parent
MODELS: dict[str, Any] = tomllib.loads((ROOT / "registry.toml").read_text(encoding="utf-8"))["models"]
TOO_LARGE = 200_000_000
WHOLE = [n for n, m in MODELS.items() if m["parameters"] < TOO_LARGE]
OTHER = {"vgg16": 64, "mixer-s16-32": 48, "resnet50": 64, "vit-b16": 32}
PARTS = {
    "cnn.residual": partial(blocks.residual_cnn, widths=(8, 8)),
    "cnn.depthwise": blocks.depthwise_cnn,
    "vit.image": partial(vit_image, mlp=32),
    "vit.image to patches": partial(vit_image, mlp=32, patch=2, embed=24, position=True, read="patches"),
    "vit.image without norm": partial(vit_image, mlp=32, norm=False),
    "mixer.image": partial(mixer.image, embed=24, token_mlp=8, channel_mlp=16),
    "mixer.image as images": partial(mixer.image, read="image", token_mlp=8, channel_mlp=16),
    "perceiver.image": partial(perceiver.image, depth=1, latents=4, latent_width=8),
    "perceiver.image by query": partial(perceiver.image, depth=1, latents=4, latent_width=8, read="query"),
}
SMALL = {"in_channels": 3, "height": 16, "width": 16, "num_classes": 5}


@pytest.fixture
def registry() -> Registry:
    return load_registry()


def built(registry: Registry, name: str, side: int) -> nn.Module:
    sizes = {"in_channels": 3, "height": side, "width": side, "num_classes": 10}
    torch.manual_seed(0)
    return compose(registry.model(name).build, registry, **sizes)


def small_side(name: str) -> int:
    """A side that the model takes and that is soon done: native where that is small."""
    build = MODELS[name]["build"]
    mixes_transformers = build["use"] == "hybrid.classifier" and MODELS[name]["parameters"] > 1_000_000
    return 16 if mixes_transformers else 64 if build.get("patch", 1) == 32 else 32


@pytest.mark.parametrize("name", WHOLE)
def test_a_model_is_whole(registry: Registry, name: str, tmp_path: Path) -> None:
    side = small_side(name)
    model = built(registry, name, side)
    images = torch.rand(3, 3, side, side)
    logits = model(images)
    logits.square().mean().backward()
    assert logits.shape == (3, 10)
    assert logits.isfinite().all()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)

    model.eval()
    with torch.no_grad():
        together = model(images)
        torch.testing.assert_close(model(images[1:2]), together[1:2], atol=1e-4, rtol=1e-4)
        last = model(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, together, atol=1e-4, rtol=1e-4)

    state = model.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    sizes = {"in_channels": 3, "height": side, "width": side, "num_classes": 10}
    with torch.device("meta"):
        fresh = compose(registry.model(name).build, registry, **sizes)
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"), assign=True)
    assert all(torch.equal(tensor, state[key]) for key, tensor in fresh.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(fresh.eval()(images), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [n for n in WHOLE if MODELS[n].get("dataset", "cifar10") == "cifar10"])
def test_a_model_takes_another_size(registry: Registry, name: str) -> None:
    side = OTHER.get(name, 16 if name.startswith("hybrid") else 48)
    with torch.no_grad():
        assert built(registry, name, side)(torch.rand(2, 3, side, side)).isfinite().all()


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("shape", [(3, 16, 16), (5, 8, 24)])
def test_a_part_keeps_its_shape_in_either_memory_format(name: str, shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    part = PARTS[name](channels=channels, height=height, width=width).eval()
    x = torch.randn(2, *shape)
    with torch.no_grad():
        y = part(x)
        assert y.shape == x.shape
        last = part.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, y, atol=1e-5, rtol=1e-4)


def test_a_factory_describes_its_own_arguments_and_not_the_contracts(registry: Registry) -> None:
    for name, component in registry.components.items():
        if component.kind in GIVEN:
            factory = import_factory(component.factory, name)
            text = inspect.getdoc(factory) or ""
            section = text.partition("Args:\n")[2].partition("\n\n")[0]
            described = re.findall(r"^    (\w+): ", section, re.MULTILINE)
            own = [p for p in inspect.signature(factory).parameters if p not in GIVEN[component.kind]]
            elsewhere = "`Perceiver` describes" in text
            assert described == [p for p in own if p in described or not elsewhere], name


@pytest.mark.parametrize("fuse", ["sum", "mean", "weights", "gate", "concat"])
@pytest.mark.parametrize("norm", ["none", "branch", "shared"])
def test_any_parts_mix_in_any_joint(fuse: Any, norm: Any) -> None:
    parts = [PARTS["cnn.residual"], PARTS["mixer.image"], partial(alternate, parts=[PARTS["perceiver.image"]])]
    body = partial(joint, parts=parts, repeat=2, fuse=fuse, norm=norm, residual=fuse != "sum")
    model = hybrid(body=body, **SMALL)
    model(torch.randn(3, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_sum_of_a_joint_mixture_is_its_branches_sum() -> None:
    block = joint(parts=[PARTS["cnn.residual"], PARTS["vit.image"]], channels=3, height=16, width=16).eval()
    x = torch.randn(2, 3, 16, 16)
    cnn_branch, vit_branch = block.blocks[0].branches
    torch.testing.assert_close(block(x), cnn_branch(x) + vit_branch(x))


def test_repeats_have_weights_of_their_own() -> None:
    model = alternate(parts=[PARTS["cnn.residual"]], channels=3, height=8, width=8, repeat=2)
    first, second = (block[0][0].conv.weight for block in model.blocks)
    assert first.data_ptr() != second.data_ptr()
    assert not torch.equal(first, second)


def test_a_shared_norm_stands_once_in_the_state() -> None:
    parts = [PARTS["cnn.residual"], PARTS["perceiver.image"]]
    size = {"channels": 3, "height": 8, "width": 8}
    shared, none = (joint(parts=parts, repeat=2, norm=norm, **size) for norm in ("shared", "none"))
    assert set(shared.state_dict()) - set(none.state_dict()) == {
        f"norm.{key}" for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    count = [sum(p.numel() for p in m.parameters()) for m in (shared, none)]
    assert count[0] - count[1] == 6


def test_the_ablation_leaves_out_only_the_vits_norm() -> None:
    size = {"channels": 3, "height": 16, "width": 16}
    with_norm, without = vit_image(**size), vit_image(norm=False, **size)
    names = set(with_norm.state_dict()) - set(without.state_dict())
    assert names == {f"read.norm.{k}" for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def test_embeddings_and_latents_ask_for_no_weight_decay() -> None:
    models = [
        vit_classifier(**SMALL, embed=8, mlp=8),
        vit_image(channels=3, height=16, width=16, position=True),
        perceiver.classifier(**SMALL).perceiver,
        timm_vit(**SMALL, embed=12, depth=1),
    ]
    for model in models:
        names = {n for n in model.no_weight_decay() if getattr(model, n, None) is not None}
        assert names
        assert names <= {n for n, _ in model.named_parameters()}


def theirs_to_ours(name: str) -> str:
    """A parameter of perceiver-pytorch 0.11, or 0.7 (where parts of a layer have numbers), in our model."""
    for old, new in (("cross_attn", "0"), ("cross_ff", "1"), ("self_attns", "2")):
        name = name.replace(old, new)
    name = re.sub(r"^layers\.(\d+)\.2\.(\d+)\.0\.", r"perceiver.blocks.\1.selves.\2.", name)
    name = re.sub(r"^layers\.(\d+)\.2\.(\d+)\.1\.", r"perceiver.blocks.\1.self_mlps.\2.", name)
    name = re.sub(r"^layers\.(\d+)\.0\.", r"perceiver.blocks.\1.cross.", name)
    name = re.sub(r"^layers\.(\d+)\.1\.", r"perceiver.blocks.\1.cross_mlp.", name)
    name = re.sub(r"fn\.to_out(\.0)?", "proj", name.replace("fn.net.0", "fc1"))
    name = re.sub(r"fn\.net\.[23]", "fc2", name)
    for old, new in (("fn.", ""), ("norm_context", "context_norm"), ("to_logits.1", "head.norm")):
        name = name.replace(old, new)
    name = name.replace("to_logits.2", "head.linear")
    return "perceiver.latents" if name == "latents" else name


class Masks:
    """In place of every dropout: masks that depend on their number in a pass alone, and a record of what dropped.

    So a module and its source, passed the same weights, must agree in training mode as well.
    """

    def __init__(self) -> None:
        self.drops: list[tuple[tuple[int, ...], float]] = []

    def __call__(self, x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if not training or p == 0.0:
            return x
        noise = torch.rand(x.numel(), generator=torch.Generator().manual_seed(len(self.drops)))
        self.drops.append((tuple(x.shape), p))
        return x * (noise >= p).view(x.shape) / (1 - p)

    def of(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The output in training mode, from the first mask on."""
        self.drops.clear()
        with torch.no_grad():
            return module.train()(x)


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> Masks:
    found = Masks()
    for name in ("zoo.plugin.layers.drop", "zoo.plugin.layers.attention"):  # ours: modules, and attention weights
        monkeypatch.setattr(sys.modules[name], "dropout", found)
    monkeypatch.setattr(F, "dropout", found)  # theirs
    return found


def vit_drops(tokens: int, width: int, depth: int) -> list[tuple[tuple[int, ...], float]]:
    """vit-pytorch 0.24 at `dropout` and `emb_dropout` 0.1: tokens, then each layer's projection, hidden and output."""
    layer = [(2, tokens, width), (2, tokens, 2048), (2, tokens, width)]
    return [(shape, 0.1) for shape in [(2, tokens, width), *(layer * depth)]]


def perceiver_drops(latents: int, depth: int, selves: int = 2) -> list[tuple[tuple[int, ...], float]]:
    """perceiver-pytorch 0.7.5 with both dropouts 0.2: behind each attention, and inside each feed-forward."""
    pair = [(2, latents, latents), (2, latents, 4 * latents)]  # latents are as wide as they are many, here
    return [(shape, 0.2) for shape in pair * ((1 + selves) * depth)]


@pytest.mark.parametrize(
    ("name", "drops"),
    [
        ("hybrid-alt-1", vit_drops(256, 256, 1)),
        ("hybrid-alt-2", vit_drops(256, 256, 1) * 2),
        ("hybrid-joint-1", vit_drops(256, 256, 2)),
        ("hybrid-joint-2", vit_drops(256, 256, 2) * 2),
        ("vit-d2h4", vit_drops(65, 1024, 2)),
        ("perceiver", perceiver_drops(32, 4)),
        ("perceiver-large", perceiver_drops(64, 4, selves=4)),
        ("hybrid-joint-perceiver-1", perceiver_drops(32, 1)),
        ("hybrid-joint-perceiver-2", perceiver_drops(32, 1) * 2),
        ("hybrid-alt-perceiver-1", perceiver_drops(32, 4)),
        ("hybrid-alt-perceiver-2", perceiver_drops(32, 4) * 2),
    ],
)
def test_a_source_model_drops_where_its_source_did(
    registry: Registry, masks: Masks, name: str, drops: list[tuple[tuple[int, ...], float]]
) -> None:
    """The Mixture Models had vit-pytorch 0.24 and perceiver-pytorch 0.7.5: no attention weight is dropped."""
    model = built(registry, name, 16)
    masks.of(model, torch.rand(2, 3, 16, 16))
    assert masks.drops == drops
    set_dropout(model, 0.3)
    masks.of(model, torch.rand(2, 3, 16, 16))
    assert masks.drops == [(shape, 0.3) for shape, _ in drops], "a recipe's rate must not add a place"


def test_a_part_drops_where_it_is_asked_to(masks: Masks) -> None:
    size = {"channels": 3, "height": 4, "width": 4, "heads": 2, "mlp": 32, "dropout": 0.5}
    shapes = {
        "embedding": (2, 16, 16),
        "weights": (2, 2, 16, 16),
        "projection": (2, 16, 16),
        "hidden": (2, 16, 32),
        "output": (2, 16, 16),
    }
    for sites in (["embedding"], ["weights"], ["projection", "hidden"], [], list(shapes)):
        masks.of(vit_image(dropout_at=sites, **size), torch.rand(2, 3, 4, 4))
        assert masks.drops == [(shapes[site], 0.5) for site in sites]
    masks.of(vit_image(**size), torch.rand(2, 3, 4, 4))
    assert masks.drops == [(shapes[site], 0.5) for site in ("weights", "projection", "hidden", "output")]


VIT_SITES = ("embedding", "projection", "hidden", "output")
PERCEIVER_SITES = {"0.7.5": ("projection", "hidden"), "0.11.0": ("weights", "output")}


def theirs_to_our_vit(name: str) -> str:
    name = re.sub(r"^transformer\.layers\.(\d+)\.0\.", r"layers.\1.attention.", name)
    name = re.sub(r"^transformer\.layers\.(\d+)\.1\.", r"layers.\1.mlp.", name)
    for old, new in (("fn.to_qkv", "qkv"), ("fn.to_out.0", "proj"), ("fn.net.0", "fc1"), ("fn.net.3", "fc2")):
        name = name.replace(old, new)
    names = {"to_patch_embedding.1": "embed", "mlp_head.0": "norm", "mlp_head.1": "head"}
    root, _, last = name.rpartition(".")
    whole = {"pos_embedding": "position", "cls_token": "class_token"}
    return whole.get(name) or f"{names.get(root, root)}.{last}"


def test_the_vit_equals_vit_pytorch_in_training_mode(masks: Masks) -> None:
    package = pytest.importorskip("vit_pytorch", reason="needs vit-pytorch 0.24")
    if not importlib.metadata.version("vit-pytorch").startswith("0.24."):
        pytest.skip("needs vit-pytorch 0.24: another version has other layers")
    theirs = package.ViT(
        image_size=16, patch_size=4, num_classes=5, dim=24, depth=2, heads=2, mlp_dim=32, dropout=0.1,
        emb_dropout=0.1,
    )  # fmt: skip
    asked: Any = {"patch": 4, "embed": 24, "depth": 2, "heads": 2, "mlp": 32, "dropout_at": VIT_SITES}
    ours = vit_classifier(**SMALL, **asked)
    ours.load_state_dict({theirs_to_our_vit(name): value for name, value in theirs.state_dict().items()})
    x = torch.randn(3, 3, 16, 16)
    wanted = masks.of(theirs, x)
    drops = list(masks.drops)
    torch.testing.assert_close(masks.of(ours, x), wanted, atol=1e-5, rtol=1e-5)
    assert masks.drops == drops

    part = vit_image(channels=3, height=16, width=16, read="patches", **asked)
    part.load_state_dict({k: v for k, v in ours.state_dict().items() if k in part.state_dict()}, strict=False)
    part.read = nn.Identity()
    cut = nn.Sequential(*list(theirs.children())[:-1])  # as the mixtures cut it: no class token, no positions
    torch.testing.assert_close(masks.of(part, x), masks.of(cut, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(12, 12), (9, 14), (40, 40)])
def test_the_perceiver_equals_perceiver_pytorch(masks: Masks, size: tuple[int, int]) -> None:
    package = pytest.importorskip("perceiver_pytorch", reason="needs the package perceiver-pytorch")
    sites: Any = PERCEIVER_SITES.get(importlib.metadata.version("perceiver-pytorch"), ())
    torch.manual_seed(0)
    theirs = package.Perceiver(
        num_freq_bands=6, depth=3, max_freq=10.0, num_latents=16, latent_dim=32, cross_heads=2,
        cross_dim_head=16, latent_heads=8, latent_dim_head=16, num_classes=10, attn_dropout=0.2,
        ff_dropout=0.2, weight_tie_layers=False, self_per_cross_attn=2,
    ).eval()  # fmt: skip
    height, width = size
    ours = perceiver.classifier(
        in_channels=3, height=height, width=width, num_classes=10, depth=3, latents=16, dropout_at=sites
    ).eval()
    ours.load_state_dict({theirs_to_ours(name): value for name, value in theirs.state_dict().items()})
    x = torch.randn(3, 3, height, width)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x.permute(0, 2, 3, 1)), atol=1e-5, rtol=1e-5)
    if sites:
        trained = masks.of(theirs, x.permute(0, 2, 3, 1))
        torch.testing.assert_close(masks.of(ours, x), trained, atol=1e-5, rtol=1e-5)


def test_the_mixer_is_timms() -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mixer_s32_224", img_size=64, num_classes=7).eval()
    ours = mixer.classifier(in_channels=3, height=64, width=64, num_classes=7, patch=32).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["mixer", "vit"])
def test_timms_classes_drop_in_ours_as_in_timm(masks: Masks, name: str) -> None:
    if name == "mixer":
        ours: nn.Module = mixer.classifier(**SMALL, patch=4, embed=32, depth=2, dropout=0.2)
        theirs: nn.Module = MlpMixer(
            num_classes=5, img_size=16, patch_size=4, num_blocks=2, embed_dim=32,
            mlp_ratio=(256.5 / 32, 2048.5 / 32), proj_drop_rate=0.2,
        )  # fmt: skip
    else:
        ours = timm_vit(**SMALL, embed=24, depth=2, heads=2, dropout=0.2)
        theirs = VisionTransformer(
            img_size=16, patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=2, pos_drop_rate=0.2,
            proj_drop_rate=0.2,
        )  # fmt: skip
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 16, 16)
    wanted = masks.of(theirs, x)
    assert masks.drops
    torch.testing.assert_close(masks.of(ours, x), wanted, atol=1e-5, rtol=1e-5)


def test_a_stem_gives_the_body_fewer_pixels_and_more_channels() -> None:
    stem = blocks.conv_stem(in_channels=3, height=16, width=16, widths=(8, 12), strides=(2, 2))
    stem.out_shape = (12, 4, 4)
    model = hybrid(stem=lambda **_: stem, body=PARTS["cnn.depthwise"], **SMALL)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    assert model.head.linear.in_features == 12 * 4 * 4
    with pytest.raises(PluginError, match="out_shape"):
        hybrid(stem=lambda **_: nn.Identity(), **SMALL)


@pytest.mark.parametrize(
    ("build", "sizes", "message"),
    [
        (vit_image, {"channels": 3, "height": 37, "width": 37}, "no patch side near 2 divides 37x37"),
        (partial(vit_image, patch=5), {"channels": 3, "height": 32, "width": 32}, "patch side 5 does not divide"),
        (partial(vit_image, embed=7), {"channels": 3, "height": 32, "width": 32}, "height\\*width = 1024"),
        (partial(mixer.image, embed=7, read="image"), {"channels": 3, "height": 32, "width": 32}, "given 7"),
        (cnn.vgg16, {**SMALL}, "at least 32x32"),
        (cnn.baseline, {**SMALL, "height": 4}, "at least 8x8"),
        (partial(cnn.wide_resnet, depth=15), SMALL, "6n \\+ 4"),
        (partial(cnn.resnet9, widths=(1, 2)), SMALL, "four numbers"),
        (partial(timm_vit, heads=5), SMALL, "not a multiple of heads 5"),
        (partial(mixer.classifier, patch=7), SMALL, "patch side 7"),
        (partial(perceiver.classifier, depth=0), SMALL, "depth must be at least 1"),
        (partial(mixer.classifier, depth=0), SMALL, "depth must be at least 1"),
        (partial(vit_image, depth=-1), {"channels": 3, "height": 8, "width": 8}, "depth must be at least 1"),
        (partial(blocks.depthwise_cnn, depth=-1), {"channels": 3, "height": 8, "width": 8}, "at least 1"),
        (partial(blocks.depthwise_cnn, kernel=4), {"channels": 3, "height": 8, "width": 8}, "odd"),
        (partial(blocks.conv_stem, strides=(1,)), {"in_channels": 3, "height": 8, "width": 8}, "one stride each"),
        (partial(joint, parts=[]), {"channels": 3, "height": 8, "width": 8}, "at least one part"),
        (partial(zoo_torchvision.model, name="resnet18"), {**SMALL, "in_channels": 1}, "takes 3 channels"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(build: Any, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message) as caught:
        build(**sizes)
    assert "\n" not in str(caught.value)


def test_a_librarys_unknown_name_is_named() -> None:
    for library in (zoo_timm, zoo_torchvision):
        with pytest.raises(UnknownNameError, match="resnet18"):
            library.model(name="resnet1_8", **SMALL)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "regnet_y_400mf", "vit_b_32", "googlenet"])
def test_torchvisions_models_take_our_sizes_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        model = zoo_torchvision.model(name=name, in_channels=3, height=64, width=64, num_classes=7)
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mixer_s32_224", "convnext_atto"])
def test_timms_models_take_our_sizes(name: str) -> None:
    model = zoo_timm.model(name=name, in_channels=3, height=64, width=64, num_classes=7)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)
