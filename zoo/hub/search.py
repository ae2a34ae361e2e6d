"""Searching for packages on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from zoo.hub.ref import parse_ref
from zoo.hub.session import LIBRARY, hub_api, retrying, talking


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


def search(query: str = "", *, tags: Sequence[str] = (), limit: int = 50) -> list[Hit]:
    """Repositories of this library whose name contains `query`, by number of downloads.

    Args:
        tags: a repository must have all of them, for example "cifar10" or "hybrid".
    Raises:
        HubError: the search failed.
    """
    api = hub_api()
    with talking("the Hub"):
        infos = retrying(
            lambda: list(
                api.list_models(
                    filter=[LIBRARY, *tags], search=query or None, sort="downloads", limit=limit, cardData=True
                )
            )
        )
    return [hit for info in infos if (hit := _hit(info)) is not None]


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
