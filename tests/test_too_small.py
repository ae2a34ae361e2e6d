"""What cannot be trained because something is lacking, each said in a line that is no report of a bug."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.errors import InputError
from zoo.train.too_small import refuse_untrainable, refusing_too_few_images


def test_a_batch_of_one_image_before_batch_normalisation_is_said_to_be_too_small() -> None:
    layer = nn.BatchNorm1d(3)
    few = r"batches of 1 image are too small .* --batch-size 2"
    with pytest.raises(InputError, match=few), refusing_too_few_images(1, 1):
        layer(torch.ones(1, 3))
    few = r"batches of 4 images in 4 parts .* --batch-size 8"
    with pytest.raises(InputError, match=few), refusing_too_few_images(4, 4):
        layer(torch.ones(1, 3))
    with pytest.raises(ValueError, match="something else"), refusing_too_few_images(1, 1):
        raise ValueError("something else")


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.ones(2, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.Flatten(), "has no parameters"),
        (nn.Linear(2, 2).requires_grad_(False), "all parameters are frozen"),
        (Complex(), "the parameter filter is complex"),
    ],
)
def test_a_model_that_no_optimizer_can_train_is_refused(module: nn.Module, why: str) -> None:
    with pytest.raises(InputError, match=f"mine: .*{why}"):
        refuse_untrainable(module, "mine")
    refuse_untrainable(nn.Linear(2, 2), "mine")
