"""`zoo train`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.shared import launch, logs, options
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import say
from zoo.errors import InputError
from zoo.runs.new import check_free, new_folder, unfinished
from zoo.train.runner import written

if TYPE_CHECKING:
    from zoo.train.plan import Plan


@click.command(cls=launch.Command)
@click.argument("model", required=False)
@click.option(
    "--dataset", metavar="SPEC", help="A name of `zoo datasets`, hf:OWNER/NAME, parquet:PATH or folder:PATH."
)
@options.data_dir
@click.option("--recipe", metavar="NAME", help="A recipe's name, or `best`; default: the model's own.")
@click.option("--epochs", type=int, help="Passes over the training images.")
@click.option("--batch-size", type=int, help="Images per step.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order and augmentation.")
@options.device
@launch.options
@click.option("--precision", help="auto, fp32, bf16 or fp16.")
@click.option(
    "--compile",
    type=click.Choice(["auto", "off", "graph", "default", "max"]),
    help="graph: CUDA graphs alone; default, max: torch.compile; auto times a step and chooses.",
)
@click.option(
    "--on-nan", type=click.Choice(["stop", "skip"]), help="When a step's loss is not finite; default: stop."
)
@click.option("--image-size", type=int, help="Side in pixels that images are resized to.")
@click.option("--limit-train", type=int, metavar="N", help="Train on N images, a stratified subset.")
@click.option("--limit-test", type=int, metavar="N", help="Test on N images, a stratified subset.")
@click.option("--max-steps", type=int, metavar="N", help="End after N steps.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="The run folder itself."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a recipe's key: recipe.ema=0.99."
)
@click.option(
    "--protocol",
    type=click.Choice(["clean", "paper"]),
    default="clean",
    show_default=True,
    help="clean: validation selects, test is read once. paper: the best epoch on test, as the sources did.",
)
@click.option(
    "--from",
    "source",
    metavar="RUN",
    help="Repeat RUN (a folder or hf://OWNER/NAME); with --dataset: fine-tune its weights.",
)
@click.option("--pretrained", is_flag=True, help="Begin with MODEL's own pretrained weights: fine-tune them.")
@click.option(
    "--weights",
    metavar="WEIGHTS",
    help="Begin with these: hf://OWNER/NAME, a run folder, or a model that has some, as timm/NAME.TAG.",
)
@click.option(
    "--resume", metavar="RUN", help="Go on with RUN; `auto`: the newest unfinished run of this configuration."
)
@click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Write a checkpoint this often; 0: only at the end or when stopped.",
)
@click.option(
    "--checkpoint-steps", type=click.IntRange(min=0), default=0, help="Also write one every N steps."
)
@click.option("--skip-bad", is_flag=True, help="Leave out unreadable images (counted in the record).")
@click.option(
    "--data-mode",
    type=click.Choice(["auto", "resident", "stream"]),
    default="auto",
    show_default=True,
    help="Whether images lie on the device, decoded, or are streamed to it; auto: as they fit.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes that decode streamed images; 0: none; default: by the cores.",
)
@click.option(
    "--log",
    multiple=True,
    metavar="NAME",
    expose_value=False,
    callback=logs.choose,
    help="Also log to NAME: tensorboard, trackio, wandb, or a plugin's. May be repeated.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=logs.explain,
    help="Say what was chosen, and why.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def train(output: Path | None, quiet: bool, resume: str | None, source: str | None, **asked: Any) -> None:
    """Train MODEL by its recipe into a run folder.

    Examples:

    \b
      zoo train hybrid-alt-1 --dataset digits
      zoo train resnet18 --dataset cifar10 --recipe best --seed 1
      zoo train ./my.toml#my-hybrid --dataset folder:photos --set recipe.lr=3e-4
      zoo train --resume runs/resnet18-cifar10-20261121-120000
      zoo train --from hf://me/hybrid-digits --dataset folder:photos
      zoo train timm/mixer_b16_224.goog_in21k --dataset cifar10 --pretrained
      zoo train torchvision/resnet50 --dataset folder:me --pretrained
      zoo train mixer-b16 --weights timm/mixer_b16_224.goog_in21k
      zoo train vit-b16 --dataset folder:photos --gpus 8
      torchrun --nproc-per-node 8 -m zoo train vit-b16 --dataset folder:photos
    """
    gpus, shard = asked.pop("gpus"), asked.pop("shard")
    saving = (asked.pop("checkpoint_seconds"), asked.pop("checkpoint_steps"))
    if source is not None and (resume is not None or asked["model"] is not None):
        raise InputError("--from says what is trained: leave out MODEL and --resume")
    if source is not None and (asked["pretrained"] or asked["weights"]):
        raise InputError("--from begins with the weights of RUN: leave out --pretrained and --weights")
    if asked["model"] is None and source is None and resume in (None, "auto"):
        raise InputError("name a MODEL to train (see `zoo list`), or go on with --resume RUN")
    if output is not None:
        check_free(output)
    device = asked["device"] if resume in (None, "auto") else recorded_device(Path(str(resume)))
    if launch.wanted(gpus):
        sys.exit(launch.start(gpus, device, asked["model"]))
    with StopRequests() as stop, launch.joined(gpus, device, shard, stop):
        if source is not None:
            start_from(source, output, quiet, stop, saving)
        elif resume not in (None, "auto"):
            resume_run(Path(str(resume)), asked, output, quiet, stop, saving)
        else:
            start_run(asked, output, quiet, stop, saving, look=resume == "auto")


Saving = tuple[float, int]


def start_run(
    asked: dict[str, Any], output: Path | None, quiet: bool, stop: StopRequests, saving: Saving, look: bool
) -> None:
    """Resolve and train a new run; with `look`, go on with an unfinished one of the same configuration."""
    from zoo.train.start import plan_of

    if asked["weights"] == "":
        raise InputError("--weights '' names none; --pretrained takes the model's own")
    weights = asked["weights"] or ("" if asked["pretrained"] else None)
    plan = prepared(lambda show: plan_of(_request(asked), weights, show), quiet)
    together = launch.world()
    if look and (found := together.once(lambda: unfinished(plan.record))):
        kept = {key: asked[key] for key in ("data_dir", "workers")}
        return resume_run(found, kept, None, quiet, stop, saving)
    folder = together.once(lambda: output or new_folder(plan.record.model, plan.record.data.spec))
    fit(plan, folder, quiet, stop, saving, resume=False)
    return None


NOT_OF_THE_RUN = (
    "source",
    "output",
    "quiet",
    "resume",
    "model",
    "pretrained",
    "weights",
    "checkpoint_seconds",
    "checkpoint_steps",
    "gpus",
    "shard",
)


def start_from(source: str, output: Path | None, quiet: bool, stop: StopRequests, saving: Saving) -> None:
    """Train what `--from` names: a recorded run again, or its weights further; only given options change it."""
    from zoo.train.start import plan_from

    context = click.get_current_context()
    given = {
        key: value
        for key, value in context.params.items()
        if key not in NOT_OF_THE_RUN
        and context.get_parameter_source(key) is click.core.ParameterSource.COMMANDLINE
    }
    plan = prepared(lambda show: plan_from(source, given, show), quiet)
    folder = launch.world().once(lambda: output or new_folder(plan.record.model, plan.record.data.spec))
    fit(plan, folder, quiet, stop, saving, resume=False)


def resume_run(
    folder: Path, asked: dict[str, Any], output: Path | None, quiet: bool, stop: StopRequests, saving: Saving
) -> None:
    """Go on with the run of a folder, saying first what keeps it from being bit-identical.

    Raises:
        InputError: an option that would make it another run. RunError: it is finished, or damaged.
    """
    from zoo.errors import RunError
    from zoo.runs.folder import damage_of_weights, read_metrics
    from zoo.runs.record import RESULT, read_record
    from zoo.train.environment import differences
    from zoo.train.start import resumed

    if other := _given([*(asked.keys() - MAY_CHANGE), *(["output"] if output else [])]):
        raise InputError(
            f"--resume goes on with the recorded run: {', '.join(other)} cannot be given with it; "
            "--epochs, --data-dir and --workers can"
        )
    record = read_record(folder)
    epochs, trained = asked.get("epochs"), len(read_metrics(folder))
    longer = epochs is not None and epochs > record.settings.epochs
    if (folder / RESULT).is_file() and not longer and not damage_of_weights(folder):
        raise RunError(
            f"{folder}: this run is finished; extend it with --epochs N, N above {record.settings.epochs}"
        )
    if epochs is not None and not longer and epochs <= trained:
        raise InputError(f"--epochs {epochs}: {trained} epochs of {folder} are trained already; give more")
    for line in differences(record):
        print(f"warning: {line}: the resumed run will not be bit-identical", file=sys.stderr)
    plan = prepared(
        lambda show: resumed(
            folder,
            record,
            show,
            data_dir=asked.get("data_dir"),
            epochs=epochs,
            workers=asked.get("workers"),
        ),
        quiet,
    )
    if epochs is not None and record.settings.schedule != "constant":
        print(
            f"warning: the {record.settings.schedule} schedule now spans {epochs} epochs, not "
            f"{record.settings.epochs}: the learning rate jumps to where the longer schedule is",
            file=sys.stderr,
        )
    fit(plan, folder, quiet, stop, saving, resume=True)


MAY_CHANGE = ("epochs", "data_dir", "workers")


def _given(keys: Iterable[str]) -> list[str]:
    """Those of the parameters that stand on the command line, as they are spelled there."""
    context, line = click.get_current_context(), click.core.ParameterSource.COMMANDLINE
    found = {key for key in keys if context.get_parameter_source(key) is line}
    return [max(p.opts, key=len) for p in context.command.params if p.name in found]


def _request(asked: dict[str, Any]) -> Any:
    from zoo.train.request import Request

    return Request(**{key: value for key, value in asked.items() if key not in ("pretrained", "weights")})


def prepared(make: Callable[[Any], Plan], quiet: bool) -> Plan:
    """Make a plan with a bar over what has to be decoded."""
    from zoo.cli.shared.display import DecodeBar
    from zoo.train.speed.heap import keep_heap

    keep_heap()
    bar, together = DecodeBar(quiet), launch.world()
    try:
        return together.placed(together.in_turn(lambda: make(bar)))
    finally:
        bar.close()


def fit(plan: Plan, folder: Path, quiet: bool, stop: StopRequests, saving: Saving, *, resume: bool) -> None:
    """Train under the folder's lock, and say where the result is."""
    from zoo.cli.shared.display import make_display
    from zoo.runs.record import CHECKPOINTS, WEIGHTS
    from zoo.train import checkpoint
    from zoo.train.events import Listener
    from zoo.train.loop import Saving as Every
    from zoo.train.loop import Stop, Trainer
    from zoo.train.out_of_memory import refusing_too_much

    together = launch.world()
    launch.remember(folder)
    display = logs.watched(make_display(quiet), folder) if together.first else Listener()
    logs.say_notes(plan.notes)
    try:
        with written(folder, plan.record) if together.first else nullcontext(), refusing_too_much(plan):
            trainer = Trainer(plan, folder, display, stop, Every(*saving), together)
            kept = folder / CHECKPOINTS
            found = together.once(lambda: checkpoint.newest(kept, _warn)) if resume else None
            if found is not None:
                trainer.restore(found.state)
            stop.graceful = True
            result = trainer.fit()
    except Stop as stopped:
        display.end({})
        weights = (folder / WEIGHTS).is_file()
        left = "the best weights so far are in it" if weights else "no epoch was finished"
        print(f"stopped: {folder}; {left}; go on: zoo train --resume {folder}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except BaseException:
        display.end({})
        raise
    finally:
        stop.graceful = False
    report(folder, result)


def recorded_device(folder: Path) -> str:
    """The device that a run was trained on."""
    from zoo.runs.record import read_record

    return read_record(folder).device


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def report(folder: Path, result: dict[str, Any]) -> None:
    """Say what came out, where it is, and what to do next."""
    test, trained = result["test"], result["train"]
    say(
        f"test top-1 {test['top1']:.2%} ({test['correct']:,} of {test['count']:,}) after "
        f"{trained['seconds']:.1f} s of training, {trained['images_per_second']:,.0f} img/s"
    )
    say(f"next: zoo eval {folder}\n  or: zoo predict {folder} IMAGE")
    print(folder)
