"""`zoo new plugin`: creates the package folder of a plugin."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.shared import table
from zoo.plugin.scaffold import families, new_plugin


@click.group(invoke_without_command=True)
@click.pass_context
def new(context: click.Context) -> None:
    """Create something of your own.

    Examples:

    \b
      zoo new plugin waves
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@new.command()
@click.argument("name")
@click.option(
    "--family",
    type=click.Choice(list(families())),
    default="cnn",
    show_default=True,
    help="Kind of component that the plugin starts with.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder to write; default: zoo-NAME.",
)
def plugin(name: str, family: str, output: Path | None) -> None:
    """Write a complete package folder for the plugin NAME, with tests that pass.

    Examples:

    \b
      zoo new plugin waves
      zoo new plugin my-data --family dataset
    """
    folder = new_plugin(name, family, output)
    table.emit([str(folder)])
    table.say(f"next: pip install -e '{folder}[test]' && pytest {folder}")
