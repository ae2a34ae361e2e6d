"""Trying: one process at a sweep, alone or beside others.

All agree through Optuna's storage and the locks of folders: the sweep's, for moments, to take the next
trial; the trial's, while it trains. A trial that is said to run and whose lock is free lost its process:
it is marked as failed, and its successor goes on in its folder, from its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from zoo.base.files import WriteError
from zoo.base.structs import NonNegative, Positive, Struct
from zoo.base.text import reason_of
from zoo.catalogue.registry import find_model
from zoo.catalogue.vary import inline, vary
from zoo.data.batches.mode import Delivery
from zoo.data.load import load
from zoo.data.seeds import mix_seed
from zoo.data.split import VALIDATION_SEED
from zoo.errors import DataError, HubError, InputError, ZooError
from zoo.models.device import pick_device
from zoo.runs.folder import read_metrics, read_result
from zoo.runs.lock import RunLock, WaitingLock, is_held
from zoo.runs.record import RECORD
from zoo.studies.sweep.space import Space, as_text, changes_of, kept
from zoo.train.events import Listener
from zoo.train.loop import Saving, Stop
from zoo.train.plan import Found, Plan, resolve
from zoo.train.request import Request, apply_settings, choose_recipe, refuse_impossible
from zoo.train.runner import Say, Stopper, Watch, finish
from zoo.train.speed.heap import keep_heap
from zoo.train.start import continued

FOLDER, ERROR, ASKED = "folder", "error", "asked"
"""Keys of what Optuna keeps for us: a trial's folder, why it failed, what the sweep is."""

STARTUP_TRIALS = 4
"""Trials that are not pruned, since there is nothing to hold them against."""


class Sweep(Struct, frozen=True, kw_only=True):
    """A sweep as plain data: worker processes get the same.

    Attributes:
        request: what all trials have in common; its model is the one that is searched.
        folder: holds the trials' folders. storage: a path, or a URL of Optuna's.
        trials: how many have to be done in all.
    """

    request: Request
    space: Space
    folder: str
    storage: str
    trials: Positive
    prune: bool = False
    checkpoint_seconds: NonNegative = 60.0


def same(sweep: Sweep) -> str:
    """What must not change between two commands at one storage, as text."""
    asked = sweep.request
    given = [asked.dataset or "", asked.epochs, asked.limit_train, asked.seed, list(asked.settings)]
    return msgspec.json.encode([asked.model, asked.recipe or "", *given, as_text(sweep.space)]).decode()


def check_options(sweep: Sweep, found: Found, *, data: bool = False) -> None:
    """Refuse what no trial could have: a recipe or a setting of all of them, the device, and the data if asked to.

    Args:
        found: the catalogue, and the model that is searched with its name.
    Raises:
        ZooError: names it and what is allowed.
    """
    asked = sweep.request
    refuse_impossible(asked)
    device = pick_device(asked.device)
    registry, name, model = found
    image_size = None
    if "model" not in {choice.key for choice in sweep.space.choices}:  # which have recipes of their own
        named = msgspec.structs.replace(asked, model=name)
        recipe, table = choose_recipe(named, registry, model)
        image_size = apply_settings(table, asked, f"recipe {recipe}").image_size
    if data:
        spec, where = asked.dataset or model.dataset, Path(asked.data_dir) if asked.data_dir else None
        delivery = Delivery("auto", None, str(device))
        load(spec, registry, data_dir=where, image_size=image_size, seed=VALIDATION_SEED, delivery=delivery)


def open_study(sweep: Sweep) -> optuna.Study:
    """Open or begin the sweep in its storage.

    Raises:
        InputError: the storage holds another sweep, or cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        Path(sweep.folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {sweep.folder}: cannot be made: {error.strerror}") from None
    try:
        with WaitingLock(Path(sweep.folder)):
            study = optuna.create_study(
                study_name="zoo", storage=_storage(sweep.storage), direction="maximize", load_if_exists=True
            )
            asked = study.user_attrs.get(ASKED)
            if asked is None:
                study.set_user_attr(ASKED, same(sweep))
    except (OSError, ValueError, ImportError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise InputError(f"--storage {sweep.storage}: cannot be used: {reason_of(error)}") from None
    if asked not in (None, same(sweep)):
        raise InputError(
            f"{sweep.storage}: holds another sweep (other model, keys, ranges or options); "
            "give the same ones to go on, or choose another --output"
        )
    return study


def _storage(place: str) -> optuna.storages.BaseStorage:
    if "://" in place or place.endswith((".db", ".sqlite", ".sqlite3")):
        url = place if "://" in place else f"sqlite:///{Path(place).absolute()}"
        if "://" not in place:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
        waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=waits)
    from optuna.storages.journal import JournalFileBackend

    Path(place).parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(place))


def assist(given: dict[str, Any], stop: Stopper) -> None:
    """`work` as one of several processes, by plain data: "sweep" and "quiet"."""

    def say(line: str) -> None:
        if not given["quiet"]:
            print(line, file=sys.stderr, flush=True)

    sweep = msgspec.convert(given["sweep"], Sweep)
    work(sweep, find_model(sweep.request.model), stop, say)


def work(sweep: Sweep, found: Found, stop: Stopper, say: Say) -> None:
    """Try, until as many trials are done as were asked for, or no point is left.

    Raises:
        Stop: asked to; the running trial has its checkpoint and goes on with the same command.
        ZooError: what keeps every trial from running; it goes on likewise.
    """
    keep_heap()
    study, checked = open_study(sweep), False
    while True:
        if (asked := stop()) > 0:
            raise Stop(asked)
        with ExitStack() as holding:
            trial = _next(sweep, study, holding, say)
            if trial is not None:
                if not checked:
                    check_options(sweep, found, data=True)
                    checked = True
                _try(sweep, study, trial, found, stop, say)
        if trial is None:
            if not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                return
            time.sleep(0.2)  # others train the last ones


def _next(sweep: Sweep, study: optuna.Study, holding: ExitStack, say: Say) -> Trial | None:
    """The next trial, its folder's lock taken into `holding`; None where enough are done or run."""
    with WaitingLock(Path(sweep.folder)):
        for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            _revive(sweep, study, frozen, say)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        begun = len(_done(study)) + len(running)
        if begun >= sweep.trials:
            return None
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting and not sweep.space.ranges:
            point = _untried(sweep.space, study)
            if point is None:
                return None
            study.enqueue_trial(point)
        study.sampler = optuna.samplers.TPESampler(
            seed=mix_seed(sweep.request.seed, begun) % 2**32, multivariate=False
        )
        trial = study.ask()
        _suggest(trial, sweep.space)
        if FOLDER not in trial.user_attrs:
            trial.set_user_attr(FOLDER, f"trial-{trial.number:04d}")
        folder = Path(sweep.folder) / trial.user_attrs[FOLDER]
        folder.mkdir(parents=True, exist_ok=True)
        holding.enter_context(RunLock(folder))
        return trial


def _revive(sweep: Sweep, study: optuna.Study, frozen: FrozenTrial, say: Say) -> None:
    """Let a trial whose process died go on as a new one in its folder."""
    name = frozen.user_attrs.get(FOLDER)
    folder = Path(sweep.folder) / (name or "")
    if name and folder.is_dir():
        if is_held(folder) or not _is_running(study, frozen):  # who trains it tells its end before letting go
            return
        complete = len(frozen.params) == len(sweep.space.choices) + len(sweep.space.ranges)
        if complete:
            say(f"{name}: its process is gone; it goes on")
            study.enqueue_trial(frozen.params, user_attrs={FOLDER: name})
    study.tell(frozen.number, state=TrialState.FAIL)


def _is_running(study: optuna.Study, trial: FrozenTrial) -> bool:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return trial.number in {other.number for other in running}


def _done(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: those with a score, pruned ones, and those that failed by themselves."""
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (t.state is TrialState.FAIL and ERROR in t.user_attrs)
    ]


def _untried(space: Space, study: optuna.Study) -> dict[str, Any] | None:
    lost = (
        t for t in study.get_trials(deepcopy=False) if t.state is not TrialState.FAIL or ERROR in t.user_attrs
    )
    tried = [t.params for t in lost]
    points = ({key: kept(value) for key, value in point.items()} for point in space.grid())
    return next((point for point in points if point not in tried), None)


def _suggest(trial: Trial, space: Space) -> None:
    for choice in space.choices:
        trial.suggest_categorical(choice.key, [kept(value) for value in choice.values])
    for drawn in space.ranges:
        if drawn.whole:
            trial.suggest_int(drawn.key, int(drawn.low), int(drawn.high), log=drawn.log)
        else:
            trial.suggest_float(drawn.key, drawn.low, drawn.high, log=drawn.log)


# ---- one trial ------------------------------------------------------------------------------------


def _try(sweep: Sweep, study: optuna.Study, trial: Trial, found: Found, stop: Stopper, say: Say) -> None:
    folder = Path(sweep.folder) / trial.user_attrs[FOLDER]
    changes = changes_of(sweep.space, trial.params)
    words = ", ".join(f"{key}={inline(value)}" for key, value in changes.items())
    watch = Watch(listener=Reported(trial), stop=stop, saving=Saving(sweep.checkpoint_seconds), say=say)
    try:
        result = finish(
            folder, lambda: _plan(sweep, study, found, changes, folder, say), watch, locked=True
        ) or read_result(folder)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        say(f"{folder.name}: {words}: pruned after epoch {len(read_metrics(folder))}")
    except (DataError, HubError, WriteError):
        raise  # no fault of the trial's
    except ZooError as error:
        trial.set_user_attr(ERROR, str(error))
        study.tell(trial, state=TrialState.FAIL)
        say(f"{folder.name}: {words}: failed: {error}")
    else:
        score = result["validation"]["top1"]
        trial.set_user_attr("seconds", result["train"]["seconds"])
        study.tell(trial, score)
        say(f"{folder.name}: {words}: validation top-1 {score:.2%}")


def _plan(
    sweep: Sweep, study: optuna.Study, found: Found, changes: Mapping[str, Any], folder: Path, say: Say
) -> Plan:
    """The plan of a trial, new or to go on with; the study's pruner is set by its epochs."""
    if (folder / RECORD).is_file():
        warn = partial(_warn, say, folder.name)
        plan = continued(folder, found[0], data_dir=sweep.request.data_dir, warn=warn)
        plan = without_test(plan)
    else:
        plan = plan_of(sweep, found, changes)
    warm = max(1, plan.recipe.epochs // 5)
    pruner = optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=warm)
    study.pruner = pruner if sweep.prune else optuna.pruners.NopPruner()
    return plan


def _warn(say: Say, name: str, line: str) -> None:
    say(f"warning: {name}: {line}")


def plan_of(sweep: Sweep, found: Found, changes: Mapping[str, Any]) -> Plan:
    """The plan of a trial: the clean protocol, and no test split at all.

    Raises:
        ZooError: whatever cannot be used, in one line.
    """
    registry, name, _ = found
    variant = vary(registry, name, changes, "zoo sweep")
    asked = sweep.request
    settings = (f"{key}={inline(value)}" for key, value in variant.settings.items())
    request = msgspec.structs.replace(
        asked,
        model=variant.name,
        recipe=variant.recipe or asked.recipe,
        settings=(*asked.settings, *settings),
        epochs=None if "epochs" in variant.settings else asked.epochs,
    )
    return without_test(resolve(request, found=(registry, variant.name, variant.model)))


def without_test(plan: Plan) -> Plan:
    """The plan with a test split of no images: nothing that it trains or selects can read one."""
    data = msgspec.structs.replace(plan.record.data, test=0)
    none = plan.test.select(np.arange(0))
    return dataclasses.replace(plan, record=msgspec.structs.replace(plan.record, data=data), test=none)


class Reported(Listener):
    """Tells Optuna each epoch's validation top-1, and ends the trial where Optuna gives it up."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Report the epochs that ended before."""
        for row in rows:
            self.trial.report(row["val_top1"], row["epoch"])

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Report it.

        Raises:
            optuna.TrialPruned: the trial lies behind the others.
        """
        self.trial.report(row["val_top1"], row["epoch"])
        if self.trial.should_prune():
            raise optuna.TrialPruned
