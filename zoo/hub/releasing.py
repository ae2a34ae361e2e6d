"""The public call `zoo.release`: all runs at hand as weights that anybody can have."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.base.checked_call import checked
from zoo.base.paths import REGISTRY
from zoo.base.reporter import Reporter
from zoo.base.structs import Precision
from zoo.base.tables import Table
from zoo.errors import InputError, ZooError
from zoo.hub.released import COLUMNS, Release
from zoo.runs.find import Run, find
from zoo.runs.which import RUNS, known

if TYPE_CHECKING:
    from zoo.hub.release_choice import Candidate, LeftOut, Target
    from zoo.hub.release_steps import Options, Outcome

COLLECTION = "hybrid-zoo"
"""Title of the collection."""


@checked
def release(
    *runs: str | os.PathLike[str] | Run,
    to: str,
    registry: str | Path | None = None,
    dataset: str | Sequence[str] = (),
    collection: str = COLLECTION,
    private: bool = False,
    licence: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    predictions: bool = True,
    precision: Precision | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> Release:
    """Release runs: package, publish, add to a collection, and write the entry of the weights into the registry file.

    For each model and dataset the best run is released: by the recorded top-1 on the most test images, of the clean
    protocol, unless one is named. What is done already is not done again, so that the same call goes on after an
    interruption. A run that fails does not stop the others.

    Args:
        runs: run folders, folders of runs, names and patterns below runs/, "last"; none: all runs below runs/.
        to: the user or organisation on the Hub; the repositories are OWNER/NAME-DATASET.
        registry: the registry file with the entries of the models; default: registry.toml in the working folder.
        dataset: NAME=SPEC, or several: runs that were trained on SPEC are weights for dataset NAME of the catalogue.
        collection: title of the collection, which is made if there is none; "": none.
        private: make repositories and a collection private if they are created.
        licence: of the weights, as the Hub names it; default: apache-2.0, and that of a package that is there already.
        data_dir, device, predictions, precision: as for `zoo.package`, for runs that have no package yet; a package of
            another number type than `precision` is made again.
        dry_run: send and write nothing, and give what would be done.
        reporter: receives a line for each run.
    Returns:
        `Release`: a row for each run; `failed` has a line for each that failed.
    Raises:
        InputError: no such run or registry file, two runs for the same weights, or a wrong name.
        SpecError: the registry file is wrong. HubLoginError: there is no token.

    Example:
        >>> zoo.release(to="me", dry_run=True)  # doctest: +SKIP
        >>> zoo.release("runs/best-*", to="me", dataset="cifar10=parquet:data/cifar10").failed  # doctest: +SKIP
        ()
    """
    from zoo.hub.publish import check_token
    from zoo.hub.release_choice import choose, target_of
    from zoo.hub.release_steps import Options

    target = target_of(to, Path(registry or REGISTRY), (dataset,) if isinstance(dataset, str) else dataset)
    where = {"data_dir": data_dir and str(data_dir), "device": device}
    packaging = {**where, "predictions": predictions, "precision": precision}
    options = Options(licence, packaging, private, dry_run)
    with closing(reporter or Reporter()) as told:
        found = _found(runs, told)
        chosen, left_out = choose(found, _named(runs), target)
        if not dry_run:
            check_token()
        rows = list(_each(chosen, target, options, told))
        rows += [_row_left_out(one) for one in left_out]
        title, problem = _collect(rows, chosen, collection, target, options)
    return Release(to, target.file, Table(rows, COLUMNS), title, problem, dry_run)


def _found(words: Sequence[str | os.PathLike[str] | Run], told: Reporter) -> list[Run]:
    """The runs that words mean, by name.

    Raises:
        InputError: a word means nothing, or there are no runs. RunError: a run that was named is damaged.
    """
    given = {word.folder.resolve(): word for word in words if isinstance(word, Run)}
    places = [str(word) for word in words if not isinstance(word, Run)]
    read, problems = find(places) if places or not words else ([], [])
    for problem in problems:
        told.warn(f"{problem}; left out")
    runs = given | {run.folder.resolve(): run for run in read}
    if not runs:
        raise InputError(f"there are no runs below {RUNS}/ to release: `zoo train MODEL` makes one")
    return sorted(runs.values(), key=lambda run: run.name)


def _named(words: Iterable[str | os.PathLike[str] | Run]) -> set[Path]:
    """The folders of the runs that were named, one by one."""
    folders = [word.folder if isinstance(word, Run) else known(os.fspath(word)) for word in words]
    return {folder.resolve() for folder in folders if folder is not None}


def _each(chosen: Sequence[Candidate], target: Target, options: Options, told: Reporter) -> Iterable[dict[str, Any]]:
    """Release one run after another; what fails is a row as well."""
    from zoo.hub.release_steps import Outcome, release_run

    for number, one in enumerate(chosen, 1):
        try:
            outcome = release_run(one, target, options)
        except ZooError as error:
            outcome = Outcome("failed", reason=str(error))
        if outcome.state == "left out" and one.named:
            outcome = outcome._replace(state="failed")
        told.say(f"{number} of {len(chosen)}: {one.name}: {_said(outcome)}")
        top1 = one.top1 if outcome.top1 is None else outcome.top1
        yield {"run": one.run.name, "name": one.name, "repo": one.repo, **outcome._asdict(), "top1": top1}


def _said(outcome: Outcome) -> str:
    """What was done, in a few words."""
    if outcome.reason:
        return f"{outcome.state}: {outcome.reason}"
    what = f" as {outcome.reference}" if outcome.reference else f": {', '.join(outcome.steps)}"
    return f"{outcome.state}{what}"


def _row_left_out(one: LeftOut) -> dict[str, Any]:
    """The row of a run that is not released; one that was named should have been."""
    state = "failed" if one.named else "left out"
    return {
        "run": one.run.name,
        "state": state,
        "steps": (),
        "files": 0,
        "bytes": 0,
        "reference": "",
        "reason": one.reason,
    }


def _collect(
    rows: Sequence[dict[str, Any]], chosen: Sequence[Candidate], title: str, target: Target, options: Options
) -> tuple[str, str]:
    """Complete the collection, or note in the rows what it lacks; its address or title, and what went wrong."""
    from zoo.hub.collection import complete, missing_in

    there = {row["repo"]: row for row in rows if row["state"] in ("released", "planned", "present")}
    known = [(one, there[one.repo]["top1"]) for one in chosen if one.repo in there]
    notes = {one.repo: f"{one.model} on {one.dataset}: top-1 {top1:.2%}" for one, top1 in known}
    if not title or not notes:
        return "", ""
    try:
        for repo in missing_in(target.owner, title, notes):
            row = there[repo]
            row["steps"] = (*row["steps"], "collection")
            row["state"] = {"present": "planned" if options.dry_run else "released"}.get(row["state"], row["state"])
        return title if options.dry_run else complete(target.owner, title, notes, private=options.private), ""
    except ZooError as error:
        return title, str(error)
