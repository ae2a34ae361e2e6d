"""`zoo train`: trains a model into a run folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.base.cpus import Neighbours
from zoo.cli.shared import click_from_fields, launch, logs
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.run_argument import RunName, chosen_run
from zoo.cli.shared.signals import StopRequests
from zoo.cli.shared.table import clean, say
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.train.plan import Plan
    from zoo.train.processes.world import World
    from zoo.train.run_options import Request


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
    help="Repeat RUN (a folder, a name below runs/, `last`, hf://OWNER/NAME); with --dataset, fine-tune its weights.",
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
    if option_values["weights"] == "last":
        option_values["weights"] = chosen_run("last")
    given = click_from_fields.given(context)
    _check_what_is_trained(model, source, resume, given)
    if (resume or "").startswith("hf://"):
        raise InputError(f"--resume {resume}: only a run on this machine can be resumed; --from {resume} repeats it")
    if output is not None:
        from zoo.runs.new import check_free

        check_free(output)
    device = option_values["device"] if resume in (None, "auto") else _recorded_device(Path(str(resume)))
    if gpus is not None and launch.wanted(gpus):
        sys.exit(launch.start(gpus, device, model))
    with StopRequests() as stop, launch.joined(gpus, device, shard, stop) as world:
        session = Session(stop, world, (checkpoint_seconds, checkpoint_steps), log, verbose, quiet)
        if source is not None:
            session.start_from(world.once(lambda: source), given, output)
        elif resume not in (None, "auto"):
            _check_resume(given, output)
            session.resume(world.once(lambda: Path(str(resume))), given)
        else:
            from zoo.train.run_options import Request

            session.start(Request(model=str(model), **option_values), output, look=resume == "auto")


def _check_what_is_trained(model: str | None, source: str | None, resume: str | None, given: dict[str, Any]) -> None:
    if source is not None and (resume is not None or model is not None):
        raise InputError("--from already says what to train; leave out MODEL and --resume")
    if source is not None and given.keys() & {"pretrained", "weights"}:
        raise InputError("--from starts from the weights of RUN; leave out --pretrained and --weights")
    if model is None and source is None and resume in (None, "auto"):
        raise InputError("give a MODEL to train (see `zoo list`), or resume a run with --resume RUN")


def _check_resume(given: dict[str, Any], output: Path | None) -> None:
    """Refuse options that cannot change in a resumed run.

    Raises:
        InputError: names them, and those that can.
    """
    from zoo.train.run_options import flag, options

    known = options()
    other = [flag(name) for name in given if not known[name].resume] + (["--output"] if output else [])
    if other:
        allowed = [flag(name) for name, option in known.items() if option.resume]
        raise InputError(
            f"--resume keeps the settings of the recorded run: {', '.join(other)} cannot be given with it; "
            f"{', '.join(allowed[:-1])} and {allowed[-1]} can"
        )


@dataclass(frozen=True)
class Session:
    """One `zoo train`: its stop requests, its processes, and the options that do not change what is trained.

    Attributes:
        saving: seconds and steps between two checkpoints.
    """

    stop: StopRequests
    world: World
    saving: tuple[float, int]
    log: tuple[str, ...]
    verbose: bool
    quiet: bool
    neighbours: Neighbours = field(default_factory=Neighbours)

    def start(self, request: Request, output: Path | None, *, look: bool) -> None:
        """Train a new run; with `look`, resume an unfinished one with the same configuration."""
        from zoo.catalogue.registry import find_model
        from zoo.runs.new import unfinished
        from zoo.train.start import plan_of

        entry = find_model(request.model)
        loggers = logs.find(self.log, entry[0])
        plan = self._beside_others(self._prepared(lambda show: plan_of(request, show, entry)))
        if look and (folder := self.world.once(lambda: unfinished(plan.record))):
            return self.resume(folder, {"data_dir": request.data_dir, "workers": request.workers})
        return self._train(plan, self._new_folder(plan, output), loggers)

    def start_from(self, source: str, given: dict[str, Any], output: Path | None) -> None:
        """Repeat the recorded run of `--from`, or fine-tune its weights; only options that were given change it."""
        from zoo.catalogue.registry import load_registry
        from zoo.train.start import plan_from

        registry = load_registry()
        loggers = logs.find(self.log, registry)
        plan = self._beside_others(self._prepared(lambda show: plan_from(source, given, show, registry)))
        self._train(plan, self._new_folder(plan, output), loggers)

    def resume(self, folder: Path, changed: dict[str, Any]) -> None:
        """Resume the run of a folder, after warning about differences that make it not bit-identical."""
        from zoo.catalogue.registry import load_registry
        from zoo.train.start import continued, is_finished

        if changed.get("epochs") is None and is_finished(folder):
            return _say_finished(folder)
        registry = load_registry()
        loggers = logs.find(self.log, registry)
        plan = self._prepared(lambda show: continued(folder, registry, **changed, show=show, warn=_warn))
        self._train(plan, folder, loggers)

    def _prepared(self, make: Callable[[Any], Plan]) -> Plan:
        """Make a plan, with a progress bar while images are decoded."""
        from zoo.cli.shared.display import DecodeBar
        from zoo.train.speed.heap import keep_heap

        keep_heap()
        bar = DecodeBar(self.quiet)
        try:
            return self.world.placed(self.world.in_turn(lambda: make(bar)))
        finally:
            bar.close()

    def _new_folder(self, plan: Plan, output: Path | None) -> Path:
        from zoo.runs.new import new_folder

        return self.world.once(lambda: output or new_folder(plan.record.model, plan.record.data.spec))

    def _beside_others(self, plan: Plan) -> Plan:
        """The plan with fewer threads if other processes keep CPUs busy and a step is faster so."""
        from zoo.train.speed.threads import beside_others

        if self.world.size > 1:
            return plan
        plan, line = beside_others(plan, self.neighbours.busy())
        if line and not self.quiet:
            say(line)
        return plan

    def _train(self, plan: Plan, folder: Path, loggers: logs.Factories) -> None:
        """Train, and print the run folder."""
        from zoo.cli.shared.display import make_display
        from zoo.runs.record import WEIGHTS
        from zoo.train.events import Listener
        from zoo.train.loop import Saving, Stop
        from zoo.train.runner import Watch, train_in

        first = self.world.first
        watch = Watch(
            listener=logs.watched(make_display(self.quiet), loggers, folder) if first else Listener(),
            stop=self.stop,
            saving=Saving(*self.saving),
            ready=self.stop.answer_between_steps,
            say=_warn,
            world=self.world,
        )
        for finding in () if self.quiet else plan.findings:
            print(f"{finding.level}: {clean(finding.line())}", file=sys.stderr)
        for note in plan.notes if self.verbose else ():
            print(f"  {note}", file=sys.stderr)
        try:
            result = train_in(folder, plan, watch)
        except Stop as stopped:
            weights = (folder / WEIGHTS).is_file()
            kept = "the weights of the last epoch" if plan.recipe.select == "last" else "the best weights so far"
            saved = f"{kept} are saved in it" if weights else "no epoch was finished"
            print(f"stopped: {folder}; {saved}; to resume: zoo train --resume {folder}", file=sys.stderr)
            sys.exit(128 + stopped.signal)
        finally:
            self.stop.graceful = False
        report(folder, result)


def _recorded_device(folder: Path) -> str:
    """The device that a run was trained on."""
    from zoo.runs.record import read_record

    return read_record(folder).device


def _say_finished(folder: Path) -> None:
    """Say that nothing is left to train, so that `until zoo train --resume RUN` ends."""
    from zoo.runs.record import read_record

    say(f"{folder}: this run is finished; extend it with --epochs N, N above {read_record(folder).settings.epochs}")
    print(folder)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def report(folder: Path, result: dict[str, Any]) -> None:
    """Print the result, the run folder, and what to do next."""
    test, trained = result["test"], result["train"]
    say(
        f"test top-1 {test['top1']:.2%} ({test['correct']:,} of {test['count']:,}) after "
        f"{trained['seconds']:.1f} s of training, {trained['images_per_second']:,.0f} img/s"
    )
    say(f"next: zoo eval {folder}\n  or: zoo predict {folder} IMAGE")
    print(folder)
