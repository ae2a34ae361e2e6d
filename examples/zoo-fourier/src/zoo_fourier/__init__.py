"""Plugin `fourier`: global filters in the Fourier domain.

Nothing here may import torch: this module is read when models are listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zoo.plugin import Component, hookimpl


@hookimpl
def zoo_components() -> Iterable[Component]:
    """Offer what this plugin builds; each factory is imported when it is used."""
    return [
        Component(
            name="filter",
            kind="part",
            factory="zoo_fourier.filters:fourier_filter",
            summary="global filters: multiply the map's spectrum by learned weights",
        )
    ]


@hookimpl
def zoo_registry() -> Path:
    """Offer this plugin's models and recipes."""
    return Path(__file__).parent / "registry.toml"
