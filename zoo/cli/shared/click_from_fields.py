"""Options of a run, made from the fields of `Request`: `zoo train` has all, `zoo sweep` and `zoo reproduce` some."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from zoo.train.run_options import AUTO, Option, Request, flag, options
from zoo.train.run_options import refuse_for_resume as refuse_for_resume

F = TypeVar("F", bound=Callable[..., Any])


def of_a_run(wanted: Callable[[Option], bool] = lambda option: True, **changed: dict[str, Any]) -> Callable[[F], F]:
    """Add the options of a run to a command: all of them, or those that are `wanted`.

    Args:
        changed: other arguments for `click.option`, such as help or default, by the name of the field.
    """
    chosen = {name: option for name, option in options().items() if wanted(option)}

    def decorate(command: F) -> F:
        for name, option in reversed(chosen.items()):
            arguments = {**_arguments(name, option), **changed.get(name, {})}
            command = click.option(flag(name), name, **arguments)(command)
        return command

    return decorate


def given(context: click.Context) -> dict[str, Any]:
    """The run options that were given on the command line, by their names in `Request`."""
    line = click.core.ParameterSource.COMMANDLINE
    return {name: context.params[name] for name in options() if context.get_parameter_source(name) is line}


def _arguments(name: str, option: Option) -> dict[str, Any]:
    """The arguments of `click.option` for a field: its type, default and help."""
    common: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    kind, default = _kind(get_type_hints(Request, include_extras=True)[name]), _default(name)
    if kind is bool:
        return {**common, "is_flag": True}
    if get_origin(kind) is tuple:
        return {**common, "multiple": True}
    if name == "batch_size":
        kind = NumberOrAuto()
    elif get_origin(kind) is Literal:
        kind = click.Choice(get_args(kind))
    elif option.folder:
        kind = click.Path(file_okay=False)
    return {**common, "type": kind, "default": default, "show_default": default is not None}


class NumberOrAuto(click.ParamType):
    """A number, or the word `auto`."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or the word."""
        if value == AUTO or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no number of images; give 1 or more, or {AUTO}", param, ctx)


def _kind(hint: Any) -> Any:
    """The plain type: without its annotation, and without None."""
    if get_origin(hint) is Annotated:
        return _kind(get_args(hint)[0])
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return kinds[0] if NoneType in get_args(hint) else hint


def _default(name: str) -> Any:
    fields = Request.__struct_fields__[-len(Request.__struct_defaults__) :]
    return dict(zip(fields, Request.__struct_defaults__, strict=True))[name]
