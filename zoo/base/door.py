"""How a package of ours is also the public call of its name, and how one public call finds another.

`zoo.train` is the package that trains and, called, what trains: `zoo.train("resnet18")`. The call itself stands in the
package's `api.py`, which is imported when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature  # which brings ast and tokenize: only who asks for a signature needs it


def call(home: str) -> Any:
    """What a public name stands for.

    Args:
        home: "module:name", as in "zoo.train.api:train".
    """
    module, _, name = home.partition(":")
    return getattr(import_module(module), name)


class CallableRoom(ModuleType):
    """A package that can be called; its signature and its documentation are those of the call."""

    _home: str

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function that is called."""
        function: Callable[..., Any] = call(self._home)
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function of this package's name."""
        return self.__wrapped__(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """As functions are pickled: by name, so that other processes can be given the call."""
        return import_module, (self.__name__,)

    @property
    def __signature__(self) -> Signature:
        """As `inspect.signature` and notebooks show it."""
        from inspect import signature

        return signature(self.__wrapped__)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        """As `help` and notebooks show it."""
        return self.__wrapped__.__doc__


def make_callable(package: str, home: str = "") -> None:
    """Let a package be called: to be said in its `__init__.py`, with `__name__`.

    Args:
        home: "module:name" of the call; default: what has the package's name in its own `api.py`.
    """
    room = sys.modules[package]
    room.__class__ = CallableRoom
    setattr(room, "_home", home or f"{package}.api:{package.rpartition('.')[2]}")  # noqa: B010 - a module's own
