"""The public calls of this room: `zoo.runs`, `zoo.plot`, and what they give: `zoo.Run`."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, overload

from zoo.base.checked_call import checked
from zoo.base.door import call
from zoo.base.drawing import Picture
from zoo.base.headline import test_score
from zoo.base.paths import local_path
from zoo.base.reporter import Reporter
from zoo.base.tables import Table
from zoo.base.text import printable
from zoo.errors import InputError
from zoo.runs import find as found
from zoo.runs.choose import Order, chosen
from zoo.runs.which import HUB, is_ensemble, is_exported_file, known, reference_of, say_if_others, unknown

if TYPE_CHECKING:
    from zoo.evaluate.classifier import Classifier
    from zoo.evaluate.measurement import Evaluation
    from zoo.predict.prediction import Prediction

LEAST_DPI, MOST_DPI = 20, 1200


@dataclass(frozen=True, repr=False, eq=False)
class Run(found.Run):
    """One run: its folder, read when this object was made.

    It does not follow what happens to the folder later: `run.reread()` gives its present state. Each method is the call
    of the same name in `zoo`, with this run as its first argument.

    Attributes:
        name: its path below the folder that it was found in. folder: where it is.
        record: what decided it, as in `run.toml`: model, tree, recipe, data, seed, device, versions.
        rows: of `metrics.jsonl`, one for each epoch. result: of `result.json`; None if the run is not finished.
        state: "finished", "stopped", or "training" while a living process trains it.
        modified: when it was last written to, in seconds since 1970.

    Example:
        >>> run = zoo.train("hybrid-alt-1", dataset="digits", epochs=1)  # doctest: +SKIP
        >>> run.top1, run.metrics.column("val_top1")  # doctest: +SKIP
    """

    @classmethod
    def open(cls, run: RunLike) -> Run:
        """Read a run: its folder, its name below runs/, "last", or hf://OWNER/NAME, which is fetched.

        Raises:
            InputError: there is no such run. RunError: damaged.
        """
        return run if isinstance(run, Run) else open_run(_fetched(word_of(run)))

    # ---- what is recorded ----------------------------------------------------------------

    @property
    def metrics(self) -> Table:
        """The epochs, a row each: losses, accuracies (0..1), learning rate, seconds, images per second."""
        return Table(self.rows)

    @property
    def top1(self) -> float | None:
        """Accuracy on the test images, 0..1; None if the run is not finished, or images have several labels."""
        value = found.number(self.result, "test.top1")
        return None if value is None else float(value)

    @property
    def row(self) -> dict[str, Any]:
        """The run as one row: what `zoo runs --json` prints of it."""
        return found.row_of(self)

    @property
    def is_finished(self) -> bool:
        """Whether it has its result and its weights: there is nothing left to train."""
        from zoo.runs.folder import is_finished

        return is_finished(self.folder)

    @property
    def has_weights(self) -> bool:
        """Whether weights are saved: those of the selected epoch, or of the best so far."""
        from zoo.runs.record import WEIGHTS

        return (self.folder / WEIGHTS).is_file()

    @property
    def size(self) -> int:
        """Bytes of all files in the folder."""
        from zoo.runs.remove import size

        return size(self.folder)

    def reread(self) -> Run:
        """The run as its folder is now.

        Raises:
            RunError: the folder is no run any more, or damaged.
        """
        return as_run(found.read(self.folder, self.name))

    # ---- what can be done with it --------------------------------------------------------

    def classifier(self, device: str | None = None) -> Classifier:
        """The trained model, with what its images need; as `zoo.load`."""
        model: Classifier = call("zoo.evaluate.api:load")(self, device=device)
        return model

    def evaluate(self, **options: Any) -> Evaluation:
        """Measure it; the options are those of `zoo.evaluate`."""
        evaluation: Evaluation = call("zoo.evaluate.api:evaluate")(self, **options)
        return evaluation

    def predict(self, images: Any, *, top: int = 3, **options: Any) -> list[Prediction]:
        """Classify images; the options are those of `zoo.predict`."""
        predictions: list[Prediction] = call("zoo.predict.api:predict")(self, images, top=top, **options)
        return predictions

    def resume(self, *, epochs: int | None = None, **options: Any) -> Run:
        """Go on with it, or extend it to more epochs; the options are those of `zoo.resume`."""
        run: Run = call("zoo.train.api:resume")(self, epochs=epochs, **options)
        return run

    def export(self, output: str | Path | None = None, **options: Any) -> Any:
        """Write its model as ONNX, torch.export or a plugin's format; the options are those of `zoo.export`."""
        return call("zoo.export.api:export")(self, output, **options)

    def package(self, output: str | Path | None = None, **options: Any) -> Path:
        """Make a package of it; the options are those of `zoo.package`."""
        folder: Path = call("zoo.hub.api:package")(self, output, **options)
        return folder

    def publish(self, repo: str, **options: Any) -> Any:
        """Publish it to the Hub as OWNER/NAME; the options are those of `zoo.publish`."""
        return call("zoo.hub.api:publish")(self, repo, **options)

    def push_to_hub(self, repo: str, **options: Any) -> Any:
        """As `publish`: the name that libraries of the Hub use for it."""
        return self.publish(repo, **options)

    def plot(self, output: str | Path | None = None, **options: Any) -> Picture:
        """Its curves as a picture; the options are those of `zoo.plot`."""
        return plot(self, output=output, **options)

    def remove(self) -> None:
        """Delete its folder.

        Raises:
            RunError: it is being trained, or the folder holds more than the run. WriteError: the system refuses.
        """
        from zoo.runs.remove import remove

        remove(self.folder)

    # ---- how it is shown -----------------------------------------------------------------

    def __repr__(self) -> str:
        """One line: name, state, model, dataset and accuracy."""
        record = self.record
        epochs = "made of other runs" if record.soup else f"epoch {len(self.rows)} of {record.settings.epochs}"
        what = f"{record.model} on {record.data.spec}"
        return printable(f"Run({str(self.folder)!r}: {what}, {epochs}, {self.state}{test_score(self.result)})")

    def _repr_html_(self) -> str:
        """The line, and the curves."""
        curves = self.plot()._repr_html_() if self.rows else ""
        return f"<p>{html.escape(repr(self))}</p>{curves}"


RunLike: TypeAlias = str | os.PathLike[str] | Run
"""What every call takes for a run: its folder, its name below runs/, "last", hf://OWNER/NAME[@REVISION], or a `Run`."""


def is_run_like(run: object) -> TypeGuard[RunLike]:
    """Whether it may stand for a run; what `zoo.pull` gives stands for its folder."""
    return isinstance(run, str | os.PathLike | Run)


def word_or_path(run: RunLike) -> str | Path:
    """The word that it is, or the path of its folder.

    Raises:
        InputError: it cannot stand for a run.
    """
    if isinstance(run, str):
        return run
    if isinstance(run, os.PathLike):
        return Path(run)
    if not isinstance(run, Run):
        raise InputError(f"{type(run).__name__} is no run: give its folder, its name, or a zoo.Run")
    return run.folder


def as_run(run: found.Run) -> Run:
    """A run that was found, with the methods of `Run`."""
    if isinstance(run, Run):
        return run
    return Run(run.name, run.folder, run.record, run.rows, run.result, run.state, run.modified)


def word_of(run: RunLike, *, weights: bool = False) -> str:
    """The path of a run's folder or of a package, or hf://OWNER/NAME for a package on the Hub.

    A run on this machine comes first, then weights of the catalogue (NAME@DATASET); a word OWNER/NAME that means none,
    and cannot be a path, is a repository.

    Args:
        weights: "timm/NAME" and the like, ensembles (RUN+RUN) and exported files (FILE.onnx) are taken as well, and
            stay as they are.
    Raises:
        InputError: there is no such run; says where it was looked for, and what is like it.
    """
    word = str(word_or_path(run))
    if isinstance(run, Run) or (isinstance(run, str) and is_ensemble(word, allowed=weights)) or word.startswith(HUB):
        return word
    if weights and is_exported_file(word):
        return word
    if (reference := reference_of(word) if isinstance(run, str) else known(word)) is not None:
        say_if_others(word)
        return str(reference)
    if isinstance(run, str) and "/" in word:
        from zoo.hub.download import elsewhere

        if meaning := elsewhere(word, weights=weights):
            return meaning
    raise unknown(word)


def open_run(folder: str | Path, name: str = "") -> Run:
    """Read one run folder.

    Raises:
        RunError: no run folder, or a damaged one.
    """
    return as_run(found.read(Path(folder), name))


def found_runs(words: Iterable[RunLike], reporter: Reporter) -> list[Run]:
    """The runs that words mean: folders, folders of runs, names and patterns below runs/, "last", hf:// ones fetched.

    Each is there once, and no two have the same name.

    Args:
        words: none: all runs below runs/. reporter: receives a warning for each folder that cannot be read.
    Raises:
        InputError: a word means nothing. RunError: a run that was named is damaged. HubError: it cannot be fetched.
    """
    given = list(words)
    objects = [word for word in given if isinstance(word, Run)]
    places = [_fetched(str(word_or_path(word))) for word in given if not isinstance(word, Run)]
    runs, problems = found.find(places) if places or not given else ([], [])
    for problem in problems:
        reporter.warn(f"{problem}; left out")
    return _distinct([*objects, *map(as_run, runs)]) if objects else [as_run(run) for run in runs]


def _distinct(runs: Iterable[Run]) -> list[Run]:
    """Each folder once; those of one name are told apart by their whole path."""
    once: dict[Path, Run] = {}
    for run in runs:
        once.setdefault(run.folder.resolve(), run)
    names = Counter(run.name for run in once.values())
    return [run if names[run.name] == 1 else replace(run, name=run.folder.as_posix()) for run in once.values()]


def _fetched(word: str) -> str:
    """The folder of a package of the Hub, with its curves, or of NAME@DATASET; the import of the Hub brings torch."""
    word = (reference_of(word) or word) if "@" in word else word
    if not word.startswith(HUB):
        return word
    from zoo.hub.download import fetch
    from zoo.hub.ref import parse_ref

    return str(fetch(parse_ref(word), everything=True).folder)


class Runs(Sequence[Run]):
    """Some runs, in an order.

    Attributes:
        of: how many there were to choose from.
    """

    __slots__ = ("_runs", "of")

    def __init__(self, runs: Iterable[Run], of: int | None = None) -> None:
        self._runs = tuple(runs)
        self.of = len(self._runs) if of is None else of

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Run | Runs:
        """One run, or some."""
        return Runs(self._runs[index]) if isinstance(index, slice) else self._runs[index]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._runs)

    @property
    def table(self) -> Table:
        """A row for each run: what `zoo runs --json` prints."""
        return Table([run.row for run in self])

    def compare(self, *, everything: bool = False) -> Table:
        """In what the runs differ: recipe, model, data and results.

        Args:
            everything: also what is the same.
        Returns:
            Rows of group, key, and a column for each run, by its name.
        Raises:
            InputError: there are fewer than two runs.
        """
        from zoo.runs.compare import differences

        if len(self) < 2:
            raise InputError(f"--compare needs at least two runs, {len(self)} given: zoo runs --compare A B")
        names = [run.name for run in self]
        rows = differences(self, everything=everything)
        return Table(
            [{"group": group, "key": key, **dict(zip(names, values, strict=True))} for group, key, values in rows],
            ("group", "key", *names),
        )

    def plot(self, output: str | Path | None = None, **options: Any) -> Picture:
        """The curves of all of them in one picture; the options are those of `zoo.plot`."""
        return plot(*self, output=output, **options)

    def refuse_unremovable(self) -> None:
        """Check that all of them can be deleted, before the first is.

        Raises:
            RunError: one is being trained, or its folder holds more than the run.
        """
        from zoo.runs.remove import check_removable

        for run in self:
            check_removable(run.folder)

    def __repr__(self) -> str:
        """The runs as a table."""
        return repr(self._shown())

    def _repr_html_(self) -> str:
        """The runs as a table."""
        return self._shown()._repr_html_()

    def _shown(self) -> Table:
        rows = [run.row for run in self]
        return Table(rows, found.shown_columns(rows))


@checked
def runs(
    *words: RunLike,
    model: str = "",
    dataset: str = "",
    state: Literal["finished", "stopped", "training"] | None = None,
    best: bool = False,
    sort: Order | Literal["given"] = "name",
    reporter: Reporter | None = None,
) -> Runs:
    """Find runs.

    Args:
        words: run folders, folders that hold runs, names and patterns below runs/, "last", hf://OWNER/NAME (which is
            fetched); none: all runs below runs/.
        model, dataset: only runs of models, or on datasets, that match (a glob, or part of the name).
        state: only runs in this state. best: of each model, dataset and protocol, the best on most images.
        sort: key of their order: top-1 and dates from the largest, other numbers from the smallest, text from a to z;
            "given": in the order of the words.
        reporter: receives a warning for each folder that cannot be read.
    Returns:
        The runs; `.table` has them as rows, `.compare()` tells in what they differ.
    Raises:
        InputError: a word means nothing. UnknownNameError: a model or dataset that no run has. RunError: a run that was
        named is damaged. HubError: a package cannot be fetched.

    Example:
        >>> zoo.runs(dataset="cifar10", best=True, sort="top1").table  # doctest: +SKIP
    """
    found_ = found_runs(words, reporter or Reporter())
    left = chosen(
        found_,
        [_fetched(str(word_or_path(word))) for word in words],
        model=model,
        dataset=dataset,
        state=state,
        best=best,
        sort=sort,
    )
    return Runs(map(as_run, left), len(found_))


@checked
def plot(
    *runs: RunLike,
    output: str | Path | None = None,
    what: str | Sequence[str] = "both",
    over: Literal["epoch", "minutes"] = "epoch",
    log: bool = False,
    kind: Literal["png", "svg", "pdf"] | None = None,
    dpi: int = 150,
    reporter: Reporter | None = None,
) -> Picture:
    """Draw the curves of runs into one picture: training dashed, validation (or test) solid.

    Args:
        runs: at least one; also patterns and folders of runs.
        output: the file to write, .png, .svg or .pdf; None: nothing is written.
        what: panels: some of "loss", "top1", "lr"; "both" (loss and top1) or "all".
        over: the x axis: epochs, or minutes of training. log: a logarithmic loss axis.
        kind: the format; default: that of `output`, else "svg". dpi: of a PNG, in dots per inch: 20 to 1200.
        reporter: receives a warning for each folder that cannot be read, and each run that has no curves.
    Raises:
        InputError: a wrong panel, format or resolution, no such run, or none of them has finished an epoch.
        WriteError: the file cannot be written.

    Example:
        >>> zoo.plot("last", output="curves.svg", what="loss")  # doctest: +SKIP
    """
    from zoo.runs.curves import FORMATS, draw, panels, with_curves

    if not runs:
        raise InputError("nothing to plot: give at least one run")
    shown = panels(what if isinstance(what, str) else ",".join(what))
    place = None if output is None else local_path(output)
    form = kind or (place.suffix.lower().removeprefix(".") if place is not None else "svg")
    for name, word, allowed in (("kind", kind or "svg", FORMATS), ("over", over, ("epoch", "minutes"))):
        if word not in allowed:
            raise InputError(f"{name} {word!r}: allowed: {', '.join(allowed)}")
    if not LEAST_DPI <= dpi <= MOST_DPI:
        raise InputError(f"dpi {dpi}: allowed: {LEAST_DPI} to {MOST_DPI:,}")
    if form not in FORMATS:
        raise InputError(f"--output {str(output)!r}: give a name that ends in .{', .'.join(FORMATS)}")
    found = with_curves(found_runs(runs, told := reporter or Reporter()), told)
    picture = Picture(draw(found, what=shown, x=over, log=log, kind=form, dpi=dpi), form, place, alt="curves")
    if place is not None:
        picture.save(place)
    return picture
