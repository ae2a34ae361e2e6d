"""Plugin `timm`: every model of timm as "timm/NAME"."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.plugin import Component, hookimpl


@hookimpl
def zoo_components() -> Iterable[Component]:
    """Offer timm's models under one namespace."""
    return [
        Component(
            name="model",
            kind="classifier",
            factory="zoo_timm.models:model",
            names="zoo_timm.models:names",
            pretrained="zoo_timm.pretrained:pretrained",
            namespace="timm",
            summary="any model of timm, by name",
        ),
    ]
