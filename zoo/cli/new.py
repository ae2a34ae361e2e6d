"""`zoo new plugin`: creates the package folder of a plugin."""

from __future__ import annotations

from pathlib import Path

import click

import zoo
from zoo.cli.shared import table

FAMILIES = ("cnn", "vit", "perceiver", "mixer", "hybrid", "dataset", "combinator")


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
    "--family", type=click.Choice(FAMILIES), show_default="cnn", help="Kind of component that the plugin starts with."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder to write; default: zoo-NAME.",
)
@click.option("--from", "source", metavar="FILE.py[:NAME]", help="Make the plugin of your own code in this file.")
def plugin(name: str, family: str | None, output: Path | None, source: str | None) -> None:
    """Write a complete package folder for the plugin NAME, with tests that pass.

    Examples:

    \b
      zoo new plugin waves
      zoo new plugin my-data --family dataset
      zoo new plugin waves --from train.py:Waves
    """
    folder = zoo.new_plugin(name, family=family, output=output, source=source)
    table.emit([str(folder)])
    table.say(f"next: pip install -e '{folder}[test]' && pytest {folder}")
