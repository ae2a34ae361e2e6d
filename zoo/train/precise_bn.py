"""Precise batch norm: recomputes the running statistics as in evaluation, with dropout off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.data.batches.open import open_source
from zoo.data.batches.sampler import split_order
from zoo.data.split import Split
from zoo.models.precision import autocast
from zoo.runs.images import eval_batch
from zoo.runs.record import RunRecord
from zoo.train.optim.freeze import is_trained
from zoo.train.plan import Plan


def renew_for_evaluation(module: nn.Module, plan: Plan, prepare: Callable[[Tensor], Tensor]) -> None:
    """Call `renew_statistics` on training images, if the recipe asks for it (`precise_bn`)."""
    if plan.recipe.precise_bn:
        renew_statistics(module, some_images(plan, prepare))


def some_images(plan: Plan, prepare: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """`recipe.precise_bn` training images in whole batches, without augmentation, the same in every epoch and process.

    Yields:
        float (B, C, H, W); while they are used, products and convolutions are in fp32.
    """
    return images_for_norms(plan.record, plan.train, plan.recipe.precise_bn, plan.hardware.device, prepare)


def images_for_norms(
    record: RunRecord, train: Split, count: int, device: torch.device, prepare: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """As `some_images`: `count` training images of a run, at most all of them."""
    numbers = split_order(record.settings.sampler, record.seed, 0, train)
    rows = (numbers % len(train))[:count].numpy()
    source = open_source(train.select(rows), device, channels_last=record.channels_last)
    with autocast(device, "fp32"):
        for _, images, _ in source.batches(min(len(rows), eval_batch(record)), drop_last=True):
            yield prepare(images)


@torch.no_grad()
def renew_statistics(module: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace each batch norm's running mean and variance by those over `batches`, in place.

    Running statistics lag behind the weights, do not match averaged weights, and were gathered with dropout,
    which is off in evaluation, so that the inputs of a batch norm then have another variance. Here everything
    except for the batch norms is in evaluation mode, and every batch has the same weight.

    Args:
        module: any; frozen batch norms do not change, and without trained ones nothing is computed.
        batches: float (B, C, H, W), the input of the model.

    Source:
        Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (precise BN); Li et al., "Understanding the Disharmony
        between Dropout and Batch Normalization by Variance Shift" (statistics with dropout off).
    """
    norms = statistics_of(module)
    if not norms:
        return
    training = {m: m.training for m in module.modules()}
    before = [(norm, norm.momentum, _count(norm)) for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    try:
        for images in batches:
            module(images)
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(count)
        for child, was in training.items():
            child.training = was


def statistics_of(module: nn.Module) -> list[_BatchNorm]:
    """The batch norms that keep running statistics and are trained."""
    named = [(n, m) for n, m in module.named_modules() if isinstance(m, _BatchNorm)]
    return [m for n, m in named if m.running_mean is not None and is_trained(module, n)]


def _count(norm: _BatchNorm) -> int:
    return 0 if norm.num_batches_tracked is None else int(norm.num_batches_tracked)
