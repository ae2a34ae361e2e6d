"""Plugin `torchvision`: every classifier of torchvision as "torchvision/NAME"."""

from __future__ import annotations

from zoo.plugin import Component, named, offers

zoo_components = offers(
    Component(
        name="model",
        kind="classifier",
        factory="zoo_torchvision.models:model",
        names="zoo_torchvision.models:names",
        pretrained="zoo_torchvision.pretrained:pretrained",
        namespace="torchvision",
        summary="any classifier of torchvision, by name",
    )
)

__getattr__, __dir__ = named(__name__, "torchvision", zoo_components)
