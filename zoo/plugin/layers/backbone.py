"""timm's conventions for a classifier, so that it serves as a backbone where timm's models do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InputError


class NoClasses(nn.Identity):
    """In the place of the last layer of a model that gives features; `make` makes one for so many classes."""

    def __init__(self, last: nn.Linear) -> None:
        super().__init__()
        bias, options = last.bias is not None, getattr(last, "options", {})
        self.in_features = last.in_features
        self.make: Callable[[int], nn.Module] = partial(type(last), last.in_features, bias=bias, **options)


class Backbone(nn.Module):
    """A classifier that answers timm's conventions.

    A subclass has `forward_features` and `forward_head`; its `forward` is the one after the other. The last
    `nn.Linear`, in the order of `named_modules`, gives the logits. If its class takes more than torch's, its `options`
    are the further arguments by name. State, weights and forward pass are those that the model has without this class.

    Attributes:
        pretrained_cfg: as timm's: `input_size` (C, H, W), `num_classes`, `classifier` (the name of the last layer),
            `mean`, `std` and more; empty for a module that `zoo` did not build.
    """

    pretrained_cfg: Mapping[str, Any] = MappingProxyType({})

    @property
    def default_cfg(self) -> Mapping[str, Any]:
        """timm's earlier name of `pretrained_cfg`."""
        return self.pretrained_cfg

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to what the head takes: a map (B, C', H', W') or tokens (B, N, D)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_features")

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gives to logits (B, num_classes); with `pre_logits` to features (B, num_features)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_head")

    @property
    def num_classes(self) -> int:
        """Logits; 0 where the model gives features."""
        try:
            last = self.get_classifier()
        except InputError:
            if "num_classes" not in self.pretrained_cfg:
                raise
            return int(self.pretrained_cfg["num_classes"])
        return last.out_features if isinstance(last, nn.Linear) else 0

    @property
    def num_features(self) -> int:
        """Width of the features that the last layer takes."""
        return int(self.get_classifier().in_features)  # type: ignore[arg-type]

    @property
    def head_hidden_size(self) -> int:
        """As `num_features`."""
        return self.num_features

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.get_submodule(last_linear(self))

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the model a new last layer, with fresh weights.

        Args:
            num_classes: of the new one; 0: the model then gives features (B, num_features).
            global_pool: None: the pooling is a matter of the model's tree.

        Raises:
            InputError: another pooling was asked for, or a negative number of classes.
        """
        if global_pool is not None:
            raise InputError(f"global_pool={global_pool!r}: the pooling of this model is fixed; leave global_pool out")
        if num_classes < 0:
            raise InputError(f"num_classes={num_classes}: give 0 or more")
        path, _, name = last_linear(self).rpartition(".")
        last = self.get_submodule(f"{path}.{name}" if path else name)
        empty = last if isinstance(last, NoClasses) else NoClasses(last)  # type: ignore[arg-type]
        like = next(self.parameters(), torch.empty(0))
        new = empty.make(num_classes).to(like.device, like.dtype) if num_classes else empty
        setattr(self.get_submodule(path), name, new.train(self.training))


def last_linear(module: nn.Module) -> str:
    """The name of the last linear layer, or of what stands in its place; of stages, only the head is looked at.

    Raises:
        InputError: there is none.
    """
    place, head = list(module.named_children())[-1] if isinstance(module, StagedClassifier) else ("", module)
    names = [name for name, layer in head.named_modules(prefix=place) if isinstance(layer, nn.Linear | NoClasses)]
    if not names:
        raise InputError(f"{type(module).__name__} has no linear layer that gives its logits")
    return names[-1]


class StagedClassifier(Backbone, nn.Sequential):
    """Stages one after the other, the last of which is the head: an `nn.Sequential` that answers timm's conventions.

    A head is an `nn.Sequential`, or has a method `pre_logits` that gives what its last linear layer takes, from what
    the head takes; of any other head the input of that layer is looked at. A head without a linear layer (one that ends
    with a convolution) gives logits, and no features; its last layer cannot be reset.
    """

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to what the head takes."""
        for stage in list(self)[:-1]:
            x = stage(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gives to logits (B, num_classes); with `pre_logits` to features (B, num_features)."""
        return _before_last(self[-1], self.get_classifier(), x) if pre_logits else self[-1](x)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """For each size of the maps the last one of it: `num_chs`, `reduction` (input side / map side) and `module`.

        Empty for a module that `zoo` did not build, whose input size is not known.
        """
        if "_feature_info" not in vars(self):
            vars(self)["_feature_info"] = _found_maps(self) if self.pretrained_cfg else []
        return [dict(info) for info in vars(self)["_feature_info"]]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of `feature_info`, as timm's models give them.

        Args:
            x: (B, C, H, W).
            indices: of the maps: the last n, or their places; None: all.
            norm: no norm is applied to maps: only False.
            stop_early: leave out what comes after the last map that is wanted.
            output_fmt: only "NCHW".
            intermediates_only: leave out what the head takes.

        Raises:
            InputError: there is no such map, or another format was asked for.
        """
        names = [info["module"] for info in self.feature_info]
        wanted = _chosen(names, indices)
        if norm or output_fmt != "NCHW":
            raise InputError(f"norm={norm}, output_fmt={output_fmt!r}: the maps are given as they are, as NCHW")
        found: dict[str, Tensor] = {}
        for name, x in _maps(self, x):  # noqa: B020 - the map goes on from stage to stage
            if name in wanted:
                found[name] = x
            if len(found) == len(set(wanted)) and (stop_early or intermediates_only):
                break
        maps = [found[name] for name in wanted]
        return maps if intermediates_only else (x, maps)


def _found_maps(module: StagedClassifier) -> list[dict[str, Any]]:
    """The entries of `feature_info`, from one pass over an empty image."""
    like, modes = next(module.parameters()), [(part, part.training) for part in module.modules()]
    image = torch.zeros(1, *module.pretrained_cfg["input_size"], device=like.device, dtype=like.dtype)
    with torch.no_grad():
        shapes = [(name, out.shape) for name, out in _maps(module.eval(), image)]
    for part, training in modes:
        part.training = training
    last = {tuple(shape[2:]): (name, int(shape[1])) for name, shape in shapes if len(shape) == 4}
    return [
        {"num_chs": channels, "reduction": _reduction(image.shape[2], size[0]), "module": name}
        for size, (name, channels) in sorted(last.items(), reverse=True)
        if size <= tuple(image.shape[2:])
    ]


def _chosen(names: list[str], indices: int | Sequence[int] | None) -> list[str]:
    places = range(-indices, 0) if isinstance(indices, int) else range(len(names)) if indices is None else indices
    if any(not -len(names) <= place < len(names) for place in places):
        raise InputError(f"indices={indices}: this model has maps 0 to {len(names) - 1}")
    return [names[place] for place in places]


def _maps(module: StagedClassifier, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What each step before the head gives, with its name."""
    for name, stage in list(module.named_children())[:-1]:
        for step_name, step in _steps(name, stage):
            x = step(x)
            yield step_name, x


def _steps(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The steps of plain sequences, as deep as these go."""
    if type(module).forward is not nn.Sequential.forward or not len(list(module.children())):
        yield name, module
        return
    for inner, child in module.named_children():
        yield from _steps(f"{name}.{inner}", child)


def _reduction(before: int, after: int) -> int:
    """By how much a side is divided; the nearest power of two where it does not divide evenly."""
    return before // after if before % after == 0 else 2 ** round(math.log2(before / after))


def _before_last(head: nn.Module, last: nn.Module, x: Tensor) -> Tensor:
    """What the last linear layer of a head takes."""
    if head is last:
        return x
    if callable(given := getattr(head, "pre_logits", None)):
        features: Tensor = given(x)
        return features
    if isinstance(head, nn.Sequential):
        for step in head:
            if step is last:
                return x
            x = step(x)
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        head(x)
    finally:
        handle.remove()
    return seen[-1]
