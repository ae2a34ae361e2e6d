"""The plugin keeps the contract of hybrid-zoo, and its filters do what they say."""

import torch

from zoo.testing import conformance
from zoo_fourier.filters import fourier_filter

TestFourier = conformance("fourier")


def test_one_layer_reaches_every_pixel() -> None:
    """One product of spectra is a convolution over the whole map."""
    torch.manual_seed(0)
    [layer] = fourier_filter(channels=1, height=8, width=8, depth=1)
    layer.mlp = torch.nn.Identity()  # rounds a change of a millionth away
    image = torch.zeros(1, 1, 8, 8)
    spot = image.clone()
    spot[0, 0, 0, 0] = 1
    changed = (layer(spot) - layer(image)).abs() > 0
    assert changed.all()
