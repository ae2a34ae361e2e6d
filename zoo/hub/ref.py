"""References to packages on the Hub: `hf://OWNER/NAME@REVISION`."""

from __future__ import annotations

import re
from typing import NamedTuple

from zoo.errors import InputError

SCHEME = "hf://"
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_])?")
COMMIT = re.compile(r"[0-9a-f]{40}")


class Ref(NamedTuple):
    """A repository and, if given, one of its revisions (a branch, a tag or a commit)."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        """The reference as users write it."""
        return f"{SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_ref(text: str) -> bool:
    """Whether a RUN is a reference to the Hub, and not a folder."""
    return text.startswith(SCHEME)


def with_revision(text: str, revision: str | None, kind: str = "branch") -> Ref:
    """A reference, and the revision that was given beside it.

    Args:
        text: as for `parse_ref`. revision: None (or ""): the one in the text, if any. kind: what messages call it.
    Raises:
        InputError: as `parse_ref`, or the revision was given twice.
    """
    ref = parse_ref(text)
    if not revision:
        return ref
    if ref.revision:
        raise InputError(f"{text}: already names a {kind}; leave out --revision")
    return parse_ref(f"{ref.repo}@{revision}")


def parse_ref(text: str) -> Ref:
    """Read `OWNER/NAME` or `OWNER/NAME@REVISION`, with or without `hf://`.

    Raises:
        InputError: anything else.
    """
    repo, mark, revision = text.removeprefix(SCHEME).partition("@")
    owner, slash, name = repo.partition("/")
    is_valid = slash and all(NAME.fullmatch(part) and ".." not in part and "--" not in part for part in (owner, name))
    if not is_valid:
        raise InputError(f"{text[:120]!r}: expected OWNER/NAME or OWNER/NAME@REVISION, as on the Hub")
    if mark and (not REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise InputError(f"{text[:120]!r}: {revision[:80]!r} is not the name of a branch, tag or commit")
    return Ref(repo, revision or None)
