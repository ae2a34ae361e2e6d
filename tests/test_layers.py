"""The layers toolkit: attention, dropout, layouts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.errors import InputError, ShapeError
from zoo.plugin import layers


@pytest.mark.parametrize(("queries", "keys"), [(16, 16), (7, 130), (64, 400), (130, 7)])
def test_attention_equals_torchs_in_values_and_gradients(queries: int, keys: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (queries, keys, keys))
    ours, theirs = layers.attention(q, k, v), F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    upstream = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), upstream), torch.autograd.grad(theirs, (q, k, v), upstream), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_attention_in_16_bits_is_near_the_32_bit_one() -> None:
    q, k, v = torch.randn(3, 2, 2, 50, 16)
    exact = layers.attention(q, k, v)
    half = layers.attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)


def test_attention_drops_weights_only_while_training() -> None:
    q, k = torch.randn(2, 1, 1, 256, 4)
    ones = torch.ones(1, 1, 256, 1)
    torch.testing.assert_close(layers.attention(q, k, ones, dropout_p=0.5), ones)
    dropped = layers.attention(q, k, ones, dropout_p=0.5, training=True)
    assert dropped.std() > 0.02
    assert abs(dropped.mean().item() - 1) < 0.05


@pytest.mark.parametrize("p", [0.1, 0.15, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_drops_the_rounded_share(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 1003)
    y = layers.Dropout(p)(x)
    rounded = round(256 * p) / 256
    assert abs((y == 0).float().mean().item() - rounded) < 0.003
    assert abs(y.mean().item() - 1) < 0.01 / (1 - p)
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / (1 - rounded)))


def test_dropout_draws_each_element_on_its_own() -> None:
    torch.manual_seed(0)
    kept = (layers.cheap_dropout(torch.ones(4096, 8), 0.5) != 0).float()
    assert (torch.corrcoef(kept.T) - torch.eye(8)).abs().max() < 0.08


def test_the_gradient_of_dropout_has_the_mask_of_the_forward_pass() -> None:
    x = torch.randn(33, 65, requires_grad=True)
    y = layers.Dropout(0.3)(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, y)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 0, 4)])
def test_dropout_keeps_any_shape(shape: tuple[int, ...]) -> None:
    assert layers.Dropout(0.4)(torch.ones(shape)).shape == shape


def test_dropout_keeps_the_layout_of_a_map_and_drops_in_its_order_of_memory() -> None:
    x = torch.ones(2, 5, 3, 7).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    y = layers.cheap_dropout(x, 0.5)
    torch.manual_seed(0)
    plain = layers.cheap_dropout(torch.ones(2, 3, 7, 5), 0.5)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y.permute(0, 2, 3, 1), plain)


def test_dropout_follows_the_seed() -> None:
    x = torch.ones(500)

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return layers.cheap_dropout(x, 0.5)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_dropout_is_the_identity_in_eval_mode_and_at_zero() -> None:
    x = torch.randn(10)
    assert layers.Dropout(0.5).eval()(x) is x
    assert layers.Dropout(0.0)(x) is x
    assert not layers.Dropout(1.0)(x).any()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_dropout_probability_outside_of_0_to_1_is_refused(p: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        layers.Dropout(p)


def test_dropout_compiles_and_its_gradient_keeps_the_mask() -> None:
    compiled = torch.compile(layers.Dropout(0.3), backend="aot_eager", fullgraph=True)
    x = torch.randn(40, 50, requires_grad=True)
    y = compiled(x)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, y)
    assert 0.2 < (y == 0).float().mean() < 0.4


def test_a_librarys_dropout_is_replaced_without_a_change_of_its_state() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Sequential(nn.Dropout(0.0), nn.Dropout1d(0.1)))
    names = list(model.state_dict())
    layers.use_cheap_dropout(model)
    kinds = [type(m).__name__ for m in model.modules()]
    assert kinds == ["Sequential", "Linear", "Dropout", "Sequential", "Dropout", "Dropout1d"]
    assert isinstance(model[1], layers.Dropout)
    assert model[1].p == 0.2
    assert list(model.state_dict()) == names


def test_every_dropout_of_a_model_is_set_in_attention_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True), layers.Dropout(0.5), nn.Dropout1d(0.4)
    )
    assert layers.set_dropout(model, 0.0) is model
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(model.train()(x), model(x))
    layers.set_dropout(model, 0.25)
    assert {m.p for m in model.modules() if hasattr(m, "p")} == {0.25}
    assert model[0].self_attn.dropout == 0.25
    assert not torch.equal(model(x), model(x))
    with pytest.raises(InputError, match="no dropout layer"):
        layers.set_dropout(nn.Linear(2, 2), 0.1)


def test_pixels_and_tokens_are_views_of_each_other() -> None:
    x = torch.randn(2, 5, 3, 4)
    tokens = layers.map_to_tokens(x)
    assert tokens.shape == (2, 12, 5)
    assert tokens.data_ptr() == x.data_ptr()
    torch.testing.assert_close(tokens[1, 7], x[1, :, 1, 3])
    torch.testing.assert_close(layers.tokens_to_map(tokens, 3, 4), x)


def test_channels_last_maps_give_contiguous_tokens_and_back() -> None:
    x = torch.randn(2, 5, 3, 4).to(memory_format=torch.channels_last)
    tokens = layers.map_to_tokens(x)
    assert tokens.is_contiguous()
    assert layers.tokens_to_map(tokens, 3, 4).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_are_laid_out_row_by_row_and_back(patch: int) -> None:
    x = torch.randn(2, 3, 8, 12)
    patches = layers.patchify(x, patch)
    assert patches.shape == (2, 96 // patch**2, 3 * patch**2)
    corner = x[0, :, :patch, patch : 2 * patch].permute(1, 2, 0).flatten()
    torch.testing.assert_close(patches[0, 1], corner)
    torch.testing.assert_close(layers.unpatchify(patches, patch, 8, 12), x)


def test_tokens_read_as_an_image_are_its_channels() -> None:
    tokens = torch.randn(2, 6, 12)
    image = layers.tokens_to_image(tokens, 3, 4)
    assert image.shape == (2, 6, 3, 4)
    assert image.data_ptr() == tokens.data_ptr()
    torch.testing.assert_close(image[1, 5].flatten(), tokens[1, 5])


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ShapeError, match="patch side 5 does not divide 32x30"):
        layers.patch_grid(32, 30, 5)
    with pytest.raises(ShapeError, match="must be 12"):
        layers.tokens_to_image(torch.zeros(1, 2, 11), 3, 4)
    with pytest.raises(ShapeError, match="7 tokens"):
        layers.tokens_to_map(torch.zeros(1, 7, 2), 2, 3)


def test_readers_give_maps_of_the_asked_shape() -> None:
    image = layers.TokensToImage(tokens=6, channels=5, height=3, width=4)
    assert image(torch.randn(2, 6, 12)).shape == (2, 5, 3, 4)
    patches = layers.TokensToPatches(features=9, channels=5, height=4, width=6, patch=2, norm=False)
    assert patches(torch.randn(2, 6, 9)).shape == (2, 5, 4, 6)
    assert not any("norm" in name for name in patches.state_dict())
