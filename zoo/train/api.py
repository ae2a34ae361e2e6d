"""The public calls of this room: `zoo.train` and `zoo.resume`, and `zoo.soup`, which makes one run of several."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from zoo.base.checked_call import checked
from zoo.base.paths import local_path
from zoo.base.reporter import Reporter
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.spec import Node
from zoo.data.batches.mode import DataMode
from zoo.data.label_sets import Task
from zoo.errors import InputError
from zoo.runs import find as found
from zoo.runs.api import HUB, Run, RunLike, open_run, word_of
from zoo.runs.record import read_record
from zoo.runs.which import LAST, is_name_of_weights
from zoo.train.run_options import (
    HowToCompile,
    OnInterrupt,
    Request,
    options,
    plain,
    refuse_around,
    refuse_two_beginnings,
    settings_of,
)

if TYPE_CHECKING:
    from torch import nn

    from zoo.train.call import Outcome, Training
    from zoo.train.given import Given
    from zoo.train.plan import Entry
    from zoo.train.processes.world import World


Images: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""Images of the caller's own: arrays, datasets of torch, or files, with labels; see `train`."""


@checked
def train(
    model: str | Node | nn.Module | Callable[..., Any] | None = None,
    *,
    dataset: str | Path | Images | None = None,
    data_dir: str | Path | None = None,
    recipe: str | Recipe | Mapping[str, Any] | None = None,
    epochs: int | None = None,
    batch_size: int | Literal["auto"] | None = None,
    lr: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None,
    compile: HowToCompile | None = None,
    on_nan: Literal["stop", "skip"] | None = None,
    image_size: int | None = None,
    limit_train: int | None = None,
    limit_test: int | None = None,
    max_steps: int | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    protocol: Literal["clean", "paper"] | None = None,
    validation: float | str | Path | None = None,
    pretrained: bool = False,
    weights: RunLike | None = None,
    teacher: RunLike | None = None,
    task: Task | None = None,
    skip_bad: bool = False,
    data_mode: DataMode | None = None,
    workers: int | None = None,
    output: str | Path | None = None,
    from_run: RunLike | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    checkpoint_steps: int = 0,
    log: str | Sequence[str] = (),
    listeners: Sequence[Any] = (),
    augment: Callable[..., Any] | None = None,
    progress: bool | None = None,
    interrupt: OnInterrupt = "auto",
    reporter: Reporter | None = None,
    stop: Callable[[], int] | None = None,
    world: World | None = None,
) -> Run:
    """Train a model with its recipe, into a run folder: what `zoo train` does.

    The same arguments give the same weights as the command's options do, bit for bit on a CPU, and either can resume
    what the other began. torch's random generators and its number of threads are as before when the call returns.

    Args:
        model: a name of `zoo.models()`, "timm/NAME", "torchvision/NAME", "FILE.toml#NAME", or a tree made in Python
            (`zoo.part`, `zoo.alternate`, `zoo.joint`). Or code of your own: "FILE.py:NAME", a class or a function with
            the signature of a classifier, part, stem or head (see `zoo.plugin.Component`), or a ready module, which is
            copied and not itself trained. Leave it out with `from_run`.
        dataset: a name of `zoo.datasets()`, folder:PATH, csv:FILE, jsonl:FILE, parquet:PATH, wds:PATTERN or
            hf:OWNER/NAME, or the path of a folder or a table; default: the model's own. Or images of your own: arrays
            (images, labels) or ((images, labels), (images, labels)) for train and test, uint8 (N, H, W[, C]) or
            (N, C, H, W); a pair of `torch.utils.data.Dataset`; a list of (path, label); an `ImageSplits`; or a table
            {"train": ..., "validation": ..., "test": ...} of these. Several labels of an image are a list, or a row of
            0 and 1 in an array.
        data_dir: folder for downloaded datasets.
        recipe: name of a recipe, or "best"; a table of keys that differ from the model's own recipe; or a `Recipe`,
            which is taken whole. Default: the model's own.
        epochs: passes over the training images. lr: peak learning rate.
        batch_size: images per step; "auto": the recipe's number, in as few micro-batches as fit in memory.
        seed: for initial weights, image order and augmentation; default: 0.
        device: "auto" (the default), "cpu", "cuda", "cuda:N" or "mps".
        precision: number type of the forward pass. compile: "off"; "graph": CUDA graphs only; "default" or "max":
            torch.compile; "auto": chosen by timing a step.
        on_nan: what to do when the loss of a step is not finite; default: "stop".
        image_size: resize images to this side, in pixels.
        limit_train, limit_test: use only so many images, a stratified subset. max_steps: stop after so many steps.
        settings: other keys of the recipe, `{"ema": 0.99}`, or texts as for `--set`.
        protocol: "clean" (the default): validation images select the epoch, the test images are read once, at the end;
            "paper": train on all training images and evaluate each epoch on the test images.
        validation: the images that select the epoch: a share of the training images (0.2), or a folder or file of their
            own, with classes of the same names; default: the dataset's own validation images, else a share of 0.1.
        pretrained: start from the model's own pretrained weights. weights: start from these: a run, hf://OWNER/NAME,
            or a model that has some, such as "timm/NAME.TAG".
        teacher: a trained model to learn from beside the labels (distillation): a run, hf://OWNER/NAME, NAME@DATASET or
            "timm/NAME.TAG"; the key `distill` of the recipe says how.
        task: "single-label" or "multi-label" (one file in several class folders is then one image); default: what the
            labels are.
        skip_bad: leave out unreadable images; the run records how many.
        data_mode: "resident": decoded images stay on the device; "stream": they are sent batch by batch; "auto".
        workers: processes that decode streamed images.
        output: the run folder to write; default: a new folder below runs/.
        from_run: repeat this run; with `dataset`, fine-tune its weights.
        resume: resume the newest unfinished run below runs/ of the same configuration, if there is one.
        checkpoint_seconds: seconds between checkpoints; 0: only at the end or when stopped. checkpoint_steps: also
            every so many steps.
        log: plugins' loggers, one or several, such as "tensorboard".
        listeners: objects with any of the methods start(record, parameters), epoch(row, best) and end(result), which
            get plain data. One that raises is switched off with a warning.
        augment: a function of your own on batches: (images, labels) to images, before the recipe's steps; see
            `zoo.train.own_augment`.
        progress: show progress: True on stderr (or in the notebook), False nowhere, None only in a notebook.
        interrupt: what Ctrl-C does: "stop": the run stops between two steps, is saved, and is returned as stopped;
            "raise": KeyboardInterrupt, at once; "auto": "stop" in a notebook or at a prompt, "raise" in a script.
        reporter: receives messages, warnings and the progress of decoding; default: see `zoo.Reporter`.
        stop: asked before each step: a signal's number stops the run, -1 writes a checkpoint, 0 lets it go on.
        world: the processes that train together; default: those that torchrun started.
    Returns:
        The run; its `state` is "finished", or "stopped" if it was stopped.
    Raises:
        InputError: something that was given cannot be used; says what is allowed. DataError: the images cannot be read.
        DeviceError: no such device, or its memory does not suffice. TrainingError: the loss is not finite.
        BusyError: another process trains in the folder. HubError: weights cannot be fetched.

    Example:
        >>> run = zoo.train("hybrid-alt-1", dataset="digits", epochs=2)  # doctest: +SKIP
        >>> run.top1  # doctest: +SKIP
    """
    arguments = dict(locals())
    given = _given(arguments)
    refuse_two_beginnings(model, from_run, given, resume)
    place = None if output is None else local_path(output)
    around = _Around(checkpoint_seconds, checkpoint_steps, log, listeners, progress, interrupt, reporter, stop, world)
    with _prepared(around, str(device or "auto")) as training:
        names, own = _taken(arguments, training.reporter)
        given |= names
        if from_run is not None:
            source = training.world.once(lambda: word_of(from_run))
            return _run(training.start_from(source, given, place, own), training)
        entry = _entry_of(model)
        request = Request(**{**given, "model": entry[1] if entry else given["model"]})
        return _run(training.start(request, entry, place, own, look=resume), training)


@checked
def resume(
    run: RunLike,
    *,
    epochs: int | None = None,
    device: str | None = None,
    data_dir: str | Path | None = None,
    workers: int | None = None,
    checkpoint_seconds: float = 60.0,
    checkpoint_steps: int = 0,
    log: str | Sequence[str] = (),
    listeners: Sequence[Any] = (),
    model: str | nn.Module | Callable[..., Any] | None = None,
    dataset: Images | None = None,
    augment: Callable[..., Any] | None = None,
    progress: bool | None = None,
    interrupt: OnInterrupt = "auto",
    reporter: Reporter | None = None,
    stop: Callable[[], int] | None = None,
    world: World | None = None,
) -> Run:
    """Go on with an unfinished run from its newest checkpoint, or extend a finished one, as `zoo train --resume` does.

    On a CPU the result is that of a run that was never stopped, bit for bit; what prevents this is warned about.

    Args:
        run: a run folder, a name below runs/, "last", or a `Run`.
        epochs: the new total number of epochs. Without it, a finished run is returned as it is.
        device: where it goes on, as for `zoo.train`; default: the recorded device.
        model, dataset, augment: code and images of your own that the run was given, where it cannot find them again by
            itself; see `zoo.train`. The code of a file it can: it keeps a copy.
        data_dir, workers: as for `zoo.train`.
        checkpoint_seconds, checkpoint_steps, log, listeners: as for `zoo.train`.
        progress, interrupt, reporter, stop, world: as for `zoo.train`.
    Returns:
        The run; its `state` is "finished", or "stopped" if it was stopped again.
    Raises:
        InputError: no such run, one of the Hub, or that many epochs are already trained. RunError: a damaged run, or
        its images are others than those that are recorded. ZooError: as `zoo.train`.

    Example:
        >>> zoo.resume("last", epochs=40)  # doctest: +SKIP
    """
    given = _given({"epochs": epochs, "device": device, "data_dir": data_dir, "workers": workers})
    if isinstance(run, str) and (run.startswith(HUB) or is_name_of_weights(run)):
        raise InputError(f"--resume {run}: only a run on this machine can be resumed; --from {run} repeats it")
    around = _Around(checkpoint_seconds, checkpoint_steps, log, listeners, progress, interrupt, reporter, stop, world)
    with _prepared(around, str(device or "auto")) as training:
        folder = training.world.once(lambda: Path(word_of(run)))
        from zoo.train.given import again

        own = again(model=model, dataset=dataset, augment=augment, warn=training.reporter.warn)
        return _run(training.resume(folder, given, own), training)


# ---- what both calls share ---------------------------------------------------------------------------


class _Around(NamedTuple):
    """The arguments of a call that do not change what is trained."""

    checkpoint_seconds: float
    checkpoint_steps: int
    log: str | Sequence[str]
    listeners: Sequence[Any]
    progress: bool | None
    interrupt: OnInterrupt
    reporter: Reporter | None
    stop: Callable[[], int] | None
    world: World | None


@contextmanager
def _prepared(around: _Around, device: str) -> Iterator[Training]:
    """What surrounds the training; afterwards this process is as it was before."""
    from zoo.train.call import Training, as_before
    from zoo.train.interrupt import Interrupt, catching
    from zoo.train.listeners import refuse_no_listeners
    from zoo.train.loop import Saving

    refuse_around(around.checkpoint_seconds, around.checkpoint_steps, around.interrupt)  # before anything is made
    refuse_no_listeners(around.listeners)
    display, reporter = _shown(around)
    interrupt = Interrupt(around.stop)
    with _joined(around.world, device) as world, as_before(device), catching(interrupt, around.interrupt):
        yield Training(
            stop=interrupt,
            reporter=reporter,
            saving=Saving(around.checkpoint_seconds, around.checkpoint_steps),
            log=(around.log,) if isinstance(around.log, str) else around.log,
            listeners=[*display, *around.listeners],
            world=world,
        )


def _shown(around: _Around) -> tuple[list[Any], Reporter]:
    """What shows the progress of the training, and what receives messages."""
    reporter = around.reporter or Reporter()
    if around.progress is False or not (around.progress or "IPython" in sys.modules):
        return [], reporter
    from zoo.train.display import make_display
    from zoo.train.notebook import NotebookDisplay, NotebookReporter, in_notebook

    if in_notebook():
        return [NotebookDisplay()], around.reporter or NotebookReporter()
    return ([make_display(False)] if around.progress else []), reporter


@contextmanager
def _joined(world: World | None, device: str) -> Iterator[World]:
    """The processes that train together: those that were given, or those that torchrun started."""
    from zoo.base import children
    from zoo.train.processes.world import World, join

    if world is not None:
        yield world
    elif children.started_together() == 1:
        yield World()
    else:
        joined = join(device, sharded=False)
        try:
            yield joined
        except BaseException:
            joined.claim()  # so that no other process waits for this one
            raise
        joined.leave()


def _taken(arguments: Mapping[str, Any], reporter: Reporter) -> tuple[dict[str, str], Given]:
    """What was given as a name, and what was given itself: see `zoo.train.given.taken`."""
    from zoo.train.given import taken

    model = arguments["model"]
    return taken(
        model=None if isinstance(model, Node) else model,
        dataset=arguments["dataset"],
        recipe=arguments["recipe"],
        augment=arguments["augment"],
        warn=reporter.warn,
    )


def _entry_of(model: object) -> Entry | None:
    """The catalogue and the model of a tree; None for a name."""
    if not isinstance(model, Node):
        return None
    from zoo.catalogue.parts import entry_of

    return entry_of(model)


def _run(outcome: Outcome, training: Training) -> Run:
    """The run that was trained; in a process that does not write, only what it knows of it."""
    if training.world.first:
        return open_run(outcome.folder)
    state: found.State = "stopped" if outcome.result is None else "finished"
    record = outcome.record or read_record(outcome.folder)
    return Run(outcome.folder.name, outcome.folder, record, (), outcome.result, state, time.time())


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run that a call was given, by their names in `Request`."""
    values = {name: plain(arguments.get(name)) for name in options() if name not in ("dataset", "recipe", "settings")}
    values["settings"] = arguments.get("settings")
    given = {name: value for name, value in values.items() if not (value is None or value is False or value == ())}
    for name in given.keys() & {"data_dir", "device", "validation"}:  # a path, a torch.device, a share
        given[name] = str(given[name])
    if "settings" in given:
        given["settings"] = settings_of(given["settings"])
    for name in given.keys() & {"weights", "teacher"}:
        if isinstance(run := given[name], Run | Path) or run == LAST:
            given[name] = word_of(run)
    return given


# ---- a run made of runs --------------------------------------------------------------------------------


@checked
def soup(
    *runs: RunLike,
    method: Literal["greedy", "uniform", "ensemble"] = "greedy",
    output: str | Path | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Make one run of several: average their weights (a model soup), or let them answer together (an ensemble).

    A soup costs no more to use than each run. It helps runs that were fine-tuned from the same weights; they must have
    the same composition, images, classes and transform. Statistics of batch norms are computed again on training
    images. An ensemble costs as much as all runs together; they may be of any composition for the same images. The test
    images are read once.

    Args:
        runs: at least two finished runs, as for `zoo.evaluate`.
        method: "greedy" takes runs from the best on, each that does not make the mean worse on the validation images;
            "uniform" takes all; "ensemble" keeps all weights, and gives the mean of the probabilities.
        output: the folder of the new run; default: one below runs/.
        data_dir: folder of downloaded datasets. device: to measure on; default: that of the first run.
        reporter: receives a line for each run, and a warning where the runs did not begin with the same weights.
    Returns:
        The new run. Its record (`run.record.soup`) names the runs that were taken.
    Raises:
        InputError: fewer than two runs, no such run, or `output` holds something already.
        RunError: a run is not finished, runs cannot be averaged, or there are no validation images to choose by.

    Example:
        >>> zoo.soup("runs/a", "runs/b", "runs/c").top1  # doctest: +SKIP
    """
    from zoo.catalogue.registry import load_registry
    from zoo.hub.download import local_folder
    from zoo.models.precision import usual_torch
    from zoo.studies.ensemble_run import ensemble_run
    from zoo.studies.soup import soup as averaged

    if method not in ("greedy", "uniform", "ensemble"):
        raise InputError(f"method {method!r}: allowed: greedy, uniform, ensemble")
    words, registry, told = [word_of(run) for run in runs], load_registry(), reporter or Reporter()
    named = [(_name(word), local_folder(word, registry=registry)) for word in words]
    place = None if data_dir is None else str(data_dir)
    folder = None if output is None else local_path(output)
    how: dict[str, Any] = {"output": folder, "data_dir": place, "device": device}
    try:
        with usual_torch():
            if method == "ensemble":
                folder = ensemble_run(named, registry, **how)
            else:
                folder = averaged(named, registry, method=method, reporter=told, **how)
    finally:
        told.close()
    return open_run(folder)


def _name(word: str) -> str:
    """What a record calls a run: the Hub's name, or that of the folder, which says nothing of this machine."""
    return word if word.startswith(HUB) else Path(word).resolve().name
