"""Plugin `torchvision`: every classifier of torchvision as "torchvision/NAME"."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.plugin import Component, hookimpl


@hookimpl
def zoo_components() -> Iterable[Component]:
    """Offer torchvision's classifiers under one namespace."""
    return [
        Component(
            name="model",
            kind="classifier",
            factory="zoo_torchvision.models:model",
            names="zoo_torchvision.models:names",
            pretrained="zoo_torchvision.pretrained:pretrained",
            namespace="torchvision",
            summary="any classifier of torchvision, by name",
        ),
    ]
