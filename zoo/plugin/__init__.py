"""Everything that a plugin may import from zoo, besides `zoo.errors` and `zoo.testing`.

This package contains the contract (what a plugin offers, as data) and the hooks. Only its subpackage
`zoo.plugin.layers`, with layers for models, imports torch.
"""

from zoo.base.install import install_line
from zoo.plugin.contract import Component, ImageSplits, Kind, Pretrained, Transform
from zoo.plugin.exporter import Exporter, ToExport
from zoo.plugin.hooks import API_VERSION, hookimpl, offers
from zoo.plugin.names import named
from zoo.plugin.node import Node

__all__ = [
    "API_VERSION",
    "Component",
    "Exporter",
    "ImageSplits",
    "Kind",
    "Node",
    "Pretrained",
    "ToExport",
    "Transform",
    "hookimpl",
    "install_line",
    "named",
    "offers",
]
