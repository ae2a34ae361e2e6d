"""Plugin `fourier`: global filters in the Fourier domain.

Nothing here may import torch: this module is read when models are listed.
"""

from __future__ import annotations

from pathlib import Path

from zoo.plugin import Component, hookimpl, named, offers

zoo_components = offers(
    Component(
        name="filter",
        kind="part",
        factory="zoo_fourier.filters:fourier_filter",
        summary="global filters: multiply the map's spectrum by learned weights",
    )
)

__getattr__, __dir__ = named(__name__, "fourier", zoo_components)


@hookimpl
def zoo_registry() -> Path:
    """Offer this plugin's models and recipes."""
    return Path(__file__).parent / "registry.toml"
