"""Runs the trials of a sweep in one process, alone or together with others.

The processes coordinate through Optuna's storage and the locks of folders: that of the sweep, held briefly to
take the next trial, and that of the trial, held while it trains. If a trial counts as running but its lock is
free, its process has died: the trial is marked as failed, and a new trial continues in its folder, from its
last checkpoint.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from zoo.base.files import WriteError
from zoo.base.heap import keep_heap
from zoo.base.reporter import Reporter
from zoo.base.structs import NonNegative, Positive, Struct
from zoo.base.text import plural
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import find_model
from zoo.catalogue.vary import inline, vary
from zoo.data.batches.mode import Delivery
from zoo.data.load import load
from zoo.data.seeds import mix_seed
from zoo.data.split import VALIDATION_SEED
from zoo.errors import DataError, HubError, InputError, ZooError
from zoo.models.device import pick_device, usable_device
from zoo.runs.folder import read_metrics, read_result
from zoo.runs.lock import RunLock, WaitingLock, is_held
from zoo.runs.record import RECORD, read_record
from zoo.studies.checked import goes_on
from zoo.studies.sweep.meaning import refuse_other_images
from zoo.studies.sweep.space import Space, as_text, changes_of, for_optuna
from zoo.train.events import Listener
from zoo.train.loop import Saving, Stop
from zoo.train.plan import Entry, Plan, resolve
from zoo.train.recipe_settings import apply_settings, choose_recipe
from zoo.train.result import doubts
from zoo.train.run_options import Request, refuse_impossible
from zoo.train.runner import Stopper, Watch, finish
from zoo.train.smaller import give_back
from zoo.train.start import continued

FOLDER, ERROR, ASKED = "folder", "error", "asked"
"""Attributes that Optuna stores for us: a trial's folder, why it failed, and the definition of the sweep."""

STARTUP_TRIALS = 4
"""The number of first trials that are not pruned, as there is nothing to compare them with."""


class Search(Struct, frozen=True, kw_only=True):
    """A sweep as plain data, which worker processes receive too.

    Attributes:
        request: the common settings of all trials, and the model.
        folder: the folder for the trials' folders. storage: a path, or a database URL for Optuna.
        trials: the total number of trials.
    """

    request: Request
    space: Space
    folder: str
    storage: str
    trials: Positive
    prune: bool = False
    checkpoint_seconds: NonNegative = 60.0


def same(search: Search) -> str:
    """The settings that must be equal for two commands with the same storage, as text."""
    request = search.request
    given = [request.dataset or "", request.epochs, request.limit_train, request.seed, list(request.settings)]
    given += [request.validation] if request.validation else []  # sweeps of earlier versions had none
    return msgspec.json.encode([request.model, request.recipe or "", *given, as_text(search.space)]).decode()


def check_options(search: Search, entry: Entry, *, data: bool = False) -> None:
    """Refuse settings that would make every trial fail: recipe, device, and with `data` the dataset.

    Args:
        entry: the catalogue, and the model with its name.
    Raises:
        ZooError: names it and what is allowed.
    """
    request = search.request
    refuse_impossible(request)
    device = pick_device(request.device)
    registry, name, model = entry
    image_size = None
    if "model" not in {choice.key for choice in search.space.choices}:  # other models have their own recipes
        named = msgspec.structs.replace(request, model=name)
        recipe, table = choose_recipe(named, registry, model)
        resolved = apply_settings(table, request, f"recipe {recipe}")
        _refuse_unlabelled(resolved)
        image_size = resolved.image_size
    if data:
        spec, where = request.dataset or model.dataset, Path(request.data_dir) if request.data_dir else None
        delivery = Delivery("auto", None, str(device))
        found = load(spec, registry, data_dir=where, image_size=image_size, seed=VALIDATION_SEED, delivery=delivery)
        if found.task == "multi-label":
            raise InputError(f"{spec}: its images have several labels; a sweep looks for the best top-1")


def open_study(search: Search) -> optuna.Study:
    """Open or create the sweep in its storage.

    Raises:
        InputError: the storage holds another sweep, or cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        Path(search.folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {search.folder}: cannot be created: {error.strerror}") from None
    try:
        with WaitingLock(Path(search.folder)):
            study = optuna.create_study(
                study_name="zoo", storage=_storage(search.storage), direction="maximize", load_if_exists=True
            )
            stored = study.user_attrs.get(ASKED)
            if stored is None:
                study.set_user_attr(ASKED, same(search))
    except (OSError, ValueError, ImportError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"--storage {search.storage}: cannot be used: {reason[:300]}") from None
    if stored not in (None, same(search)):
        raise InputError(
            f"{search.storage}: contains another sweep (other model, keys, ranges or options); "
            "give the same ones to continue it, or another --output"
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


def assist(given: dict[str, Any], stop: Stopper, reporter: Reporter) -> None:
    """Call `work` in one of several processes, with a search as plain data."""
    search = msgspec.convert(given, Search)
    work(search, find_model(search.request.model), stop, reporter)


def work(search: Search, entry: Entry, stop: Stopper, reporter: Reporter) -> None:
    """Run trials until the requested number is done, or the grid is exhausted.

    Raises:
        Stop: a signal asked to stop; the running trial has a checkpoint, and the same command resumes it.
        ZooError: no trial can run; the same command continues once that is fixed.
    """
    keep_heap()
    study, checked = open_study(search), False
    while True:
        if (signal := stop()) > 0:
            raise Stop(signal)
        with ExitStack() as holding:
            trial = _next(search, study, holding, reporter)
            if trial is not None:
                if not checked:
                    check_options(search, entry, data=True)
                    checked = True
                _try(search, study, trial, entry, stop, reporter)
                give_back()  # a failure holds its own training in a circle until then
        if trial is None:
            if not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                return
            time.sleep(0.2)  # other processes train the last trials


def _next(search: Search, study: optuna.Study, holding: ExitStack, reporter: Reporter) -> Trial | None:
    """The next trial, with its folder's lock entered into `holding`; None if enough are done or running."""
    with WaitingLock(Path(search.folder)):
        for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            _revive(search, study, frozen, reporter)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        begun = len(_done(study)) + len(running)
        if begun >= search.trials:
            return None
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting and not search.space.ranges:
            point = _untried(search.space, study)
            if point is None:
                return None
            study.enqueue_trial(point)
        study.sampler = optuna.samplers.TPESampler(
            seed=mix_seed(search.request.seed, begun) % 2**32, multivariate=False
        )
        trial = study.ask()
        _suggest(trial, search.space)
        if FOLDER not in trial.user_attrs:
            trial.set_user_attr(FOLDER, f"trial-{trial.number:04d}")
        folder = Path(search.folder) / trial.user_attrs[FOLDER]
        folder.mkdir(parents=True, exist_ok=True)
        holding.enter_context(RunLock(folder))
        return trial


def _revive(search: Search, study: optuna.Study, frozen: FrozenTrial, reporter: Reporter) -> None:
    """Continue a trial whose process died as a new trial in its folder."""
    name = frozen.user_attrs.get(FOLDER)
    folder = Path(search.folder) / (name or "")
    if name and folder.is_dir():
        if is_held(folder) or not _is_running(
            study, frozen
        ):  # its process reports the end of a trial before it releases the lock
            return
        complete = len(frozen.params) == len(search.space.choices) + len(search.space.ranges)
        if complete:
            reporter.say(f"{name}: its process died; the trial is resumed")
            study.enqueue_trial(frozen.params, user_attrs={FOLDER: name})
    study.tell(frozen.number, state=TrialState.FAIL)


def _is_running(study: optuna.Study, trial: FrozenTrial) -> bool:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return trial.number in {other.number for other in running}


def _done(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: completed, pruned, and failed with an error of their own."""
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state in (TrialState.COMPLETE, TrialState.PRUNED) or (t.state is TrialState.FAIL and ERROR in t.user_attrs)
    ]


def _untried(space: Space, study: optuna.Study) -> dict[str, Any] | None:
    counted = (t for t in study.get_trials(deepcopy=False) if t.state is not TrialState.FAIL or ERROR in t.user_attrs)
    tried = [t.params for t in counted]
    points = ({key: for_optuna(value) for key, value in point.items()} for point in space.grid())
    return next((point for point in points if point not in tried), None)


def _suggest(trial: Trial, space: Space) -> None:
    for choice in space.choices:
        trial.suggest_categorical(choice.key, [for_optuna(value) for value in choice.values])
    for drawn in space.ranges:
        if drawn.whole:
            trial.suggest_int(drawn.key, int(drawn.low), int(drawn.high), log=drawn.log)
        else:
            trial.suggest_float(drawn.key, drawn.low, drawn.high, log=drawn.log)


# ---- one trial ------------------------------------------------------------------------------------


def _try(search: Search, study: optuna.Study, trial: Trial, entry: Entry, stop: Stopper, reporter: Reporter) -> None:
    folder = Path(search.folder) / trial.user_attrs[FOLDER]
    changes = changes_of(search.space, trial.params)
    words = ", ".join(f"{key}={inline(value)}" for key, value in changes.items())
    reporter.say(f"{folder.name}: {words}: begins; {_progress(search, study)}")
    watch = Watch(listener=Reported(trial), stop=stop, saving=Saving(search.checkpoint_seconds), say=reporter.say)
    try:
        result = finish(
            folder, lambda: _plan(search, study, entry, changes, folder, reporter), watch, locked=True
        ) or read_result(folder)
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        reporter.say(f"{folder.name}: {words}: pruned after epoch {len(read_metrics(folder))}")
    except (DataError, HubError, WriteError):
        raise  # not caused by the settings of the trial
    except ZooError as error:
        trial.set_user_attr(ERROR, str(error))
        study.tell(trial, state=TrialState.FAIL)
        reporter.say(f"{folder.name}: {words}: failed: {error}")
    else:
        for line in doubts(result):
            reporter.warn(f"{folder.name}: {line}")
        score = result["validation"]["top1"]
        trial.set_user_attr("seconds", result["train"]["seconds"])
        study.tell(trial, score)
        reporter.say(f"{folder.name}: {words}: validation top-1 {score:.2%}")


def _progress(search: Search, study: optuna.Study) -> str:
    """How many trials are finished, run and wait, over all processes of the sweep."""
    states, done = (TrialState.RUNNING,), len(_done(study))
    running = len(study.get_trials(deepcopy=False, states=states))
    waiting = max(0, search.trials - done - running)
    return f"{plural(done, 'trial')} finished, {running} running, {waiting} waiting"


def _plan(
    search: Search, study: optuna.Study, entry: Entry, changes: Mapping[str, Any], folder: Path, reporter: Reporter
) -> Plan:
    """The plan of a new or resumed trial; also sets the study's pruner, which depends on the epochs."""
    if (folder / RECORD).is_file():

        def warn(line: str) -> None:
            reporter.warn(f"{folder.name}: {line}")

        recorded = read_record(folder).device
        gone = usable_device(recorded) != recorded
        if not gone and (line := goes_on(folder, search.request.device)):
            warn(line)
        elif gone:
            warn(f"goes on on {search.request.device}, as this machine has no {recorded}, where it began")
        asked = search.request.device if gone else None
        plan = continued(folder, entry[0], device=asked, data_dir=search.request.data_dir, warn=warn)
        plan = without_test(plan)
    else:
        plan = plan_of(search, entry, changes)
        refuse_other_images(plan.record, folder)
    warm_up = max(1, plan.recipe.epochs // 5)
    pruner = optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=warm_up)
    study.pruner = pruner if search.prune else optuna.pruners.NopPruner()
    return plan


def plan_of(search: Search, entry: Entry, changes: Mapping[str, Any]) -> Plan:
    """The plan of a new trial, with the clean protocol and without a test split.

    Raises:
        ZooError: something cannot be used; one line says what.
    """
    registry, name, _ = entry
    variant = vary(registry, name, changes, "zoo sweep")
    common = search.request
    settings = (f"{key}={inline(value)}" for key, value in variant.settings.items())
    request = msgspec.structs.replace(
        common,
        model=variant.name,
        recipe=variant.recipe or common.recipe,
        settings=(*common.settings, *settings),
        epochs=None if "epochs" in variant.settings else common.epochs,
    )
    plan = resolve(request, entry=(registry, variant.name, variant.model))
    _refuse_unlabelled(plan.recipe)
    return without_test(plan)


def _refuse_unlabelled(recipe: Recipe) -> None:
    if recipe.objective == "masked":
        raise InputError(
            'a sweep compares validation accuracy, and the objective "masked" has none; leave it out, or sweep the '
            "fine-tuning"
        )


def without_test(plan: Plan) -> Plan:
    """The plan with an empty test split, so that no trial can read test images."""
    data = msgspec.structs.replace(plan.record.data, test=0)
    none = plan.test.select(np.arange(0))
    return dataclasses.replace(plan, record=msgspec.structs.replace(plan.record, data=data), test=none)


class Reported(Listener):
    """Reports the validation top-1 of each epoch to Optuna, and ends the trial if Optuna prunes it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial

    def resumed(self, rows: Sequence[dict[str, Any]]) -> None:
        """Report the epochs that were finished earlier."""
        for row in rows:
            self.trial.report(row["val_top1"], row["epoch"])

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Report the epoch.

        Raises:
            optuna.TrialPruned: the trial is worse than the others.
        """
        self.trial.report(row["val_top1"], row["epoch"])
        if self.trial.should_prune():
            raise optuna.TrialPruned
