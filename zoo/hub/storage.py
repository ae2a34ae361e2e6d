"""Packages whose parameters are stored in 16 bits: rounding them, and measuring what is stored.

What a package states is measured with the weights that it holds. What the run measured in fp32 stays beside it in
`result.json`, under `as_trained`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.errors import InputError, PackageError
from zoo.evaluate.multi_label import LabelPredictions
from zoo.evaluate.one_pass import Keep, Metrics
from zoo.evaluate.opened import OpenedSplit
from zoo.models.header import Sixteen, non_finite, read_header, rounded, stored_type
from zoo.models.precision import DTYPES, Precision
from zoo.models.tensors import widened
from zoo.runs.images import split_of
from zoo.runs.record import WEIGHTS

AS_TRAINED = "as_trained"
"""The key of `result.json` for what the run measured before its parameters were rounded: `test` and `validation`."""

LOSS, OF = 5, 10_000
"""How many correct images of how many may be lost by rounding; of fewer images as many fewer, rounded down."""


def chosen_type(source: Path, wanted: Precision | None, *, measured: bool) -> Precision:
    """The number type in which a package of `source` stores its parameters.

    Args:
        source: a run folder, or a package. wanted: None: as they are stored there.
        measured: whether the test images are measured.
    Raises:
        InputError: no such type, rounded parameters in another type, or rounding without measuring.
    """
    _check_name(wanted)
    present: Precision = "fp32"
    with contextlib.suppress(PackageError):  # what is wrong with the file is said where it is opened
        present = stored_type(source / WEIGHTS, read_header(source / WEIGHTS))
    if wanted is None or wanted == present:
        return present
    if present != "fp32":
        raise InputError(
            f"--precision {wanted}: {source} is a package that is stored in {present}, and what was rounded cannot be "
            "restored; package the run itself"
        )
    if not measured:
        raise InputError(
            f"--precision {wanted}: rounded weights are measured before they are packaged; leave out --no-predictions"
        )
    return wanted


def refuse_other_type(source: Path, present: Precision, wanted: Precision | None) -> None:
    """Refuse another number type for a package that is made already.

    Raises:
        InputError: says what makes another package.
    """
    _check_name(wanted)
    if wanted not in (None, present):
        raise InputError(
            f"--precision {wanted}: {source} is a package already, stored in {present}; give the run, or make another "
            f"package of it: zoo package RUN --precision {wanted}"
        )


def _check_name(wanted: str | None) -> None:
    if wanted is not None and wanted not in dict(DTYPES):
        raise InputError(f"precision {wanted!r}: allowed: {', '.join(name for name, _ in DTYPES)}")


def narrowed(weights: Mapping[str, Tensor], module: nn.Module, stored: Precision, path: Path) -> Mapping[str, Tensor]:
    """The weights as they are stored.

    Args:
        module: the model, on any device. path: the file that the weights are from, for messages.
    Raises:
        PackageError: a value beyond the range of the type, or weights that are not all of fp32.
    """
    if stored == "fp32":
        return weights
    state, dtype = module.state_dict(keep_vars=True), dict(DTYPES)[stored]
    for name, tensor in weights.items():
        if tensor.is_floating_point() and state[name].dtype is not dict(DTYPES)["fp32"]:
            raise PackageError(
                f"{path}: {name!r} is {tensor.dtype}; only weights of fp32 can be stored in {stored}, use "
                "--precision fp32, which stores them as they are"
            )
    small = {name: tensor.to(dtype) if rounded(state[name]) else tensor for name, tensor in weights.items()}
    if names := non_finite(small):
        largest = weights[names[0]].abs().max().item()
        raise PackageError(
            f"{path}: {names[0]!r} holds {largest:.6g}, beyond the largest number of {stored} "
            f"({_largest(stored):.6g}); use {_others(stored)}"
        )
    return small


def measured_again(
    source: Path,
    result: Mapping[str, Any],
    opened: OpenedSplit,
    weights: Mapping[str, Tensor],
    stored: Sixteen,
    registry: Registry,
    data_dir: str | None,
) -> tuple[dict[str, Any], Tensor | LabelPredictions]:
    """Measure stored weights on the images that the run was measured on.

    Args:
        source: the run, for messages. result: the run's, whose test split gave its recorded number again.
        opened: the run's test split, with its model, which has the stored weights afterwards.
        weights: as `narrowed` gives them.
    Returns:
        The result with the numbers of the stored weights, and their confusion matrix (K, K), or their predictions where
        images have several labels.
    Raises:
        PackageError: too many images are lost.
    """
    opened.classifier.module.load_state_dict(widened(weights, stored))
    keep = Keep()
    test, labelled = opened.predictions(keep=keep)
    _refuse_loss(source, int(result["test"]["correct"]), test, stored)
    numbers: dict[str, Any] = {"test": test.as_dict()}
    if result.get("validation"):
        assert opened.record is not None  # it is the split of a run
        images = split_of(opened.record, "val", registry, data_dir=data_dir)
        numbers["validation"] = opened.measure(images).as_dict()
    before = {"precision": "fp32", **{key: result[key] for key in numbers}}
    seen = keep.predictions().confusion() if labelled is None else labelled
    return {**result, **numbers, "stored": stored, AS_TRAINED: before}, seen


def numbers_as_trained(result: Mapping[str, Any]) -> Any:
    """What the run measured on its test images, in its result or in that of a package of it."""
    return result.get(AS_TRAINED, result)["test"]


def allowed_loss(count: int) -> int:
    """How many correct images of `count` may be lost by rounding."""
    return count * LOSS // OF


def _refuse_loss(source: Path, before: int, test: Metrics, stored: Sixteen) -> None:
    allowed = allowed_loss(test.count)
    if before - test.correct > allowed:
        raise PackageError(
            f"{source}: stored in {stored}, {test.correct:,} of {plural(test.count, 'test image')} are correct, "
            f"{before - test.correct:,} fewer than the {before:,} in fp32; {allowed:,} may be lost "
            f"({LOSS} of {OF:,}): use {_others(stored)}"
        )


def _others(stored: Precision) -> str:
    return " or ".join(f"--precision {name}" for name, _ in reversed(DTYPES) if name != stored)


def _largest(stored: Precision) -> float:
    import torch

    return torch.finfo(dict(DTYPES)[stored]).max
