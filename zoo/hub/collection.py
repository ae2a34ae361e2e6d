"""A collection of packages on the Hub: found by its title, made if it is absent, and completed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from zoo.hub.session import hub_api, retrying, talking

if TYPE_CHECKING:
    from huggingface_hub import Collection

MOST_NOTE = 500
"""Characters that the Hub allows for the note of an item."""


def missing_in(owner: str, title: str, repos: Mapping[str, str]) -> dict[str, str]:
    """Those of some repositories that are not in a collection; all of them if there is no such collection.

    Args:
        repos: OWNER/NAME to a note.
    Raises:
        HubError: or a subclass: the Hub cannot be asked.
    """
    with talking(f"collections of {owner}"):
        found = _find(owner, title)
        return _missing(found, repos) if found is not None else dict(repos)


def complete(owner: str, title: str, repos: Mapping[str, str], *, private: bool) -> str:
    """Add those of some repositories that are missing to a collection, which is made if there is none.

    Args:
        repos: OWNER/NAME to the note that stands beside it. private: of a collection that is made.
    Returns:
        The address of the collection's page.
    Raises:
        HubError: or a subclass. What was added before stays: the same call adds the rest.
    """
    api = hub_api()
    with talking(f"collection {title!r} of {owner}"):
        found = _find(owner, title)
        if found is None:
            found = retrying(lambda: api.create_collection(title, namespace=owner, private=private, exists_ok=True))
        for repo, note in _missing(found, repos).items():
            _add(found.slug, repo, note)
        return str(found.url)


def _add(slug: str, repo: str, note: str) -> None:
    api = hub_api()
    retrying(lambda: api.add_collection_item(slug, repo, "model", note=note[:MOST_NOTE] or None, exists_ok=True))


def _find(owner: str, title: str) -> Collection | None:
    """The collection of this title with all of its items: the list of collections names only the first of them."""
    api = hub_api()
    listed = retrying(lambda: list(api.list_collections(owner=owner)))
    slug = next((one.slug for one in listed if one.title == title), None)
    return None if slug is None else retrying(lambda: api.get_collection(slug))


def _missing(found: Collection, repos: Mapping[str, str]) -> dict[str, str]:
    present = {item.item_id for item in found.items if item.item_type == "model"}
    return {repo: note for repo, note in repos.items() if repo not in present}
