"""All that a plugin may import, besides `zoo.errors`, `zoo.testing` and libraries.

The contract (what a plugin offers, as data) and the hooks are here; layers of torch are in
`zoo.plugin.layers`, which alone imports torch.
"""

from zoo.plugin.contract import Component, ImageSplits, Kind, Pretrained, Transform
from zoo.plugin.hooks import API_VERSION, hookimpl, offers

__all__ = ["API_VERSION", "Component", "ImageSplits", "Kind", "Pretrained", "Transform", "hookimpl", "offers"]
