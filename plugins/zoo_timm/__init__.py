"""Plugin `timm`: every model of timm as "timm/NAME"."""

from __future__ import annotations

from zoo.plugin import Component, named, offers

zoo_components = offers(
    Component(
        name="model",
        kind="classifier",
        factory="zoo_timm.models:model",
        names="zoo_timm.models:names",
        pretrained="zoo_timm.pretrained:pretrained",
        namespace="timm",
        summary="any model of timm, by name",
    )
)

__getattr__, __dir__ = named(__name__, "timm", zoo_components)
