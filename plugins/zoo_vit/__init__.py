"""Plugin `vit`: the vision transformer as a part and as classifiers."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.plugin import Component, hookimpl


@hookimpl
def zoo_components() -> Iterable[Component]:
    """Offer the image-to-image part, the papers' classifier, and timm's encoder."""
    return [
        Component(
            name="image",
            kind="part",
            factory="zoo_vit.image:vit_image",
            summary="transformer over patches, read back as an image",
        ),
        Component(
            name="classifier",
            kind="classifier",
            factory="zoo_vit.classifier:vit_classifier",
            summary="ViT with class token and learned positions (bias-free qkv)",
        ),
        Component(
            name="timm",
            kind="classifier",
            factory="zoo_vit.timm_vit:timm_vit",
            summary="timm's VisionTransformer, for images or (as a head) feature maps",
        ),
    ]
