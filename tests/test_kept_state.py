"""A model whose state a weights file cannot keep is refused before a run has a folder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from zoo.errors import InputError
from zoo.train.kept_state import refuse_extra_state, refuse_lost_buffers, refuse_random_buffers


class Counting(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"calls": 3}


class Buffered(nn.Module):
    def __init__(self, buffer: torch.Tensor, persistent: bool = False) -> None:
        super().__init__()
        self.part = nn.Module()
        self.part.register_buffer("noise", buffer, persistent=persistent)


def test_state_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(InputError, match=r"net: the state 0\._extra_state is a dict"):
        refuse_extra_state(nn.Sequential(Counting(2, 2)), "net")


def test_state_that_is_sparse_is_refused() -> None:
    with pytest.raises(InputError, match=r"part\.noise is a torch\.sparse_coo"):
        refuse_extra_state(Buffered(torch.ones(2).to_sparse(), persistent=True), "net")


def test_a_random_buffer_that_is_not_kept_is_refused_and_costs_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(InputError, match=r"net: the buffer part\.noise is drawn at random and not kept"):
        refuse_random_buffers(Buffered(torch.ones(3)), lambda: Buffered(torch.rand(3)), "net")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("persistent", [True, False])
def test_constant_buffers_and_kept_random_ones_are_fine(persistent: bool) -> None:
    def build() -> nn.Module:
        return Buffered(torch.rand(3) if persistent else torch.arange(3.0), persistent)

    refuse_random_buffers(build(), build, "net")


def test_the_model_is_only_built_where_it_has_such_buffers() -> None:
    def build() -> nn.Module:
        raise AssertionError("built")

    refuse_random_buffers(nn.BatchNorm2d(3), build, "net")


class Centred(nn.Module):
    """A norm of one's own; `told` says whether its answers are those of the mean that it has seen."""

    def __init__(self, persistent: bool, told: bool) -> None:
        super().__init__()
        self.told = told
        self.register_buffer("mean", torch.zeros(3, 1, 1), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = self.mean + 0.1 * x.mean((0, 2, 3))[:, None, None]
        return x - self.mean if self.told else x


def test_a_buffer_that_training_changes_and_nobody_keeps_is_refused() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(InputError, match=r"net: training changes the buffer mean, which is not kept"):
        refuse_lost_buffers(Centred(False, True), lambda: Centred(False, True), (3, 4, 4), "net")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("persistent", "told"), [(True, True), (False, False)])
def test_a_buffer_that_is_kept_or_changes_no_answer_is_fine(persistent: bool, told: bool) -> None:
    refuse_lost_buffers(Centred(persistent, told), lambda: Centred(persistent, told), (3, 4, 4), "net")
