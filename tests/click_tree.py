"""Every command and subcommand of `zoo`, found by walking click's own tree."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click

from zoo.cli import cli


def commands(command: click.Command = cli, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context for each, groups before what is in them."""
    context = click.Context(command, info_name=command.name if parent else "zoo", parent=parent)
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            below.name = name
            yield from commands(below, context)


def command_at(path: str) -> click.Command:
    """The command that is called so: "zoo train"."""
    return next(context.command for context in commands() if context.command_path == path)


def options(command: click.Command) -> list[click.Option]:
    """Those that help shows."""
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


def examples(command: click.Command) -> list[str]:
    """The lines below "Examples:" in a command's help."""
    _, found, rest = (command.help or "").partition("Examples:")
    block = rest.strip("\n\b ").split("\n\n")[0] if found else ""
    return [line.strip() for line in block.splitlines() if line.strip("\b ")]


def words_of(example: str) -> list[str]:
    """What `zoo` is given in an example: `torchrun ... -m zoo WORDS`, `eval "$(zoo WORDS)"`."""
    words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'), comments=True)
    if ">" in words:
        words = words[: words.index(">")]
    return words[words.index("zoo") + 1 :]


def parse(words: list[str], command: click.Command = cli, parent: click.Context | None = None) -> str:
    """The path of the command that takes these words.

    Raises:
        click.UsageError: an option or a subcommand that there is not, or a value that is not allowed.
    """
    context = click.Context(command, info_name=command.name if parent else "zoo", parent=parent)
    given, rest, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice | click.IntRange | click.FloatRange | type(click.INT)):
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, str):
                    parameter.type.convert(one, parameter, context)
        if parameter.required and not (isinstance(value, str | list | tuple) and value):
            raise click.MissingParameter(ctx=context, param=parameter)
    if isinstance(command, click.Group) and rest:
        name, below, rest = command.resolve_command(context, rest)
        assert below is not None
        below.name = name
        return parse(rest, below, context)
    return context.command_path
