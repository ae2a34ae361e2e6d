"""`zoo datasets`: lists the datasets of the catalogue, and checks one before training on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from zoo.base.text import plural
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import Dataset
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.messages import say_problems
from zoo.cli.shared.table import Column

if TYPE_CHECKING:
    from zoo.data.findings import Finding
    from zoo.data.split import ImageData

COLUMNS = (
    Column("NAME"),
    Column("TRAIN", right=True),
    Column("TEST", right=True),
    Column("CLASSES", right=True),
    Column("SIZE", right=True),
    Column("SOURCE", drop=2),
    Column("LICENCE", drop=1),
    Column("SUMMARY", flexible=True, drop=3),
)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.pass_context
def datasets(context: click.Context, as_json: bool) -> None:
    """List the datasets, or check one.

    A dataset is a name from this list, or folder:PATH, parquet:PATH, hf:OWNER/NAME[@REVISION],
    torchvision:NAME or idx:PATH.

    Examples:

    \b
      zoo datasets
      zoo datasets check folder:photos
    """
    if context.invoked_subcommand is None:
        _list(as_json)


@datasets.command()
@click.argument("spec")
@options.data_dir
@click.option("--image-size", type=click.IntRange(min=1), help="Resize images to this side, in pixels.")
@click.option("--skip-bad", is_flag=True, help="Count unreadable images instead of failing on them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.pass_context
def check(
    context: click.Context, spec: str, data_dir: str | None, image_size: int | None, skip_bad: bool, as_json: bool
) -> None:
    """Read every image of SPEC and report problems.

    The check finds unreadable and truncated images, empty classes, labels out of range, images that are
    in both train and test (or in both training and validation), unbalanced classes, images that differ
    in size or are nearly black, and files that are not read.
    The exit code is 1 if the dataset cannot be trained on.

    Examples:

    \b
      zoo datasets check folder:photos --image-size 64
      zoo datasets check cifar10 --json
    """
    from zoo.cli.shared.display import DecodeBar
    from zoo.data.checks import loaded_and_checked
    from zoo.data.load import load, only_this
    from zoo.errors import BadImagesError

    registry = load_registry()
    try:
        with DecodeBar() as bar, only_this():

            def at(side: int | None) -> ImageData:
                size = image_size or side
                return load(spec, registry, data_dir=data_dir, image_size=size, skip_bad=skip_bad, show=bar)

            data, findings = loaded_and_checked(at)
    except BadImagesError as error:
        if as_json:
            table.emit_json({"spec": spec, "unreadable": list(error.problems)})
        else:
            table.emit(map(table.clean, _some_of_each_kind(error.problems)))
        raise
    if as_json:
        table.emit_json(_report(data, findings))
    else:
        _print_report(data, findings)
    if any(finding.level == "error" for finding in findings):
        context.exit(1)


MOST_OF_A_KIND = 5


def _some_of_each_kind(problems: Sequence[str]) -> Iterator[str]:
    """At most five lines about images with the same problem, and how many more there are."""
    from zoo.data.files.decode import BEGINS

    kinds: dict[str, list[str]] = {}
    for problem in problems:
        alike = re.sub(r"0x[0-9a-f]+", "", problem.partition(f"; {BEGINS}")[0])
        kinds.setdefault(alike.rpartition(": ")[2], []).append(problem)
    for kind, lines in kinds.items():
        yield from lines[:MOST_OF_A_KIND]
        if len(lines) > MOST_OF_A_KIND:
            yield f"... {plural(len(lines) - MOST_OF_A_KIND, 'more image')}: {kind}; --json lists each"


def _row(name: str, dataset: Dataset) -> dict[str, Any]:
    return {
        "name": name,
        "summary": dataset.summary,
        "train": dataset.train,
        "test": dataset.test,
        "classes": dataset.num_classes or len(dataset.classes) or None,
        "size": list(dataset.size) if dataset.size else None,
        "source": dataset.source,
        "licence": dataset.licence,
        "homepage": dataset.homepage,
    }


def _list(as_json: bool) -> None:
    registry = load_registry()
    say_problems(registry.problems)
    rows = [_row(name, dataset) for name, dataset in sorted(registry.datasets.items())]
    if as_json:
        table.emit_json(rows)
        return
    dropped = table.emit_table(COLUMNS, [_cells(row) for row in rows], table.width())
    if dropped:
        table.say(f"hint: a wider terminal or --json also shows: {', '.join(dropped)}")
    table.say(f"{plural(len(rows), 'dataset')}; next: zoo train MODEL --dataset NAME")


def _cells(row: dict[str, Any]) -> list[str]:
    counts = [f"{row[key]:,}" if row[key] else "" for key in ("train", "test", "classes")]
    size = f"{row['size'][1]}x{row['size'][0]}" if row["size"] else ""
    return [row["name"], *counts, size, row["source"], row["licence"], row["summary"]]


def _report(data: ImageData, findings: list[Finding]) -> dict[str, Any]:
    from zoo.data.checks import class_counts

    return {
        "name": data.name,
        "spec": data.spec,
        "fingerprint": data.fingerprint,
        "size": list(data.dataset.size or ()),
        "classes": list(data.classes),
        "train": class_counts(data.train, len(data.classes)),
        "test": class_counts(data.test, len(data.classes)),
        "skipped": data.skipped,
        "ignored": data.ignored,
        "findings": [
            {"level": f.level, "kind": f.kind, "message": f.message, "count": f.count, "examples": f.examples}
            for f in findings
        ],
    }


def _print_report(data: ImageData, findings: list[Finding]) -> None:
    height, width = data.dataset.size or (0, 0)
    lines = [
        f"{data.name}: {len(data.train):,} train and {plural(len(data.test), 'test image')}, "
        f"{width}x{height}, {plural(len(data.classes), 'class')}",
        f"fingerprint {data.fingerprint}",
    ]
    for finding in findings:
        lines.append(f"{finding.level}: {finding.line()}")
    table.emit(map(table.clean, lines if findings else [*lines, "no problems found"]))
