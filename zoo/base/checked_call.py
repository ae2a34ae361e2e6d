"""Refuses arguments of a public call that are plainly of another type than it says, in one line."""

from __future__ import annotations

import collections.abc
import functools
import numbers
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from zoo.base.text import one_line
from zoo.errors import InputError, UnknownNameError

P = ParamSpec("P")
R = TypeVar("R")

MOST = 60
"""Characters of a wrong value that a message shows."""

RUN = "a run's folder, its name below runs/, 'last', 'hf://OWNER/NAME', a Run"
"""What the annotation `RunLike` says."""

NUMBERS: Mapping[Any, type] = types.MappingProxyType({int: numbers.Integral, float: numbers.Real})


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A public call that checks its arguments before it does anything.

    What is checked follows from its annotations: texts, numbers, paths, functions, sequences but texts.
    An annotation that cannot be read without importing more accepts everything.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_wrong(function, args, kwargs)
        return function(*args, **kwargs)

    return call


def refuse_wrong(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that a function does not have, or that are of another type than it says.

    Raises:
        UnknownNameError: there is no such argument; suggests the nearest. InputError: another type, or one is missing.
    """
    import inspect

    name, signature = f"zoo.{function.__name__}", inspect.signature(function)
    parameters = signature.parameters
    if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
        for given in kwargs:
            if given not in parameters:
                raise UnknownNameError(f"argument of {name}", given, parameters)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"{name}: {error}") from None
    for key, value in bound.arguments.items():
        if key == "device":  # a text, or a device of torch, which is not imported for this
            continue
        parameter = parameters[key]
        for one in value if parameter.kind is parameter.VAR_POSITIONAL else (value,):
            if not _fits(one, str(parameter.annotation), function.__globals__):
                shown, allowed = one_line(repr(one), MOST), str(parameter.annotation).replace("RunLike", RUN)
                raise InputError(f"{name}: {key} is {shown} ({type(one).__name__}); allowed: {allowed}")


def _fits(value: Any, annotation: str, names: Mapping[str, Any]) -> bool:
    kinds = [_read(part, names) for part in _parts(annotation)]
    return any(kind is Any or _is(value, kind) for kind in kinds)


def _parts(annotation: str) -> Iterator[str]:
    """The members of a union, as text."""
    depth, begin = 0, 0
    for i, letter in enumerate(annotation):
        depth += (letter in "[(") - (letter in "])")
        if letter == "|" and depth == 0:
            yield annotation[begin:i].strip()
            begin = i + 1
    yield annotation[begin:].strip()


def _read(part: str, names: Mapping[str, Any]) -> Any:
    """The type that a text stands for where it was written; `Any` where that is not imported."""
    try:
        return eval(part, dict(names))  # our own source
    except NameError:
        return Any


def _is(value: Any, kind: Any) -> bool:
    if kind is None or kind is type(None):
        return value is None
    origin = get_origin(kind)
    if origin is Literal:  # the call itself says which words there are
        return type(value) in {type(word) for word in get_args(kind)}
    if origin in (Union, types.UnionType):
        return any(_is(value, member) for member in get_args(kind))
    if kind is typing.Any or isinstance(kind, str | TypeVar | typing.ForwardRef):
        return True
    plain = origin or kind
    if plain in NUMBERS:
        return isinstance(value, NUMBERS[plain]) and not isinstance(value, bool)
    if plain in (collections.abc.Sequence, collections.abc.Iterable):
        return isinstance(value, collections.abc.Iterable) and not isinstance(value, str | bytes)
    if plain is collections.abc.Callable:
        return callable(value)
    if getattr(plain, "__name__", "") == "Path":
        return isinstance(value, os.PathLike)
    if plain is str and isinstance(value, os.PathLike):
        return True  # the call itself says where a path will not do
    return not isinstance(plain, type) or isinstance(value, plain)
