"""`zoo help`: the same as `--help`, in the place where people look for it first."""

from __future__ import annotations

import click

from zoo.errors import InputError


def _commands(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The commands that complete a word."""
    del param
    root = ctx.find_root()
    names = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
    return [name for name in names if name.startswith(incomplete)]


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND]...", shell_complete=_commands)
@click.pass_context
def show_help(context: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of zoo, or of COMMAND.

    Examples:

    \b
      zoo help
      zoo help train
      zoo help datasets check
    """
    shown = context.find_root()
    for word in words:
        if not isinstance(shown.command, click.Group):
            raise InputError(f"`{shown.command_path}` has no command {word!r}; see `{shown.command_path} --help`")
        _, below, _ = shown.command.resolve_command(shown, [word])
        assert below is not None  # an unknown one is refused by `resolve_command`
        shown = click.Context(below, info_name=word, parent=shown)
    click.echo(shown.get_help())
