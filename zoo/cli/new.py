"""`zoo new plugin`."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.shared import table
from zoo.plugin.scaffold import families, new_plugin


@click.group()
def new() -> None:
    """Start something of your own.

    Examples:

    \b
      zoo new plugin waves
    """


@new.command()
@click.argument("name")
@click.option(
    "--family", type=click.Choice(list(families())), default="cnn", show_default=True, help="What it offers."
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where; default: zoo-NAME.",
)
def plugin(name: str, family: str, output: Path | None) -> None:
    """Write a complete package folder for the plugin NAME, which passes its own tests as it is.

    Examples:

    \b
      zoo new plugin waves
      zoo new plugin my-data --family dataset
    """
    folder = new_plugin(name, family, output)
    table.emit([str(folder)])
    table.say(f"next: pip install -e '{folder}[test]' && pytest {folder}")
