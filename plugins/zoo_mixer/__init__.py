"""Plugin `mixer`: the MLP-Mixer (timm's) as a classifier and as an image-to-image part."""

from __future__ import annotations

from zoo.plugin import Component, named, offers

zoo_components = offers(
    Component(
        name="classifier",
        kind="classifier",
        factory="zoo_mixer.models:classifier",
        summary="timm's MlpMixer at any size",
    ),
    Component(
        name="image", kind="part", factory="zoo_mixer.models:image", summary="Mixer over patches, read back as an image"
    ),
)

__getattr__, __dir__ = named(__name__, "mixer", zoo_components)
