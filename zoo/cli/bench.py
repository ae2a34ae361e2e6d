"""`zoo bench`: measures each model in its own process, and prints a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from zoo.base import children
from zoo.base.text import plural
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.messages import say_error
from zoo.cli.shared.table import Column
from zoo.errors import DeviceError, InputError

MODELS = ("cnn-baseline", "resnet18", "vit-cifar", "mixer-s8-32", "hybrid-alt-1")
WHAT = ("train", "infer", "latency", "loop")
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


def _parts(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    unknown = [part for part in parts if part not in WHAT]
    if unknown or not parts:
        raise InputError(f"--what {value!r}: no measurement named {(unknown or [''])[0]!r}; allowed: {', '.join(WHAT)}")
    return parts


@click.command()
@click.argument("models", nargs=-1)
@click.option(
    "--what",
    default=",".join(WHAT),
    show_default=True,
    callback=_parts,
    help="Measurements to take, separated by commas.",
)
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
    from zoo.catalogue.registry import find_model

    chosen = models or MODELS
    for model in chosen:  # before minutes are spent on the first one
        find_model(model)
    rows = []
    for model in chosen:
        if not quiet:
            table.say(f"{model}: {', '.join(option_values['what'])}")
        rows.append(measured({"model": model, **option_values}))
        if "error" in rows[-1]:
            say_error(f"{model}: {rows[-1]['error']}")
    if as_json:
        table.emit_json(document(rows, option_values))
    elif as_csv:
        table.emit(as_lines(rows))
    else:
        _print_table(rows)
    failed = [row["model"] for row in rows if "error" in row]
    if failed:
        raise DeviceError(f"{len(failed)} of {plural(len(rows), 'model')} could not be measured: {', '.join(failed)}")


def measured(job: Mapping[str, Any]) -> dict[str, Any]:
    """The row of one model, measured in its own process; on failure its `error` says why."""
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        job_file, row_file = Path(folder) / "job.json", Path(folder) / "row.json"
        job_file.write_text(json.dumps(job))
        command = [*children.python("zoo.studies.bench"), str(job_file), str(row_file)]
        return outcome(str(job["model"]), command, row_file)


def outcome(model: str, command: Sequence[str], row_file: Path) -> dict[str, Any]:
    """Run a process that writes a row; if it writes none, the row says how the process ended."""
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, env=children.environment()
    )
    if done.returncode == 0 and row_file.is_file():
        row: dict[str, Any] = json.loads(row_file.read_text())
        return row
    if done.returncode == -signal.SIGKILL:
        why = "its process was killed by the system, most likely out of memory; lower --batch-size or --image-size"
    elif done.returncode < 0:
        why = f"its process was killed by signal {-done.returncode}"
    else:
        last = (done.stderr.strip().splitlines() or ["it printed no message"])[-1]
        why = f"its process failed with code {done.returncode}: {last}"
    return {"model": model, "error": why}


def document(rows: Sequence[dict[str, Any]], option_values: Mapping[str, Any]) -> dict[str, Any]:
    """All measurements, with the settings and the environment, as one JSON document."""
    environment = next((row["environment"] for row in rows if "environment" in row), None)
    without = [{key: value for key, value in row.items() if key != "environment"} for row in rows]
    return {"environment": environment, "settings": dict(option_values), "rows": without}


def as_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The rows as CSV: nested names joined by dots, `error` last; lists are left out."""
    flat = [dict(_flat(row)) for row in rows]
    names = {name: None for row in flat for name in row if name != "error"}
    file = io.StringIO()
    writer = csv.DictWriter(file, [*names, "error"], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue().splitlines()


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            pairs += _flat(inner, f"{prefix}{key}.")
        elif not isinstance(inner, list):
            pairs.append((f"{prefix}{key}", inner))
    return pairs


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    whole = [row for row in rows if "error" not in row]
    if not whole:
        return
    dropped = table.emit_table(COLUMNS, [_cells(row) for row in whole], table.width())
    first, matrix = whole[0], whole[0]["matrix"]["flops_per_second"]
    table.say(
        f"batches of {first['batch_size']}, {first['environment']['device']}, {first['precision']}; OF PEAK is a share "
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
