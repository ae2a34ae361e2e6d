"""hybrid-zoo: a plugin-based model zoo for image classification.

Names that need torch are imported when they are first used, so that `import zoo` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.base.version import __version__
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.catalogue.registry import load_registry
    from zoo.hub.download import load
    from zoo.models.compose import create

__all__ = ["ZooError", "__version__", "create", "load", "load_registry"]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    homes = {"create": "zoo.models.compose", "load": "zoo.hub.download", "load_registry": "zoo.catalogue.registry"}
    if name not in homes:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
