"""The public call `zoo.probe`, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.base.checked_call import checked
from zoo.base.reporter import Reporter
from zoo.errors import InputError
from zoo.predict.api import check_within, classifier_of
from zoo.runs.api import RunLike, is_run_like, word_of
from zoo.runs.which import is_ensemble
from zoo.studies.probe.probed import METHODS, MOST_DRAWS, Probe, methods_of, shots_of

if TYPE_CHECKING:
    from zoo.evaluate.classifier import Classifier

__all__ = ["Probe", "probe"]


@checked
def probe(
    *runs: RunLike | Classifier,
    on: str | None = None,
    method: str | Sequence[str] = METHODS,
    shots: str | Sequence[int] = (),
    draws: int = 5,
    layer: str | None = None,
    seed: int = 0,
    batch_size: int = 64,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Probe:
    """Compare the features of models on one dataset: by a linear classifier and by nearest neighbours.

    The training images fit the classifier, the validation images choose its C (linear) or k (knn), and the test images
    are read once, when that is chosen: the dataset is divided as for a training. The features are kept in the cache.

    Args:
        runs: as for `zoo.predict`, one or more.
        on: the dataset, a SPEC as for `zoo.train`, whose classes need not be the runs'; None: the runs' own, which has
            to be the same one.
        method: "linear" (logistic regression on standardised features) and "knn" (cosine similarity), or one of them.
        shots: also probe with so many training images of each class: (1, 5, 10), or "1,5,10".
        draws: how often these images are drawn, 1 to 1000; the same ones for every run.
        layer: as for `zoo.embed`. seed: of the draws.
        batch_size: images whose features are computed at once, 1 to 4096.
        data_dir: the folder of downloaded datasets.
        device: where features are computed: "cpu", "cuda", "cuda:N", "mps" or "auto".
        reporter: receives messages and the progress.
    Returns:
        The leaderboard, sorted by validation top-1.
    Raises:
        InputError: no run, a wrong option, images with several labels, or a class with fewer images than `shots`. Else
            as `zoo.embed`.

    Example:
        >>> found = zoo.probe("hybrid-alt-1@digits", "last", on="digits", shots=(1, 5))  # doctest: +SKIP
        >>> found.rows[0]["model"], found.rows[0]["top1"]  # doctest: +SKIP
    """
    if not runs:
        raise InputError("no models given: name runs, packages or weights, one or more")
    methods, few = methods_of(method), shots_of(shots)
    check_within("draws", draws, 1, MOST_DRAWS)
    check_within("batch_size", batch_size, 1, 4096)
    check_within("seed", seed, 0)
    for run in runs:
        if is_run_like(run):
            is_ensemble(word_of(run, weights=True), allowed=False)  # said before torch takes its seconds
    told = reporter or Reporter()
    from zoo.catalogue.registry import load_registry
    from zoo.studies.probe.probing import Asked, leaderboard

    asked = Asked(on, methods, few, draws, seed, layer, batch_size, None if data_dir is None else str(data_dir))
    try:
        models = [(_called(run), partial(classifier_of, run, device, features=True)) for run in runs]
        return Probe(leaderboard(models, asked, load_registry(), told))
    finally:
        told.close()


def _called(run: RunLike | Classifier) -> str:
    """What a model is called in the table."""
    if isinstance(run, str):
        return run
    return word_of(run, weights=True) if is_run_like(run) else str(getattr(run, "name", run))
