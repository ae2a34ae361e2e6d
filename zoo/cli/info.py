"""`zoo info`: shows one model. Only `--build` imports torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

import zoo
from zoo.cli.shared import table
from zoo.cli.shared.info_page import page
from zoo.cli.shared.terminal import Terminal
from zoo.errors import InputError


@click.command("info", short_help="Show one model: its tree, recipe and results.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.option("--tree", is_flag=True, help="Print only the tree of components.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the tree as a picture, .png or .svg, and print the path of the file.",
)
@click.option(
    "--build", is_flag=True, help="Build the model without allocating its weights, and count its parameters and FLOPs."
)
@click.option(
    "--num-classes", type=click.IntRange(min=1), help="With --build: number of classes; default: its dataset's."
)
@click.option(
    "--image-size",
    type=click.IntRange(min=1),
    help="With --build: side of the images in pixels; default: its dataset's.",
)
def info(
    name: str,
    as_json: bool,
    tree: bool,
    picture: Path | None,
    build: bool,
    num_classes: int | None,
    image_size: int | None,
) -> None:
    """Show the model NAME: a name from `zoo list`, timm/NAME, torchvision/NAME or FILE.toml#NAME.

    Examples:

    \b
      zoo info hybrid-alt-1
      zoo info hybrid-alt-1 --tree
      zoo info ./my.toml#my-hybrid --build --num-classes 100
      zoo info timm/resnet50 --build --image-size 224 --json
    """
    found = zoo.info(name, build=build, num_classes=num_classes, image_size=image_size, reporter=Terminal())
    if picture and as_json:
        raise InputError("--picture prints the path of its file and --json the tree; leave out one of them")
    if picture:
        print(found.picture(picture).path)
    elif as_json:
        table.emit_json(found.as_dict())
    elif tree:
        table.emit(_tree(found.lines(ascii_only=_is_ascii())))
    else:
        table.emit(page(found, _tree(found.lines(ascii_only=_is_ascii()), margin=2)))
    found.check()


def _is_ascii() -> bool:
    """Whether stdout takes no lines and corners."""
    return "utf" not in (sys.stdout.encoding or "utf-8").lower()


def _tree(drawn: Sequence[tuple[str, str]], margin: int = 0) -> list[str]:
    """The drawn tree, with the distribution of each component on the right if there is room."""
    column = max(len(line) for line, _ in drawn)
    limit = table.width()
    if limit is None or margin + column + 2 + max(len(by) for _, by in drawn) <= limit:
        return [f"{table.clean(line).ljust(column)}  {table.dim(table.clean(by))}" for line, by in drawn]
    return [text for line, by in drawn for text in _fitted(table.clean(line), table.clean(by), limit - margin)]


def _fitted(line: str, by: str, limit: int) -> list[str]:
    """One line of the tree with its distribution in brackets, wrapped to the width."""
    if len(line) + len(by) + 4 <= limit:
        return [f"{line}  {table.dim(f'[{by}]')}"]
    import textwrap

    margin = " " * (len(line) - len(line.lstrip("│├└─|`- ")) + 2)
    return textwrap.wrap(f"{line}  [{by}]", limit, subsequent_indent=margin, break_on_hyphens=False)
