"""What `zoo.probe` gives: a row for each model and method; nothing here imports torch."""

from __future__ import annotations

import copy
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from zoo.base.tables import Table
from zoo.base.text import printable
from zoo.errors import InputError

Method = Literal["linear", "knn"]
METHODS: tuple[Method, ...] = get_args(Method)

COLUMNS = (
    *("model", "method", "shots", "validation_top1", "top1", "interval", "spread", "balanced_accuracy"),
    *("chosen", "correct", "count", "train_images", "draws", "draws_top1", "feature", "width"),
)

MOST_DRAWS = 1000


@dataclass(frozen=True, repr=False, eq=False)
class Probe:
    """How well simple classifiers do on the features of models.

    Attributes:
        document: everything as plain data: `dataset`, `classes`, `counts` (images of each split), `seed`, `sorted_by`,
            `environment` and `rows`.
    """

    document: Mapping[str, Any]

    @property
    def rows(self) -> Table:
        """A row for each model and method; the best on the validation images first, all training images before few.

        `top1` (of the test images, 0..1) with its 95% `interval`; with `shots` images of each class the mean over
        `draws` of them, with their standard deviation `spread` instead. `chosen` is the C or the k that did best on the
        validation images, of each draw its own.
        """
        return Table(self.document["rows"], COLUMNS)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data: what `zoo probe --json` prints."""
        return copy.deepcopy(dict(self.document))

    def __repr__(self) -> str:
        """What was probed on, and the rows."""
        return f"{printable(self._told)}\n{self.rows!r}"

    def _repr_html_(self) -> str:
        """What was probed on, and the rows."""
        return f"<p>{html.escape(self._told)}</p>{self.rows._repr_html_()}"

    @property
    def _told(self) -> str:
        return f"Probe on {self.document['dataset']}, by {self.document['sorted_by']}"


def methods_of(given: str | Sequence[str]) -> tuple[Method, ...]:
    """The methods that are asked for: "linear,knn", or a sequence of names.

    Raises:
        InputError: there is no such method, or none was named.
    """
    words = [word.strip() for word in (given.split(",") if isinstance(given, str) else given)]
    wrong = [word for word in words if word not in METHODS]
    if wrong or not words:
        raise InputError(f"--method {','.join(words)!r}: allowed: {', '.join(METHODS)}, with commas between")
    return tuple(method for method in METHODS if method in words)


def shots_of(given: str | Sequence[int]) -> tuple[int, ...]:
    """Numbers of training images of each class: "1,5,10", or a sequence of numbers; () for none.

    Raises:
        InputError: something is no number above 0.
    """
    words = given.split(",") if isinstance(given, str) and given else [str(number) for number in given]
    wrong = [word for word in words if not word.strip().isdecimal() or int(word) < 1]
    if wrong:
        raise InputError(f"--shots {','.join(words)!r}: give numbers of images above 0, with commas between")
    return tuple(sorted({int(word) for word in words}))
