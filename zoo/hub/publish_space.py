"""Publishing a Space: its files in one commit on top of what is there, unless they are there already."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from zoo.base.files import sha256_of
from zoo.base.tables import Table
from zoo.errors import HubConflictError, HubConnectionError, HubError, ZooError
from zoo.hub.download import digest_of
from zoo.hub.hub_hash import Digest, matches
from zoo.hub.publication import Planned, Published
from zoo.hub.ref import Ref
from zoo.hub.session import Session, hub_api, retrying, status_of, talking, within
from zoo.hub.static_space import Space
from zoo.hub.sums import SUMS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

KIND: Final = "space"
MAX_ATTEMPTS: Final = 3
NO_COMMIT: Final = (400, 401, 403, 404, 413, 422)
"""Responses that say that the commit was not made; after any other, we look at the Space."""


class Head(NamedTuple):
    """The newest commit of a Space, and what the Hub states about its files."""

    commit: str
    files: dict[str, Digest]


def shown_with(planned: Planned, space: Space | None) -> Planned:
    """What would be sent, and the Space beside it."""
    if space is None:
        return planned
    rows = [{"name": name, "bytes": size} for name, size in space.files]
    return replace(planned, space=space.repo, space_files=Table(rows, ("name", "bytes")))


def published_with(
    published: Published, space: Space | None, *, private: bool = False, replace_edits: bool = False
) -> Published:
    """Send a Space after the package that it shows.

    Raises:
        HubError: or a subclass; says that the package is published.
    """
    if space is None:
        return published
    try:
        url = send_space(space, private=private, replace_edits=replace_edits)
    except HubError as error:
        raise type(error)(
            f"{error}; {published.reference} is published; publish again for the Space (no file is sent twice)"
        ) from error
    return replace(published, space=url)


def send_space(space: Space, *, private: bool = False, replace_edits: bool = False) -> str:
    """Bring a Space to the Hub; it is created if it is absent.

    Args:
        replace_edits: replace what somebody else has put there.
    Returns:
        The address of its page.
    Raises:
        HubError: or one of its subclasses. A Space that was created for this is deleted again, as far as possible.
    """
    api = hub_api()
    with talking(f"the Space {space.repo}") as session:
        head = _head(api, space)
        created = head is None
        try:
            if head is None:
                make = {"repo_type": KIND, "space_sdk": "static", "private": private, "exist_ok": True}
                retrying(lambda: api.create_repo(space.repo, **make))
                head = _head(api, space)
            elif not replace_edits:
                _refuse_edits(api, space, head, session)
            if head is None:
                raise HubError(f"the Space {space.repo}: was created, but cannot be found; try again later")
            if not _same(space, head):
                _commit(api, space, head, session)
        except BaseException as error:  # a signal as well
            if created and not isinstance(error, HubConflictError):
                _remove(api, space)
            raise
    return f"{api.endpoint}/spaces/{space.repo}"


def _head(api: HfApi, space: Space) -> Head | None:
    """The newest commit; None where there is no such Space, as far as the Hub says."""
    from huggingface_hub.errors import GatedRepoError

    try:
        info = retrying(lambda: api.space_info(space.repo, files_metadata=True, timeout=10))
    except Exception as error:
        # The Hub answers 401 for a missing repository and for a refused token; creating it tells which.
        if status_of(error) not in (401, 404) or isinstance(error, GatedRepoError):
            raise
        return None
    siblings = info.siblings or []
    return Head(
        str(info.sha), {s.rfilename: digest_of(Ref(space.repo), s) for s in siblings if s.rfilename in space.names}
    )


def _same(space: Space, head: Head) -> bool:
    """Whether a commit has exactly the Space's files."""
    return all(name in head.files and matches(space.folder / name, head.files[name]) for name in space.names)


def _refuse_edits(api: HfApi, space: Space, head: Head, session: Session) -> None:
    """Refuse to replace what was not put there by us.

    Raises:
        HubConflictError: names the files, or says that the Space is another one.
    """
    if SUMS not in head.files:
        # Of a Space that was created and not filled there is the Hub's own first commit.
        if len(retrying(lambda: api.list_repo_commits(space.repo, repo_type=KIND))) > 1:
            raise HubConflictError(
                f"{space.repo}: there is a Space of this name that zoo has not made; "
                "choose another name (--space OWNER/SPACE), or replace it (--replace-edits)"
            )
        return
    listed = _listed(_fetched(api, space, SUMS, head, session))
    replaced = [name for name in head.files if name != SUMS and not matches(space.folder / name, head.files[name])]
    theirs = [name for name in replaced if _sha256_of(api, space, name, head, session) != listed.get(name)]
    if theirs:
        raise HubConflictError(
            f"the Space {space.repo}: somebody edited {' and '.join(theirs)} there, and publishing would replace the "
            "edit; replace it (--replace-edits)"
        )


def _sha256_of(api: HfApi, space: Space, name: str, head: Head, session: Session) -> str:
    return head.files[name].sha256 or sha256_of(_fetched(api, space, name, head, session))


def _fetched(api: HfApi, space: Space, name: str, head: Head, session: Session) -> Path:
    call = lambda: api.hf_hub_download(space.repo, name, repo_type=KIND, revision=head.commit)  # noqa: E731
    return Path(within(session, lambda: retrying(call)))


def _listed(path: Path) -> dict[str, str]:
    """The hashes that a Space's list of hashes names; of a damaged one those that can be read."""
    text = path.read_text("utf-8", errors="replace")
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)}


def _commit(api: HfApi, space: Space, head: Head, session: Session) -> None:
    """Commit on top of `head`; if the response is lost, look at the Space to see whether the commit was made."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        failure: Exception | None = None
        try:
            within(session, lambda: _create_commit(api, space, head))
        except Exception as error:
            final = isinstance(error, ZooError) and not isinstance(error, HubConnectionError)
            if final or status_of(error) in NO_COMMIT:
                raise
            failure = error
            session.progress()  # the failed request must not end the next one
        now = _head(api, space)
        if now is not None and _same(space, now):
            return
        if failure is None:
            raise HubError(f"the Space {space.repo}: its files are not the ones that were sent; do not use it")
        if now is not None and now.commit != head.commit:
            raise HubConflictError(
                f"the Space {space.repo}: somebody else made commit {now.commit[:12]} in the meantime; "
                "look at it, then publish again"
            ) from failure
        if attempt == MAX_ATTEMPTS or status_of(failure) in (409, 412):
            raise failure


def _create_commit(api: HfApi, space: Space, head: Head) -> None:
    from huggingface_hub import CommitOperationAdd

    adding = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(space.folder / name)) for name in space.names]
    api.create_commit(space.repo, adding, commit_message=space.title, repo_type=KIND, parent_commit=head.commit)


def _remove(api: HfApi, space: Space) -> None:
    """Delete the Space that was created for a commit that failed; the user sees the error of the commit."""
    with contextlib.suppress(Exception):
        if len(retrying(lambda: api.list_repo_commits(space.repo, repo_type=KIND))) == 1:
            retrying(lambda: api.delete_repo(space.repo, repo_type=KIND, missing_ok=True))
