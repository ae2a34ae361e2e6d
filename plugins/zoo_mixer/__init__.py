"""Plugin `mixer`: the MLP-Mixer (timm's) as a classifier and as an image-to-image part."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.plugin import Component, hookimpl


@hookimpl
def zoo_components() -> Iterable[Component]:
    """Offer the Mixer as a classifier and as a part."""
    return [
        Component(
            name="classifier",
            kind="classifier",
            factory="zoo_mixer.models:classifier",
            summary="timm's MlpMixer at any size",
        ),
        Component(
            name="image",
            kind="part",
            factory="zoo_mixer.models:image",
            summary="Mixer over patches, read back as an image",
        ),
    ]
