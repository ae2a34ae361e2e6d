"""The base of every struct that is read from a file, and the types of its fields."""

from __future__ import annotations

from typing import Annotated, Literal, dataclass_transform

import msgspec

Positive = Annotated[int, msgspec.Meta(gt=0)]

Count = Annotated[int, msgspec.Meta(ge=0)]

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]

PositiveFraction = Annotated[float, msgspec.Meta(gt=0, le=1)]

Probability = Fraction

NonNegative = Annotated[float, msgspec.Meta(ge=0)]

PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]

Precision = Literal["fp32", "bf16", "fp16"]
"""A number type that is computed with, or that weights are stored in."""

Decoding = Literal["reduced", "reduced-torch"]
"""How a run decodes what it cuts at random: JPEGs at a reduced size, and with small crops left to torch's filter."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every struct here: frozen, no unknown fields (and keyword-only, which is not inherited)."""
