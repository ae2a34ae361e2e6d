"""Plugin `perceiver`: the Perceiver as a classifier and as an image-to-image part."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.plugin import Component, hookimpl


@hookimpl
def zoo_components() -> Iterable[Component]:
    """Offer the Perceiver as a classifier and as a part."""
    return [
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
    ]
