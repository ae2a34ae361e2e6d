"""`zoo eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.base.plain_json import json_text
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import spare_words, table
from zoo.cli.shared.run_argument import RunName
from zoo.errors import InputError, RunError

if TYPE_CHECKING:
    from zoo.evaluate.evaluation import Asked

WHAT = ("classes", "confusion", "calibration", "latency", "robustness")
OF_A_FOLDER = ("classes", "confusion", "calibration")


def _parts(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    words = tuple(word.strip() for word in (value or "").split(",") if word.strip())
    wrong = [word for word in words if word not in (*WHAT, "all")]
    if wrong or (value is not None and not words):
        raise InputError(f"--what {value!r}: nothing named {(wrong or [''])[0]!r}; allowed: {', '.join(WHAT)}, all")
    return WHAT if "all" in words else words


def _severities(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    words = [word.strip() for word in value.split(",")]
    if any(word not in ("1", "2", "3", "4", "5") for word in words):
        raise InputError(f"--severities {value!r}: give some of 1,2,3,4,5 with commas between")
    return tuple(sorted({int(word) for word in words}))


@click.command(cls=spare_words.Command)
@click.argument("run", type=RunName())
@click.option(
    "--split",
    type=click.Choice(["test", "val", "train"]),
    default="test",
    show_default=True,
    help="Split of the run to measure; with --on: test or train.",
)
@click.option(
    "--what", callback=_parts, metavar="PARTS", help=f"Measure more than accuracy: {', '.join(WHAT)}; or all."
)
@click.option(
    "--compare", "other", type=RunName(), metavar="RUN2", help="Compare with RUN2 on the same images, by a paired test."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help=f"Write eval.json, predictions and pictures there; the default of --what is then {','.join(OF_A_FOLDER)}.",
)
@click.option(
    "--predictions",
    type=click.Choice(["csv", "parquet", "none"]),
    default="csv",
    show_default=True,
    help="Format of the predictions in FOLDER.",
)
@click.option(
    "--corruptions",
    default="common",
    show_default=True,
    metavar="NAMES",
    help="Corruptions for robustness: names or groups.",
)
@click.option(
    "--severities", default="1,2,3,4,5", show_default=True, callback=_severities, help="Severities for robustness."
)
@click.option(
    "--images",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Test images used for robustness, a stratified subset (0: all).",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that corrupt images for robustness. Default: by the number of cores.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Batch size for `--what latency`, which also measures batches of 1.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="How long each latency is measured.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed for corruptions and the bootstrap."
)
@click.option(
    "--dataset", metavar="SPEC", help="Where the run's own dataset is on this machine, if not at the recorded path."
)
@click.option(
    "--on",
    metavar="SPEC",
    help="Measure on other images: a SPEC as for `zoo train --dataset`, with the run's classes or some of them.",
)
@options.data_dir
@click.option("--device", default=None, help="Device to measure on. Default: the device of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@options.quiet
def evaluate(run: str, as_json: bool, quiet: bool, **asked: Any) -> None:
    """Measure the test accuracy of RUN again, and compare it with the recorded one.

    --what measures more than accuracy, --compare compares with a second run, --output writes files.

    RUN is a run folder, a package, the name of a run below runs/, `last` for the newest one there, or
    hf://OWNER/NAME[@REVISION].

    Examples:

    \b
      zoo eval runs/hybrid-alt-1-digits-20261121-120000
      zoo eval last
      zoo eval hf://me/hybrid-digits
      zoo eval RUN --what classes,calibration --split val
      zoo eval RUN --compare RUN2 --output evaluation
      zoo eval RUN --on folder:new-photos
      zoo eval RUN --what robustness --severities 1,3,5 --json
    """
    from zoo.cli.shared.evaluation_tables import emit_accuracy

    out = assessed(run, quiet=quiet, **asked)
    recorded, num_classes = out.pop("recorded"), out.pop("num_classes")
    if as_json:
        print(json_text(out))
    else:
        emit_accuracy(out, num_classes)
    settle(run, out, recorded)


def assessed(
    run: str, *, quiet: bool, split: str, what: tuple[str, ...], other: str | None, output: Path | None, **more: Any
) -> dict[str, Any]:
    """Measure a run: accuracy alone, or all that was asked for; with `recorded` and `num_classes` beside it."""
    from zoo.catalogue.registry import load_registry
    from zoo.evaluate.opened import open_run, recorded_metrics
    from zoo.hub.download import local_folder
    from zoo.hub.ref import is_ref
    from zoo.models.device import usable_device
    from zoo.runs.record import read_record

    if "robustness" in what:
        from zoo.evaluate.corruptions import choose, library

        more["corruptions"] = choose([word.strip() for word in more["corruptions"].split(",") if word.strip()])
        library()  # before anything that takes minutes
    registry = load_registry()
    folder, device = local_folder(run, registry=registry), more.pop("device")
    record = read_record(folder)
    if device is None and (is_ref(run) or other is not None):  # one device for both
        device = usable_device(record.device)
    places = {key: more.pop(key) for key in ("data_dir", "dataset", "on")} | {"device": device}
    if not what and other is None and output is None:
        opened = open_run(folder, split=split, registry=registry, **places)  # type: ignore[arg-type]  # click has checked it
        about = {"run": str(run), "split": split, "on": opened.on, "tta": opened.classifier.tta}
        recorded = recorded_metrics(folder, opened.split, opened.on)
        measured = {**opened.measure().as_dict(), "recorded": recorded}
        return {**about, **measured, "num_classes": record.sizes.num_classes}
    from zoo.evaluate.evaluation import judge

    second = None if other is None else local_folder(other, registry=registry)
    asked = _asked(what, split=split, other=second, output=output, **more)
    with_bar = Passes(quiet)
    try:
        names = {"name": str(run), "other_name": other or ""}
        out = judge(folder, asked, places, registry=registry, show=with_bar, **names)
        return {**out, "num_classes": record.sizes.num_classes}
    finally:
        with_bar.close()


def _asked(what: tuple[str, ...], *, output: Path | None, **more: Any) -> Asked:
    """What the options of the command ask for."""
    from zoo.evaluate.evaluation import Asked

    return Asked(
        split=more["split"],
        parts=frozenset(what or (OF_A_FOLDER if output is not None else ())),
        other=more["other"],
        output=output,
        table=more["predictions"],
        corruptions=more["corruptions"] if "robustness" in what else (),
        severities=more["severities"],
        images=more["images"] or None,
        workers=_workers(more["workers"]),
        seed=more["seed"],
        batch=more["batch_size"],
        seconds=more["seconds"],
    )


def _workers(given: int | None) -> int:
    from zoo.data.files.pool import MOST, default_workers

    return min(MOST, default_workers("cuda") + 1) if given is None else given


class Passes:
    """Progress through the corruptions: a bar on a terminal, else a line for each corruption, on stderr."""

    def __init__(self, quiet: bool) -> None:
        from zoo.cli.shared.display import DecodeBar

        self.quiet, self.last = quiet, ""
        self.bar = DecodeBar(quiet)

    def __call__(self, text: str, done: int, total: int) -> None:
        """Show what is being done."""
        name = text.partition(" ")[0]
        if self.bar.live:
            self.bar("robustness", done, total)
        elif not self.quiet and name not in (self.last, "done"):
            table.say(f"robustness: {name} ({done} of {total} passes done)")
        self.last = name

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()


def _without_result(run: Path) -> str:
    """Why there is nothing to compare with: a run that is being trained has no result yet."""
    from zoo.runs.folder import why_no_result
    from zoo.runs.record import RESULT, read_record

    finished = (run / RESULT).is_file()
    return "no result of these images" if finished else f"{why_no_result(run, read_record(run))}; no result"


def settle(run: str, out: dict[str, Any], recorded: dict[str, Any] | None) -> None:
    """Compare with what is recorded of the same split.

    Raises:
        RunError: another number was recorded, or the outputs are not finite.
    """
    from zoo.evaluate.evaluation import check_finite

    check_finite(run, out["loss"])
    for path in out.get("files", ()):
        table.say(f"wrote {path}")
    if recorded is None:
        if out["on"] is not None:
            table.say(f"measured on {out['on']}, of which the run recorded nothing to compare with")
        elif out["split"] == "train":
            table.say("no result of training images is recorded to compare with")
        else:
            table.say(f"{_without_result(Path(run))} is recorded to compare with")
    elif recorded["correct"] != out["correct"] or recorded["count"] != out["count"]:
        raise RunError(
            f"{run}: result.json records {recorded['correct']} of {recorded['count']} correct, "
            f"measured {out['correct']} of {out['count']}"
        )
    else:
        table.say("the same as recorded")
