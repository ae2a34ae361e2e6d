"""`zoo report`: runs and published results as one HTML page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.base.text import plural
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.messages import say_problems
from zoo.cli.shared.run_argument import RunNames, found_runs

if TYPE_CHECKING:
    from zoo.catalogue.registry import Registry
    from zoo.runs.find import Run
    from zoo.studies.report.measure import Seen

TITLE = "hybrid-zoo: runs and results"


@click.command()
@click.argument("runs", nargs=-1, type=RunNames())
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE",
    help="Where the page is written.",
)
@click.option(
    "--images",
    type=click.IntRange(0, 48),
    default=12,
    show_default=True,
    metavar="N",
    help="Number of images shown for each run: those misclassified with the highest confidence.",
)
@click.option(
    "--no-data",
    is_flag=True,
    help="Use only what the run folders record: no confusion matrix, no per-class results, no images. This is quick.",
)
@click.option(
    "--catalogue",
    type=click.Choice(["related", "all", "none"]),
    default="related",
    show_default=True,
    help="Published results to show. related: those for the runs' models and datasets; all; none.",
)
@click.option("--title", default=TITLE, show_default=True, help="Title of the page.")
@click.option("--stamp", is_flag=True, help="Print the date; without it the same runs give the same page.")
@options.data_dir
@click.option("--device", help="Device on which test images are measured; default: the device of each run.")
@options.quiet
def report(
    runs: tuple[str, ...],
    output: Path,
    images: int,
    no_data: bool,
    catalogue: Any,
    title: str,
    stamp: bool,
    data_dir: str | None,
    device: str | None,
    quiet: bool,
) -> None:
    """Write one HTML page, readable offline, that shows RUNS beside published results.

    RUNS are run folders, folders that hold runs, names or patterns below runs/, `last`, or hf://OWNER/NAME;
    default: all below runs/. The confusion matrix is measured if the test images are on this machine
    (nothing is downloaded), and is kept in the cache.

    Examples:

    \b
      zoo report
      zoo report 'resnet18-*' --images 24 --output resnets.html
      zoo report runs/a runs/b --no-data
    """
    from zoo.base.files import write_text
    from zoo.catalogue.registry import load_registry
    from zoo.errors import InputError
    from zoo.studies.report import published
    from zoo.studies.report.page import Content, library, render

    library()  # first, so that a missing one is said before anything is measured
    found = found_runs(runs)
    if not found:
        raise InputError("no runs below runs/; `zoo train MODEL --dataset NAME` makes one")
    registry = load_registry()
    content = Content(
        runs=found,
        catalogue=_with_flops(published.rows(registry, found, catalogue), registry, quiet),
        flops=_flops(found, registry),
        seen=_seen(found, registry, no_data, data_dir, device, quiet),
        images=images,
        title=title,
        stamp=_today() if stamp else "",
    )
    page, left_out = render(content)
    write_text(output, page)
    say_problems(left_out)
    if not quiet:
        size = len(page.encode()) / 1e6
        table.say(
            f"{plural(len(found), 'run')}, {plural(len(content.catalogue), 'result')} of the catalogue, {size:.2f} MB"
        )
    print(output)


def _seen(
    runs: Sequence[Run], registry: Registry, no_data: bool, data_dir: str | None, device: str | None, quiet: bool
) -> dict[str, Seen | str]:
    """What each model confuses, or why that is not known."""
    if no_data:
        return {run.name: "left out by --no-data" for run in runs}
    from zoo.studies.report.measure import look

    seen: dict[str, Seen | str] = {}
    for i, run in enumerate(runs):
        if not quiet and sys.stderr.isatty():
            print(f"\r\033[Kmeasuring {i + 1} of {len(runs)}: {run.name}", end="", file=sys.stderr, flush=True)
        found, reason = look(run.folder, run.record, registry, data_dir=data_dir, device=device)
        seen[run.name] = reason if found is None else found
    if not quiet and sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if not quiet:
        say_problems([f"{name}: not measured: {why}" for name, why in seen.items() if isinstance(why, str)])
    return seen


def _flops(runs: Sequence[Run], registry: Registry) -> dict[str, int | None]:
    import msgspec

    from zoo.runs.record import tree_of
    from zoo.studies.report.measure import flops

    sizes = {run.name: msgspec.structs.asdict(run.record.sizes) for run in runs}
    return {run.name: flops(tree_of(run.record, pretrained=False), sizes[run.name], registry) for run in runs}


def _with_flops(rows: list[dict[str, Any]], registry: Registry, quiet: bool) -> list[dict[str, Any]]:
    """The catalogue's rows with the FLOPs of their models at their dataset's size."""
    import msgspec

    from zoo.models.compose import sizes_for
    from zoo.studies.report.measure import flops

    if rows and not quiet and sys.stderr.isatty():
        table.say("counting FLOPs (kept in the cache)")
    for row in rows:
        model = registry.models[row["model"]]
        if row["dataset"] in registry.datasets:
            there = msgspec.structs.replace(model, dataset=row["dataset"])
            row["flops"] = flops(model.build, sizes_for(there, registry), registry)
    return rows


def _today() -> str:
    import datetime

    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
