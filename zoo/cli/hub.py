"""The commands `zoo package`, `publish`, `pull`, `verify` and `search`."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

import click

import zoo
from zoo.base.text import plural
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import Column
from zoo.cli.shared.terminal import Terminal

COLUMNS = (
    Column("REPOSITORY"),
    Column("DOWNLOADS", right=True),
    Column("TOP-1", right=True),
    Column("DATASET"),
    Column("TAGS", flexible=True, drop=1),
)
FOLDER = click.Path(path_type=Path)


def _packaging(command: Any) -> Any:
    """The options that `package` and `publish` share."""
    shared = (
        click.option(
            "--licence",
            metavar="NAME",
            help="Licence of the weights, as the Hub names it; default: that of the run's package, if it has one, else "
            "apache-2.0.",
        ),
        options.data_dir,
        click.option("--device", help="Device on which the test split is measured; default: the device of the run."),
        click.option(
            "--no-predictions",
            is_flag=True,
            help="Do not measure the test split: no confusion matrix, no table of classes, no data needed.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16", "fp16"]),
            help="Number type in which the weights are stored; default: that of the run. In 16 bits the file has half "
            "the size; what it loses is measured, and at most 5 of 10,000 test images may be lost.",
        ),
        click.option(
            "--sign",
            metavar="KEYFILE",
            help="Sign the package with this private key (elliptic curve, PEM), or with a login: `sigstore`.",
        ),
        click.option(
            "--onnx",
            is_flag=True,
            help="Add onnx/model.onnx and preprocessor_config.json, for ONNX Runtime and transformers.js.",
        ),
    )
    for option in reversed(shared):
        command = option(command)
    return command


@click.command("package")
@click.argument("run", type=RunName())
@click.option("--output", type=FOLDER, metavar="DIR", help="Folder of the package; default: RUN/package.")
@_packaging
def package(run: str, output: Path | None, no_predictions: bool, **options: Any) -> None:
    """Make a package of RUN: weights, config, card and pictures, with the hash of each file.

    Examples:

    \b
      zoo package runs/hybrid-alt-1-digits-20261121-120000
      zoo package runs/mine --output mine --no-predictions
      zoo package runs/mine --onnx
      zoo package runs/mine --precision fp16
    """
    with StopRequests():  # so that SIGTERM leaves no temporary folder behind
        folder = zoo.package(run, output, predictions=not no_predictions, reporter=Terminal(), **options)
    word = quote(str(folder))
    table.say(f"next: zoo verify {word}\n  or: zoo publish {word} OWNER/NAME")
    print(folder)


@click.command("publish")
@click.argument("run", type=RunName())
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private if it is created.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to, instead of main.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option(
    "--replace-edits",
    is_flag=True,
    help="Replace the card or a picture in the repository even if somebody edited it there.",
)
@click.option(
    "--space",
    is_flag=False,
    flag_value="",
    metavar="[OWNER/NAME]",
    help="Also make a static Space: a page that classifies images in the browser. Default: the repository's name.",
)
@click.option(
    "--runtime",
    type=FOLDER,
    metavar="FOLDER",
    help="For --space: folder with the files of npm's package onnxruntime-web; default: npm fetches it.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent, but send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@_packaging
def publish(
    run: str, repo: str, dry_run: bool, as_json: bool, no_predictions: bool, space: str | None, **options: Any
) -> None:
    """Publish RUN (a run folder or a package) to the Hub as OWNER/NAME, in one commit with a tag.

    Examples:

    \b
      zoo publish runs/mine me/hybrid-digits --dry-run
      zoo publish runs/hybrid-alt-1-digits-20261121-120000 me/hybrid-digits
      zoo publish runs/mine/package me/hybrid-digits --private --json
      zoo publish runs/mine me/hybrid-digits --sign mine.pem
      zoo publish runs/mine me/hybrid-digits --space
    """
    asked: str | bool = False if space is None else space or True
    options |= {"predictions": not no_predictions, "reporter": Terminal(), "space": asked}
    (_show if dry_run else _send)(run, repo, as_json, options)


def _show(run: str, repo: str, as_json: bool, options: dict[str, Any]) -> None:
    with StopRequests():
        planned = zoo.publish(run, repo, dry_run=True, **options)
        if as_json:
            return table.emit_json(planned.as_dict())
        rows = [[file["name"], f"{file['bytes']:,}"] for file in planned.files]
        table.emit_table((Column("FILE"), Column("BYTES", right=True)), rows, table.width())
        table.say(
            f"zoo publish would make one commit in {planned.reference}: {planned.title!r}, {planned.size:,} bytes, "
            f"tag {planned.tag}; nothing was sent"
        )
        if planned.space:
            size = sum(planned.space_files.column("bytes"))
            count = plural(len(planned.space_files), "file")
            table.say(f"and one in the Space {planned.space}: {count}, {size:,} bytes")
        table.emit(["", *map(table.clean, planned.card.splitlines())])


def _send(run: str, repo: str, as_json: bool, options: dict[str, Any]) -> None:
    with StopRequests():
        published = zoo.publish(run, repo, dry_run=False, **options)
    if as_json:
        table.emit_json(published.as_dict())
    elif published.tag:
        table.say(
            f"published: {published.tagged} (commit {published.commit[:12]})\nnext: zoo verify {published.tagged}"
        )
        if published.space:
            table.say(f"the Space: {published.space}")
        print(published.reference)
    else:
        table.say("the pull request is open; the owner of the repository decides on it")
        print(published.url)


@click.command("pull")
@click.argument("ref", metavar="OWNER/NAME[@REVISION]")
@click.option(
    "--output", type=FOLDER, metavar="DIR", help="Folder to copy the package to; default: only the Hub's cache."
)
def pull(ref: str, output: Path | None) -> None:
    """Fetch a package from the Hub, check its hashes and its model, and print its folder.

    Examples:

    \b
      zoo pull me/hybrid-digits
      zoo pull me/hybrid-digits@v1 --output here
    """
    with StopRequests():
        pulled = zoo.pull(ref, output, reporter=Terminal())
    table.say(f"pulled: {pulled.reference}\nnext: zoo predict hf://{ref.removeprefix('hf://')} IMAGE")
    print(pulled)


@click.command("verify")
@click.argument("source", type=RunName(), metavar="RUN")
@click.option(
    "--dataset",
    metavar="SPEC",
    help="Your copy of the images, as a SPEC; needed if the package was trained on its author's own files.",
)
@options.data_dir
@click.option("--device", help="Device to measure on; default: the recorded kind of device, if this machine has one.")
@click.option("--key", type=FOLDER, metavar="PUBLICKEY", help="Check that the package is signed by this key.")
@click.option("--identity", metavar="NAME", help="Check that NAME signed the package with Sigstore.")
@click.option("--identity-provider", metavar="URL", help="Who knows NAME, for example https://accounts.google.com.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def verify(source: str, as_json: bool, **options: Any) -> None:
    """Hash a package, build its model, evaluate it, and compare the results with the recorded ones.

    RUN is hf://OWNER/NAME[@REVISION], NAME@DATASET for weights of the catalogue, the folder of a package, or a run that
    has its package in it: its folder, its name below runs/, or `last`.

    Examples:

    \b
      zoo verify hf://me/hybrid-digits
      zoo verify cnn-baseline@cifar10
      zoo verify runs/mine/package --json
      zoo verify hf://me/hybrid-digits --key mine.pub
    """
    verification = zoo.verify(source, **options)
    if as_json:
        table.emit_json(verification.table.rows)
    else:
        rows = [[c.name, "ok" if c.holds else "DIFFERS", c.seen] for c in verification.checks]
        columns = (Column("CHECK"), Column(""), Column("SEEN", flexible=True))
        table.emit_table(columns, rows, table.width())
    verification.raise_for_difference()
    table.say("verified")


@click.command("search")
@click.argument("query", default="")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only packages with this tag; may be repeated.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Maximum number of packages to list."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def search(query: str, tags: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Search the Hub for packages of this library whose name contains QUERY.

    The accuracies are what the model cards claim; `zoo verify` measures them again.

    Examples:

    \b
      zoo search digits
      zoo search --tag hybrid --limit 10 --json
    """
    show_hits(query, tags, limit, as_json)


def show_hits(query: str, tags: tuple[str, ...], limit: int, as_json: bool, dataset: str = "") -> None:
    """Print packages of the Hub as a table or as JSON, also for `zoo list --hub`.

    Args:
        dataset: only packages with a result on it.
    """
    hits = zoo.search(query, tags=tags, limit=limit, dataset=dataset)
    if as_json:
        table.emit_json(hits.rows)
    elif hits:
        table.emit_table(COLUMNS, [_cells(row) for row in hits.short], table.width())
    if not hits:
        table.say("no package on the Hub matches")


def _cells(row: dict[str, Any]) -> list[str]:
    top1 = "-" if row["top1"] is None else f"{row['top1']:.2%}"
    return [f"hf://{row['repo']}", f"{row['downloads']:,}", top1, row["dataset"] or "-", ", ".join(row["tags"])]
