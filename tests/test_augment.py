"""Augmentation on whole batches: equal to torchvision's definitions, pure, and the same every time."""

from __future__ import annotations

import typing

import pytest
import torch
import torchvision.transforms.v2 as T
from torchvision.transforms.v2 import functional as F

from zoo.catalogue import augmentation
from zoo.data.augment import colour, geometry, mix, randaugment
from zoo.data.augment.pipeline import OPERATIONS, Augment, build
from zoo.data.augment.progressive import sizes_of_epochs
from zoo.data.batches.resident import Resident, batch_count, generator, order, slices
from zoo.data.load import load
from zoo.data.seeds import mix_seed
from zoo.errors import InputError, ShapeError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ALL = (
    augmentation.Flip(),
    augmentation.VerticalFlip(),
    augmentation.Transpose(),
    augmentation.Crop(padding=2, mode="reflect"),
    augmentation.ProgressiveSize(epochs=1, scale=0.75),
    augmentation.RandAugment(),
    augmentation.Jitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25),
    augmentation.Brightness(factor=0.75, p=0.5),
    augmentation.Grayscale(p=0.5),
    augmentation.Cutout(size=4),
    augmentation.Mixup(alpha=0.2),
    augmentation.CutMix(alpha=1.0),
)


def batch(n: int = 16, height: int = 12, width: int = 12) -> torch.Tensor:
    g = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (n, 3, height, width), generator=g, dtype=torch.uint8)
    images[0] = 77  # gray, where hue is undefined
    images[1, :, :4] = 0
    return images


def make(*steps: augmentation.Step, normalize: bool = False, size: tuple[int, int] = (12, 12)) -> Augment:
    return build(steps, MEAN, STD, normalize, size=size, num_classes=10)


def test_normalising_is_torchvisions_in_both_memory_formats():
    images, labels = batch(), torch.arange(16) % 10
    expected = F.normalize(images.float() / 255, list(MEAN), list(STD))
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        got, targets = make(normalize=True)(given, labels)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(make(normalize=True).prepare(given), got, atol=0, rtol=0)
        assert torch.equal(targets, labels)


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (colour.adjust_brightness, F.adjust_brightness, 0.0, 2.0),
        (colour.adjust_contrast, F.adjust_contrast, 0.0, 2.0),
        (colour.adjust_saturation, F.adjust_saturation, 0.0, 2.0),
        (colour.adjust_hue, F.adjust_hue, -0.5, 0.5),
    ],
)
def test_colour_equals_torchvision_for_each_image_and_factor(ours, theirs, low, high):
    images = batch().float() / 255
    factors = torch.linspace(low, high, len(images))
    expected = torch.stack([theirs(x, float(f)) for x, f in zip(images, factors, strict=True)])
    torch.testing.assert_close(ours(images, factors), expected, atol=2e-5, rtol=0)


def test_colour_equals_torchvision_on_real_images(cifar10_parquet):
    data = load(f"parquet:{cifar10_parquet}/plain_text/test-00000-of-00001.parquet", whole=True)
    images = torch.from_numpy(data.test.images[:64].copy()).float() / 255
    factors = torch.linspace(-0.25, 0.25, 64)
    expected = torch.stack([F.adjust_hue(x, float(f)) for x, f in zip(images, factors, strict=True)])
    torch.testing.assert_close(colour.adjust_hue(images, factors), expected, atol=2e-5, rtol=0)


def test_grayscale_equals_torchvision_where_chosen():
    images = batch().float() / 255
    chosen = torch.arange(16) % 2 == 0
    got = colour.grayscale(images, chosen)
    expected = F.rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(got[chosen], expected[chosen], atol=1e-6, rtol=0)
    assert torch.equal(got[~chosen], images[~chosen])


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("cut", [geometry.crop, geometry.gathered_crop])
def test_a_crop_cuts_each_image_at_its_own_place(cut, mode, channels_last):
    images = batch(9, 8, 10)
    given = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    top, left = torch.arange(9) % 7, torch.arange(9).flip(0) % 7
    got = cut(given, top, left, 3, mode)
    padded = F.pad(images, [3], padding_mode="constant" if mode == "zero" else "reflect")
    for i in range(9):
        assert torch.equal(got[i], padded[i, :, top[i] : top[i] + 8, left[i] : left[i] + 10])
    assert got.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("device", ["cpu", "compiled"])
def test_a_window_is_a_part_of_each_image(channels_last, device):
    images = batch(9, 8, 10)
    given = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    top, left = torch.arange(9) % 4, torch.arange(9).flip(0) % 5
    cut = geometry.window
    if device == "compiled":  # the gather of pixels, as on a GPU
        cut = torch.compile(geometry.window, fullgraph=True, backend="aot_eager")
    got = cut(given, top, left, (5, 6))
    for i in range(9):
        assert torch.equal(got[i], images[i, :, top[i] : top[i] + 5, left[i] : left[i] + 6])
    assert got.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("channels_last", [False, True])
def test_first_epochs_see_a_part_of_each_image_or_all_of_it_scaled_down(channels_last):
    images, labels = batch(64), torch.zeros(64).long()
    given = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    crops, resized = (
        make(augmentation.ProgressiveSize(epochs=2, scale=0.75, mode=mode)) for mode in ("crop", "resize")
    )
    cut = (crops(given, labels, generator(1), epoch=1)[0] * 255).round().to(torch.uint8)
    places = set()
    for one, image in zip(cut, images, strict=True):
        parts = {(y, x): image[:, y : y + 9, x : x + 9] for y in range(4) for x in range(4)}
        found = [place for place, part in parts.items() if torch.equal(one, part)]
        assert found
        places.update(found[:1])
    assert len(places) == 16
    expected = F.resize(images.float() / 255, [9, 9], antialias=True)
    torch.testing.assert_close(resized(given, labels, epoch=1)[0], expected, atol=0.5 / 255 + 1e-6, rtol=0)
    for augment in (crops, resized):
        assert augment(given, labels, generator(1), epoch=2)[0].shape == (64, 3, 12, 12)


def test_several_stages_of_smaller_images_multiply():
    first = augmentation.ProgressiveSize(epochs=1, scale=0.5)
    steps = (first, augmentation.ProgressiveSize(epochs=3, scale=0.75, mode="resize"))
    augment, images = make(*steps), batch()
    shapes = [augment(images, images[:, 0, 0, 0], generator(1), epoch=e)[0].shape[-1] for e in range(4)]
    assert shapes == [4, 9, 9, 12]
    assert sizes_of_epochs(steps, (12, 12)) == ((4, 4), (9, 9))
    assert sizes_of_epochs((augmentation.ProgressiveSize(epochs=1, scale=1.0),), (12, 12)) == ()


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("values", ["bytes", "floats"])
def test_one_gather_of_pixels_is_the_crop_of_rows_and_compiles_whole(mode, values):
    images = batch() if values == "bytes" else batch().float() / 255
    top, left = torch.randint(0, 9, (2, 16), generator=generator(3)).unbind()
    expected = geometry.crop(images, top, left, 4, mode)
    compiled = torch.compile(geometry.gathered_crop, fullgraph=True, backend="aot_eager")
    for gather in (geometry.gathered_crop, compiled):
        assert torch.equal(gather(images, top, left, 4, mode), expected)
    assert expected.dtype == images.dtype


@pytest.mark.parametrize("channels_last", [False, True])
def test_flips_and_transpose_change_the_chosen_images_only(channels_last):
    images = batch()
    given = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    chosen = torch.arange(16) % 3 == 0
    pairs = (
        (geometry.flip, images.flip(-1)),
        (geometry.vertical_flip, images.flip(-2)),
        (geometry.transpose, images.mT),
    )
    for change, expected in pairs:
        got = change(given, chosen)
        assert torch.equal(got[chosen], expected[chosen])
        assert torch.equal(got[~chosen], images[~chosen])


def test_an_alternating_flip_mirrors_each_image_every_second_epoch():
    indices = torch.arange(1000)
    first, second = (geometry.alternating(indices, epoch) for epoch in (0, 1))
    assert torch.equal(first, ~second)
    assert torch.equal(first, geometry.alternating(indices, 2))
    assert 400 < int(first.sum()) < 600
    images, augment = batch(), make(augmentation.Flip(alternate=True))
    zero, one = (augment(images, images[:, 0, 0, 0], indices=indices[:16], epoch=e)[0] for e in (0, 1))
    assert torch.equal(zero, one.flip(-1))
    with pytest.raises(InputError, match="indices"):
        augment(images, images[:, 0, 0, 0])


def test_cutout_is_one_square_of_the_mean():
    images = torch.full((16, 3, 12, 12), 200, dtype=torch.uint8)
    got, _ = make(augmentation.Cutout(size=4), normalize=True)(images, torch.zeros(16).long(), generator(1))
    holes = (got == 0).all(1).flatten(1).sum(1)
    assert holes.max() == 16
    assert holes.min() >= 4


def test_mixup_and_cutmix_share_targets_as_they_share_pixels():
    images = torch.zeros(8, 3, 16, 16)
    images[4:] = 1.0
    targets = mix.soft_targets(torch.tensor([0] * 4 + [1] * 4), 2)
    cut, shares = mix.cutmix(images, targets, *(torch.tensor(v) for v in (0.6, 0.1, 0.5)))
    torch.testing.assert_close(cut.mean((1, 2, 3)), shares[:, 1])
    assert 0 < shares[0, 1] < 0.4
    blended, shares = mix.mixup(images, targets, torch.tensor(0.7))
    torch.testing.assert_close(blended.mean((1, 2, 3)), shares[:, 1])
    assert shares[0].tolist() == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize("operation", range(len(randaugment.CHANGES)))
def test_each_randaugment_operation_is_torchvisions(operation):
    images, bin_ = batch(4), 9
    theirs, nearest = T.RandAugment(), F.InterpolationMode.NEAREST
    name = randaugment.CHANGES[operation][0]
    magnitudes, signed = theirs._AUGMENTATION_SPACE[name]
    bins = magnitudes(31, 12, 12)
    magnitude = 0.0 if bins is None else float(bins[bin_])
    assert signed == (1 <= operation <= randaugment.SIGNED)
    for negative in (False, True):
        value = -magnitude if negative and signed else magnitude
        expected = theirs._apply_image_or_video_transform(images, name, value, nearest, {})
        assert torch.equal(randaugment.apply_one(images, operation, bin_, negative), expected)


def test_randaugment_changes_each_image_by_its_own_draw():
    images = batch(14)
    draws = torch.stack([(torch.arange(14) + 0.5) / 14, torch.full((14,), 0.9)])
    got = randaugment.randaugment(images, draws, 9)
    for i in range(14):
        assert torch.equal(got[i], randaugment.apply_one(images[i : i + 1], i, 9, False)[0])


def test_the_same_seed_gives_the_same_batch_and_another_step_another():
    images, labels, augment = batch(), torch.arange(16) % 10, make(*ALL)
    first, again, other = (augment(images, labels, generator(3, 1, step)) for step in (7, 7, 8))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(images, batch()), "the resident images must not change"
    assert first[1].shape == (16, 10)
    torch.testing.assert_close(first[1].sum(1), torch.ones(16))


def test_jitter_draws_the_factors_that_torchvision_draws():
    images = torch.full((4096, 3, 2, 2), 100, dtype=torch.uint8)
    got, _ = make(augmentation.Jitter(brightness=0.5), size=(2, 2))(images, torch.zeros(4096).long(), generator(2))
    factors = got[:, 0, 0, 0] * 255 / 100
    assert 0.5 <= float(factors.min()) < 0.51
    assert 1.49 < float(factors.max()) <= 1.5001
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)


def test_apply_compiles_whole_and_gives_the_same():
    steps = (
        augmentation.RandomResizedCrop(),
        augmentation.Flip(),
        augmentation.Flip(alternate=True),
        augmentation.Crop(padding=2),
        augmentation.ProgressiveSize(epochs=1, scale=0.75),
        augmentation.Jitter(brightness=0.5, hue=0.25),
        augmentation.Cutout(size=4),
        augmentation.Mixup(),
    )
    augment, images, labels = make(*steps, normalize=True), batch(), torch.arange(16) % 10
    draws = augment.draw(16, generator(1), indices=torch.arange(16))
    compiled = torch.compile(augment.apply, fullgraph=True, backend="aot_eager")
    expected, _ = augment.apply(images, labels, draws)
    torch.testing.assert_close(compiled(images, labels, draws)[0], expected, atol=1e-5, rtol=0)


def test_every_step_of_a_recipe_has_an_operation_of_its_own():
    steps = typing.get_args(augmentation.Step)
    assert set(OPERATIONS) == set(steps) == set(augmentation.Augmentation.__subclasses__())
    assert len(set(OPERATIONS.values())) == len(steps)


def test_steps_that_do_not_suit_the_images_are_refused():
    with pytest.raises(ShapeError, match="square"):
        make(augmentation.Transpose(), size=(8, 10))
    with pytest.raises(ShapeError, match="cannot reflect"):
        make(augmentation.Crop(padding=8, mode="reflect"), size=(8, 10))
    with pytest.raises(InputError, match=r"0\.\.30"):
        make(augmentation.RandAugment(magnitude=31))


@pytest.mark.parametrize("channels_last", [False, True])
def test_resident_batches_are_the_rows_of_the_split(channels_last):
    data = load("sklearn:digits")
    rows = torch.arange(0, 1437, 2)
    resident = Resident(data.train, rows=rows.numpy(), channels_last=channels_last)
    order_ = order(4, 2, len(resident))
    seen = 0
    for indices, images, labels in resident.batches(100, rows=order_):
        original = data.train.images[rows[indices].numpy()]
        assert (images.numpy() == original).all()
        assert labels.tolist() == data.train.labels[rows[indices].numpy()].tolist()
        seen += len(labels)
    assert seen == len(resident) == 719


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch():
    first = order(1, 0, 500)
    assert torch.equal(first.sort().values, torch.arange(500))
    assert torch.equal(first, order(1, 0, 500))
    assert not torch.equal(first, order(1, 1, 500))
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert len({mix_seed(s, e, t) for s in range(5) for e in range(20) for t in range(50)}) == 5000
    assert 0 <= mix_seed(-1, 2**70) < 2**64


def test_training_drops_the_partial_batch_and_evaluation_keeps_it():
    assert list(slices(10, 4, drop_last=True)) == [(0, 4), (4, 8)]
    assert list(slices(10, 4, drop_last=False, start=1)) == [(4, 8), (8, 10)]
    assert list(slices(3, 4, drop_last=True)) == [(0, 3)]
    assert batch_count(10, 4, drop_last=False) == 3
