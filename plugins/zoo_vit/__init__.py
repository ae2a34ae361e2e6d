"""Plugin `vit`: the vision transformer as a part and as classifiers."""

from __future__ import annotations

from zoo.plugin import Component, named, offers

zoo_components = offers(
    Component(
        name="image",
        kind="part",
        factory="zoo_vit.parts:vit_image",
        summary="transformer over patches, read back as an image",
    ),
    Component(
        name="classifier",
        kind="classifier",
        factory="zoo_vit.classifiers:vit_classifier",
        summary="ViT with class token and learned positions (bias-free qkv)",
    ),
    Component(
        name="timm",
        kind="classifier",
        factory="zoo_vit.timm_vit:timm_vit",
        summary="timm's VisionTransformer, for images or (as a head) feature maps",
    ),
)

__getattr__, __dir__ = named(__name__, "vit", zoo_components)
