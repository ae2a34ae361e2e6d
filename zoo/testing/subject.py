"""What is checked: a tree that makes a classifier, and the sizes to make it for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node
from zoo.errors import InputError, ShapeError
from zoo.models.compose import compose

SEED = 0


class Failed(AssertionError):
    """A check found the subject wanting; the message says how."""


class Skipped(Exception):
    """A check does not apply; the message says why."""


class Sizes(NamedTuple):
    """What a classifier is composed for."""

    in_channels: int
    height: int
    width: int
    num_classes: int

    def __str__(self) -> str:
        """As a note shows it."""
        return f"{self.in_channels}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Subject:
    """A component in a classifier around it, or a model.

    Attributes:
        trees: classifiers; the first that can be built for any of the sizes is the one that is checked.
        declared: the parameter count in the catalogue, at the first of the sizes.
        larger: sizes that are tried, one after the other, where none of `sizes` is taken.
    """

    name: str
    registry: Registry
    trees: tuple[Node, ...]
    sizes: tuple[Sizes, ...]
    declared: int | None = None
    larger: tuple[Sizes, ...] = ()

    @cached_property
    def chosen(self) -> tuple[Node, tuple[Sizes, ...]]:
        """The tree that is checked, and the sizes that it takes."""
        refusals: list[str] = []
        for tree in self.trees:
            taken = tuple(sizes for sizes in self.sizes if self._takes(tree, sizes, refusals))
            if taken:
                return tree, taken
        for tree in self.trees:
            for sizes in self.larger:
                if self._takes(tree, sizes, refusals):
                    return tree, (sizes,)
        tried = ", ".join(map(str, (*self.sizes, *self.larger)))
        raise Failed(
            f"cannot be built for any of {tried}: {refusals[0]}; a model in the plugin's registry.toml that uses it "
            "says which size it takes"
        )

    def _takes(self, tree: Node, sizes: Sizes, refusals: list[str]) -> bool:
        try:
            with torch.device("meta"):
                compose(tree, self.registry, where=self.name, **sizes._asdict())
        except ShapeError as error:
            refusals.append(str(error))
            return False
        except InputError as error:
            if len(self.trees) == 1:
                raise
            refusals.append(str(error))
            return False
        return True

    @property
    def smallest(self) -> Sizes:
        """The fewest pixels that it takes."""
        return min(self.chosen[1], key=lambda s: s.height * s.width)

    def build(self, sizes: Sizes | None = None, seed: int = SEED) -> nn.Module:
        """A fresh module in train mode, a function of the seed."""
        torch.manual_seed(seed)
        sizes = sizes or self.smallest
        return compose(self.chosen[0], self.registry, where=self.name, **sizes._asdict())

    @cached_property
    def _evaluated(self) -> nn.Module:
        return self.build().eval()

    def evaluated(self) -> nn.Module:
        """A copy of one module in eval mode at the smallest size."""
        return copy.deepcopy(self._evaluated)

    def images(self, count: int, sizes: Sizes | None = None, seed: int = 1) -> Tensor:
        """(count, C, H, W) float32 of a standard normal distribution."""
        sizes = sizes or self.smallest
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, sizes.in_channels, sizes.height, sizes.width, generator=generator)
