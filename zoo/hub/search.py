"""Searching for packages on the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from zoo.base.tables import Table
from zoo.errors import InputError
from zoo.hub.ref import parse_ref
from zoo.hub.session import LIBRARY, hub_api, retrying, talking

MOST = 1000
"""Packages that one search can list."""


class Hit(NamedTuple):
    """One repository: `results` are (dataset, metric, value) as its card states them, unchecked."""

    repo: str
    downloads: int
    tags: tuple[str, ...]
    results: tuple[tuple[str, str, float], ...]

    @property
    def top1(self) -> tuple[str, float] | None:
        """The best top-1 and its dataset, as the card states them."""
        rows = [(d, v) for d, metric, v in self.results if metric == "top-1 accuracy"]
        return max(rows, key=lambda row: row[1], default=None)

    @property
    def row(self) -> dict[str, Any]:
        """As `zoo search --json` prints it."""
        results = [{"dataset": d, "metric": m, "value": v} for d, m, v in self.results]
        return {"repo": self.repo, "downloads": self.downloads, "tags": list(self.tags), "results": results}


class Hits(Table):
    """Packages on the Hub: a table whose rows are what `zoo search --json` prints.

    Shown, it has the best top-1 of each package instead of all its results.
    """

    __slots__ = ("_hits",)

    def __init__(self, hits: Iterable[Hit]) -> None:
        """Make the table of these packages, in their order."""
        kept = tuple(hits)
        super().__init__([hit.row for hit in kept], ("repo", "downloads", "tags", "results"))
        object.__setattr__(self, "_hits", kept)

    @property
    def hits(self) -> tuple[Hit, ...]:
        """The packages as objects, a `Hit` for each row."""
        hits: tuple[Hit, ...] = self._hits  # type: ignore[attr-defined]
        return hits

    @property
    def short(self) -> Table:
        """The packages with their best top-1, as people read them."""
        rows = []
        for hit in self.hits:
            dataset, top1 = hit.top1 or (None, None)
            rows.append(
                {"repo": hit.repo, "downloads": hit.downloads, "top1": top1, "dataset": dataset, "tags": hit.tags}
            )
        return Table(rows, ("repo", "downloads", "top1", "dataset", "tags"))

    def __repr__(self) -> str:
        """The short table."""
        return repr(self.short)

    def _repr_html_(self) -> str:
        """The short table."""
        return self.short._repr_html_()


def search(query: str = "", *, tags: Sequence[str] = (), limit: int = 50, dataset: str = "") -> Hits:
    """Repositories of this library whose name contains `query`, by number of downloads.

    Args:
        tags: a repository must have all of them, for example "cifar10" or "hybrid".
        limit: the most repositories that are asked for, 1 to 1000.
        dataset: only packages with a result on it.
    Raises:
        InputError: a limit outside of its range. HubError: the search failed.
    """
    if not 1 <= limit <= MOST:
        raise InputError(f"limit {limit}: must be 1 to {MOST}")
    api = hub_api()
    with talking("the Hub"):
        infos = retrying(
            lambda: list(
                api.list_models(
                    filter=[LIBRARY, *tags], search=query or None, sort="downloads", limit=limit, cardData=True
                )
            )
        )
    hits = (hit for info in infos if (hit := _hit(info)) is not None)
    return Hits(hit for hit in hits if dataset in ("", *(d for d, _, _ in hit.results)))


def _hit(info: Any) -> Hit | None:
    try:
        repo = parse_ref(str(info.id)).repo
    except ValueError:
        return None  # not a name that a repository can have
    card = info.card_data
    results = []
    for row in getattr(card, "eval_results", None) or ():
        value = row.metric_value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
            results.append((str(row.dataset_name)[:80], str(row.metric_name or row.metric_type)[:80], float(value)))
    tags = tuple(str(tag)[:80] for tag in info.tags or () if tag)
    return Hit(repo, int(info.downloads or 0), tags, tuple(results))
