"""Plugin `perceiver`: the Perceiver as a classifier and as an image-to-image part."""

from __future__ import annotations

from zoo.plugin import Component, named, offers

zoo_components = offers(
    Component(
        name="classifier",
        kind="classifier",
        factory="zoo_perceiver.models:classifier",
        summary="latents attend to pixels; their mean is classified",
    ),
    Component(
        name="image",
        kind="part",
        factory="zoo_perceiver.models:image",
        summary="latents attend to pixels and give an image of the same shape",
    ),
)

__getattr__, __dir__ = named(__name__, "perceiver", zoo_components)
