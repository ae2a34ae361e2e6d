"""`zoo bench`: measures each model in its own process, and prints a table, JSON or CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

import zoo
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.messages import say_error
from zoo.cli.shared.table import Column
from zoo.cli.shared.terminal import Terminal
from zoo.errors import InputError

WHAT = "train,infer,latency,loop"
COLUMNS = (
    Column("MODEL"),
    Column("PARAMS", right=True, drop=5),
    Column("MFLOP", right=True, drop=4),
    Column("TRAIN img/s", right=True),
    Column("±", right=True, drop=2),
    Column("OF PEAK", right=True),
    Column("LOOP", right=True),
    Column("INFER img/s", right=True),
    Column("LATENCY ms", right=True, drop=3),
    Column("MEMORY MB", right=True, drop=1),
)


@click.command()
@click.argument("models", nargs=-1)
@click.option("--what", default=WHAT, show_default=True, help="Measurements to take, separated by commas.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Images per step.")
@click.option(
    "--image-size", type=click.IntRange(min=1), help="Side of the images in pixels; default: the model's own."
)
@options.device
@click.option("--precision", help="Number type of the forward pass: auto, fp32, bf16 or fp16; default: the recipe's.")
@click.option(
    "--compile",
    type=click.Choice(["auto", "off", "graph", "default", "max"]),
    help="off; graph: CUDA graphs only; default or max: torch.compile; auto: as in a long training.",
)
@click.option("--recipe", metavar="NAME", help="Name of a recipe, or `best`; default: the model's own.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key of the recipe: recipe.ema=0.99. May be repeated.",
)
@click.option(
    "--dataset", metavar="SPEC", default="digits", show_default=True, help="Dataset that the images come from."
)
@options.data_dir
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds for each measurement, without its warm-up.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps per repeat, instead of --seconds.")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Repeats of each measurement."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on stdout.")
@options.quiet
def bench(models: tuple[str, ...], as_json: bool, as_csv: bool, quiet: bool, **option_values: Any) -> None:
    """Measure how fast MODELS train and infer on this machine, and the overhead of the training loop.

    Without MODELS it measures cnn-baseline, resnet18, vit-cifar, mixer-s8-32 and hybrid-alt-1.

    It reports throughput and latency (medians and quartiles over the repeats), peak memory, FLOPs per image,
    achieved FLOP/s relative to those of a large matrix product in the same precision, and the throughput of
    the whole training loop relative to that of the training step alone.

    Examples:

    \b
      zoo bench
      zoo bench resnet18 hybrid-alt-1 --batch-size 64 --what train,loop
      zoo bench timm/resnet50 --image-size 224 --precision fp32 --json
    """
    if as_json and as_csv:
        raise InputError("--json and --csv cannot be combined; give one of them")
    measured = zoo.bench(*models, reporter=Terminal(quiet=quiet), **option_values)
    for model, why in measured.errors.items():
        say_error(f"{model}: {why}")
    if as_json:
        table.emit_json(measured.as_dict())
    elif as_csv:
        table.emit(measured.to_csv().splitlines())
    else:
        _print_table(measured.as_dict())
    measured.check()


def _print_table(document: Mapping[str, Any]) -> None:
    whole = [row for row in document["rows"] if "error" not in row]
    if not whole:
        return
    dropped = table.emit_table(COLUMNS, [_cells(row) for row in whole], table.width())
    first, matrix = whole[0], whole[0]["matrix"]["flops_per_second"]
    device = document["environment"]["device"]
    table.say(
        f"batches of {first['batch_size']}, {device}, {first['precision']}; OF PEAK is a share "
        f"of a matrix product's {matrix['median'] / 1e9:,.0f} GFLOP/s; LOOP is the loop's speed over its bare step's; "
        f"medians, ± half the interquartile range{'; --json also shows: ' + ', '.join(dropped) if dropped else ''}"
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    train, infer = (row.get(name, {}).get("images_per_second") for name in ("train", "infer"))
    memory = row["memory"].get("train") or row["memory"].get("infer")
    return [
        row["model"],
        f"{row['parameters']:,}",
        f"{row['flops_forward'] / 1e6:,.1f}",
        f"{train['median']:,.0f}" if train else "",
        f"{(train['q3'] - train['q1']) / 2 / train['median']:.1%}" if train else "",
        f"{row['train']['share_of_matrix_rate']:.0%}" if train else "",
        f"{row['loop']['share']['median']:.2f}" if "loop" in row else "",
        f"{infer['median']:,.0f}" if infer else "",
        f"{row['latency']['milliseconds']['median']:.1f}" if "latency" in row else "",
        f"{memory / 1e6:,.0f}" if memory else "",
    ]
