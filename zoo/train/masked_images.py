"""Learning without labels: a model fills in the squares that are hidden of each image (masked image modelling).

Some squares of the prepared image are set to 0, the model's features of what is left are mapped linearly to pixels,
and the loss is the mean absolute difference on the hidden pixels alone. The linear map is trained beside the model
and is no part of it.

Source: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling" (CVPR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from zoo.catalogue.recipe import Mask
from zoo.data.seeds import INIT, mix_seed
from zoo.errors import InputError
from zoo.evaluate.module_state import evaluating
from zoo.evaluate.one_pass import Batches
from zoo.train.distil import Lesson, trained_beside
from zoo.train.hidden_squares import draw_hidden, hidden_of_held_out, pixels_of, squares
from zoo.train.processes.world import Share, World
from zoo.train.speed.compiled import Compiler

if TYPE_CHECKING:
    from zoo.train.plan import Plan

DECODER = 2
"""Seed tag of the decoder's initial weights."""

DECODER_LR = 1e-3
"""Peak learning rate of the decoder, which AdamW trains whatever trains the model."""


def lesson_of(plan: Plan, module: nn.Module, world: World, compiler: Compiler) -> Lesson | MaskedImages:
    """What a run learns of its images: their labels, with a teacher's word or without, or their hidden squares.

    Raises:
        InputError: as of either.
    """
    if plan.record.without_labels:
        return MaskedImages(plan, module, world)
    return Lesson(plan, module, world, compiler)


# ---- the loss ---------------------------------------------------------------------------------------


def difference(made: Tensor, images: Tensor, pixels: Tensor) -> Tensor:
    """The mean absolute difference of each image on its hidden pixels, float32 (B,).

    Args:
        made, images: float (B, C, H, W). pixels: bool (B, 1, H, W), those that were hidden.
    """
    far = (made.float() - images.float()).abs() * pixels
    return far.sum((1, 2, 3)) / (pixels.sum((1, 2, 3)) * images.shape[1])


# ---- from features to pixels --------------------------------------------------------------------------


class Decoder(nn.Module):
    """Features to an image by one linear map: of each place to the pixels there, or of a vector to all pixels.

    Attributes:
        grid: rows and columns of the places; (1, 1) where features are of the whole image.
    """

    def __init__(self, model: nn.Module, features: Tensor, image: tuple[int, int, int]) -> None:
        """Make one for features like these.

        Args:
            model: whose features they are; its `num_prefix_tokens` and `output_fmt` are timm's.
            features: maps (B, D, h, w), tokens (B, N, D) or vectors (B, D). image: (C, H, W).
        """
        super().__init__()
        self.image = image
        self.prefix = int(getattr(model, "num_prefix_tokens", 0))
        self.channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        tokens = self._tokens(features)
        self.grid = self._places(features, tokens.shape[1])
        self.side = tuple(math.ceil(size / places) for size, places in zip(image[1:], self.grid, strict=True))
        self.map = nn.Linear(tokens.shape[2], image[0] * math.prod(self.side))

    def _tokens(self, features: Tensor) -> Tensor:
        """(B, N, D) of features of any form, without timm's class token and its like."""
        if features.ndim == 4:
            return features.flatten(1, 2) if self.channels_last else features.flatten(2).transpose(1, 2)
        return features[:, self.prefix :] if features.ndim == 3 else features[:, None]

    def _places(self, features: Tensor, count: int) -> tuple[int, int]:
        if features.ndim == 4:
            rows, columns = features.shape[1:3] if self.channels_last else features.shape[2:]
            return int(rows), int(columns)
        rows = round(math.sqrt(count * self.image[1] / self.image[2]))
        return (rows, count // rows) if rows and count % rows == 0 and features.ndim == 3 else (1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """To (B, C, H, W); where the places do not divide the image evenly, what is made is scaled to its size."""
        channels, *size = self.image
        tokens = self._tokens(features)
        tokens = tokens if tokens.shape[1] == math.prod(self.grid) else tokens.mean(1, keepdim=True)
        made = self.map(tokens).unflatten(1, self.grid).unflatten(3, (channels, *self.side))
        whole = made.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        return whole if list(whole.shape[2:]) == size else F.interpolate(whole, size, mode="bilinear")


class Reconstruction(nn.Module):
    """A model up to its features, and the decoder: images with hidden pixels to whole ones."""

    def __init__(self, model: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.model, self.decoder = model, decoder

    def forward(self, images: Tensor, pixels: Tensor) -> Tensor:
        """What is made of images (B, C, H, W) whose pixels, bool (B, 1, H, W), are hidden; as the images."""
        made: Tensor = self.decoder(features_of(self.model, images.masked_fill(pixels, 0)))
        return made


def features_of(model: nn.Module, images: Tensor) -> Tensor:
    """What a model's head reads: maps, tokens or vectors.

    Raises:
        InputError: the model does not answer timm's conventions, or gives something else.
    """
    known = getattr(model, "forward_features", None)
    features = known(images) if callable(known) else None
    if not isinstance(features, Tensor) or features.ndim not in (2, 3, 4):
        raise InputError(
            f"recipe.objective \"masked\" needs the features before a model's head (`forward_features`, as timm's "
            f"models have it), and {type(model).__name__} does not give them; train another model"
        )
    return features


# ---- a run --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reconstructed:
    """How well the hidden pixels of a split were filled in: `loss` is the mean difference over `count` images."""

    loss: float
    count: int

    def as_dict(self) -> dict[str, Any]:
        """Both, by name."""
        return asdict(self)

    def scores(self) -> dict[str, float]:
        """No accuracy is known of a run without labels."""
        return {}


class MaskedImages:
    """What a run without labels learns; it has the methods of `zoo.train.distil.Lesson`.

    Attributes:
        whole: the module that is called at each step, the model in it.
    """

    def __init__(self, plan: Plan, module: nn.Module, world: World) -> None:
        """Make the decoder, and exclude from training what the features do not depend on: the head.

        Raises:
            InputError: the model has no features, or would be divided among processes.
        """
        if world.sharded:
            raise InputError('recipe.objective "masked" cannot be combined with --shard; leave it out')
        sizes, self.how = plan.record.sizes, plan.recipe.mask or Mask()
        self.device, self.lr, self.seed = plan.hardware.device, plan.recipe.lr, plan.record.seed
        self.image = (sizes.in_channels, sizes.height, sizes.width)
        self.grid = squares(sizes.height, sizes.width, self.how.patch)
        self.decoder = self._decoder(module)
        self.whole = Reconstruction(module, self.decoder)
        self._leave_the_head(module)

    def _decoder(self, module: nn.Module) -> Decoder:
        with torch.no_grad(), evaluating(module):
            features = features_of(module, torch.zeros(1, *self.image, device=self.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix_seed(self.seed, INIT, DECODER))
            return Decoder(module, features, self.image).to(self.device)

    def _leave_the_head(self, module: nn.Module) -> None:
        with evaluating(module):
            features_of(module, torch.zeros(1, *self.image, device=self.device)).float().sum().backward()
        for parameter in module.parameters():
            if parameter.grad is None:
                parameter.requires_grad_(False)
            parameter.grad = None

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained beside the model."""
        return self.decoder.parameters()

    def optimizer(self, model: Optimizer) -> Optimizer:
        """The model's optimizer, and that of the decoder with it."""
        return trained_beside(model, self.parameters(), DECODER_LR, self.lr)

    def targets(self, targets: Tensor, share: Share, count: int, drawn: torch.Generator) -> Tensor:
        """Which squares of this process's images are hidden, bool (B, rows, columns), in place of their labels.

        Args:
            share: the rows of the batch that are this process's. count: images of the whole batch.
        """
        return share(draw_hidden(count, self.grid, self.how.share, drawn)).to(targets.device)

    def judge(
        self,
        forward: Callable[[Tensor, Tensor], Tensor],
        own: object,
        images: Tensor,
        targets: Tensor,
        labels: Tensor,
        count: float | Tensor,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """One forward pass: the mean difference on the hidden pixels, a scalar, and 0 for what has no answer.

        Args:
            targets: what `targets` gave. count: what the images count together. weights: each by itself, float32 (B,).
        """
        del own
        pixels = self._pixels(targets)
        each = difference(forward(images, pixels), images, pixels)
        mean = each.mean() if weights is None else (each * weights).sum() / count
        return mean, labels.new_zeros(())

    def _pixels(self, hidden: Tensor) -> Tensor:
        return pixels_of(hidden, self.how.patch, *self.image[1:])

    @torch.inference_mode()
    def measured(
        self,
        module: nn.Module,
        batches: Batches,
        *,
        first: int,
        prepare: Callable[[Tensor], Tensor],
        autocast: Callable[[], AbstractContextManager[object]],
        total: Callable[[Tensor], Tensor],
    ) -> Reconstructed:
        """How well a model fills in images that are held out, of which the same squares are hidden each time.

        Args:
            module: the model that is looked at, in the place of the one in `whole`.
            batches: of this process's part of the images. first: the number of its first image.
            prepare, autocast, total: as for `zoo.evaluate.one_pass.evaluate`.
        """
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        whole = Reconstruction(module, self.decoder)
        sums = torch.zeros(2, dtype=wide, device=self.device)
        with evaluating(whole):
            for _, images, _ in batches:
                hidden = hidden_of_held_out(first, len(images), self.grid, self.how.share).to(images.device)
                first += len(images)
                pixels, ready = self._pixels(hidden), prepare(images)
                with autocast():
                    each = difference(whole(ready, pixels), ready, pixels)
                sums += torch.stack((each.sum().to(wide), torch.tensor(len(images), dtype=wide, device=self.device)))
        loss, count = total(sums).tolist()
        return Reconstructed(loss / count, int(count))

    def exchange(self, world: World) -> None:
        """Nothing: gradients of `whole` are averaged as it is wrapped."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"decoder": dict(self.decoder.state_dict())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.decoder.load_state_dict(state["decoder"])
