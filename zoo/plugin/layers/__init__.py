"""The public torch layers for plugins: attention, dropout, changes of layout, and timm's conventions.

Our own plugins use them, and any plugin may: every name here is stable within an API version.
"""

from zoo.plugin.layers.attention import attention
from zoo.plugin.layers.backbone import Backbone, StagedClassifier
from zoo.plugin.layers.drop import Dropout, cheap_dropout, dropout, set_dropout, use_cheap_dropout
from zoo.plugin.layers.layout import (
    TokensToImage,
    TokensToPatches,
    divisor_at_most,
    image_reader,
    map_to_tokens,
    patch_grid,
    patchify,
    token_width,
    tokens_to_image,
    tokens_to_map,
    unpatchify,
)

__all__ = [
    "Backbone",
    "Dropout",
    "StagedClassifier",
    "TokensToImage",
    "TokensToPatches",
    "attention",
    "cheap_dropout",
    "divisor_at_most",
    "dropout",
    "image_reader",
    "map_to_tokens",
    "patch_grid",
    "patchify",
    "set_dropout",
    "token_width",
    "tokens_to_image",
    "tokens_to_map",
    "unpatchify",
    "use_cheap_dropout",
]
