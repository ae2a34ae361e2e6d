"""`zoo train`: trains a model into a run folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from shlex import quote
from typing import Any

import click

import zoo
from zoo.base.headline import headline
from zoo.cli.shared import click_from_fields, launch
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.display import make_display
from zoo.cli.shared.run_argument import RunName, say_last
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import say
from zoo.cli.shared.terminal import Terminal
from zoo.errors import InputError


@click.command(cls=launch.Command)
@click.argument("model", required=False)
@click_from_fields.of_a_run()
@launch.options
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Run folder to write; default: a new folder below runs/.",
)
@click.option(
    "--from",
    "source",
    type=RunName(),
    metavar="RUN",
    help="Repeat RUN (a folder, a name below runs/, `last`, NAME@DATASET, hf://OWNER/NAME); with --dataset, fine-tune "
    "its weights.",
)
@click.option(
    "--resume",
    type=RunName("auto"),
    metavar="RUN",
    help="Resume RUN (a folder, a name below runs/, `last`); `auto`: the newest unfinished run with the same "
    "configuration.",
)
@options.checkpoint_seconds
@click.option(
    "--checkpoint-steps", type=click.IntRange(min=0), default=0, help="Also write a checkpoint every N steps (0: off)."
)
@click.option(
    "--log",
    multiple=True,
    metavar="NAME",
    help="Also log to NAME: tensorboard, trackio, wandb, or a plugin's logger. May be repeated.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print the settings that were chosen automatically, and why.")
@options.quiet
@click.pass_context
def train(
    context: click.Context,
    model: str | None,
    output: Path | None,
    source: str | None,
    resume: str | None,
    gpus: int | None,
    shard: bool,
    checkpoint_seconds: float,
    checkpoint_steps: int,
    log: tuple[str, ...],
    verbose: bool,
    quiet: bool,
    **option_values: Any,
) -> None:
    """Train MODEL with its recipe, into a run folder.

    Examples:

    \b
      zoo train hybrid-alt-1 --dataset digits
      zoo train resnet18 --dataset cifar10 --recipe best --seed 1
      zoo train ./my.toml#my-hybrid --dataset folder:photos --set recipe.lr=3e-4
      zoo train --resume last
      zoo train --resume runs/resnet18-cifar10-20261121-120000
      zoo train --from hf://me/hybrid-digits --dataset folder:photos
      zoo train timm/mixer_b16_224.goog_in21k --dataset cifar10 --pretrained
      zoo train torchvision/resnet50 --dataset folder:me --pretrained
      zoo train mixer-b16 --weights timm/mixer_b16_224.goog_in21k
      zoo train vit-b16 --dataset folder:photos --gpus 8
      torchrun --nproc-per-node 8 -m zoo train vit-b16 --dataset folder:photos
    """
    say_last((str(option_values["weights"]),))
    given = click_from_fields.given(context)
    resumes = resume not in (None, "auto")
    if source is not None and resume is not None:
        raise InputError("--from already says what to train; leave out MODEL and --resume")
    if resumes:
        click_from_fields.refuse_for_resume(given, output)
    before = zoo.Run.open(str(resume)) if resumes and os.path.isdir(str(resume)) else None
    device = option_values["device"] if before is None or "device" in given else before.record.device
    if gpus is not None and launch.wanted(gpus):
        sys.exit(launch.start(gpus, device, model))
    if before is not None and before.is_finished and not before.record.soup and "epochs" not in given:
        return _say_finished(before)
    terminal = Terminal(quiet=quiet, verbose=verbose)
    with StopRequests() as stop, launch.joined(gpus, device, shard, stop) as world:
        around: dict[str, Any] = {
            "checkpoint_seconds": checkpoint_seconds,
            "checkpoint_steps": checkpoint_steps,
            "log": log,
            "listeners": (make_display(quiet),),
            "progress": False,
            "interrupt": "raise",
            "reporter": terminal,
            "stop": stop,
            "world": world,
        }
        if resumes:
            run = zoo.resume(str(resume), **given, **around)
        else:
            run = zoo.train(model, from_run=source, output=output, resume=resume == "auto", **given, **around)
        if stop.stopping:
            _say_stopped(run)
            sys.exit(128 + stop.stopping)
        report(run)  # inside: only the first of several processes is heard
    return None


def _say_stopped(run: zoo.Run) -> None:
    """Say what is saved, and how to go on."""
    kept = "the weights of the last epoch" if run.record.settings.select == "last" else "the best weights so far"
    saved = f"{kept} are saved in it" if run.has_weights else "no epoch was finished"
    again = f"zoo train --resume {quote(str(run.folder))}"
    print(f"stopped: {run.folder}; {saved}; to resume: {again}", file=sys.stderr)


def _say_finished(run: zoo.Run) -> None:
    """Say that nothing is left to train, so that `until zoo train --resume RUN` ends."""
    epochs = run.record.settings.epochs
    say(f"{run.folder}: this run is finished; extend it with --epochs N, N above {epochs}")
    print(run.folder)


def report(run: zoo.Run) -> None:
    """Print the result, the run folder, and what to do next."""
    result = run.result or {}
    test, trained = result["test"], result["train"]
    folder = quote(str(run.folder))  # as it can be pasted into a shell
    took = f"{trained['seconds']:.1f} s of training, {trained['images_per_second']:,.0f} img/s"
    if run.record.without_labels:
        say(f"trained without labels: no accuracy is known of it; {took}")
        say(f"next: zoo train {run.record.model} --weights {folder}\n  or: zoo probe {folder}")
    else:
        say(f"test {headline(test).counted(test)} after {took}")
        say(f"next: zoo eval {folder}\n  or: zoo predict {folder} IMAGE")
    print(run.folder)
