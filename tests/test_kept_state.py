"""A model whose state a weights file cannot keep is refused before a run has a folder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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


class Changing(nn.Module):
    """Changes a buffer that nobody keeps, in one of the ways in which people do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("mean", torch.zeros(3), persistent=False)
        self.register_buffer("spread", torch.ones(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "batch_norm":
            return F.batch_norm(x, self.mean, self.spread, training=self.training)
        if self.training:
            mean = x.mean((0, 2, 3))
            if self.how == "name":
                self.mean = mean
            if self.how == "in place":
                self.mean.mul_(0.9).add_(mean)
            if self.how == "data in place":
                self.mean.data.lerp_(mean, 0.1)
            if self.how == "data":
                self.mean.data = mean
            if self.how == "out":
                torch.add(self.mean, mean, out=self.mean)
            if self.how == "view":
                self.mean.view(3, 1)[1:] += mean[1:, None]
            if self.how == "list":
                torch._foreach_add_([self.mean], [mean])
        return x - self.mean[:, None, None]


HOW = ("name", "in place", "data in place", "data", "out", "view", "list", "batch_norm")


@pytest.mark.parametrize("how", HOW)
def test_however_a_buffer_is_changed_it_is_found(how: str) -> None:
    with pytest.raises(InputError, match="training changes the buffer mean"):
        refuse_lost_buffers(Changing(how), lambda: Changing(how), (3, 4, 4), "net")


def test_a_model_that_only_reads_its_buffers_is_not_built_and_run_with_memory() -> None:
    def build() -> nn.Module:
        module = Changing("not at all")
        assert module.mean.device.type == "meta", "it is built with memory"
        return module

    refuse_lost_buffers(Changing("not at all"), build, (3, 4, 4), "net")


class Sampling(nn.Module):
    """Counts its steps, and draws in evaluation mode, too, which is no matter of what it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        return F.dropout(x, 0.5, training=True)


class Picky(Centred):
    """Says that it takes other images when it has changed its buffer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        raise ValueError("other images")


@pytest.mark.parametrize("kind", [Sampling, lambda: Picky(False, True)])
def test_what_draws_in_evaluation_mode_or_does_not_run_is_not_refused_for_its_buffers(kind: Any) -> None:
    refuse_lost_buffers(kind(), kind, (3, 4, 4), "net")
