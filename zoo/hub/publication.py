"""What publishing gives: what was sent to the Hub, or what would be."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any

from zoo.base.tables import Table
from zoo.base.text import plural
from zoo.hub.ref import Ref


@dataclass(frozen=True, repr=False)
class Published:
    """What was published, in one commit.

    Attributes:
        repo: OWNER/NAME. commit: its 40 digits. tag: the result's; "" for a pull request.
        url: the page of the commit or of the pull request. space: the page of the Space; "" where there is none.
    """

    repo: str
    commit: str
    tag: str
    url: str
    space: str = ""

    @property
    def reference(self) -> str:
        """`hf://OWNER/NAME@COMMIT`, which always names exactly these files."""
        return str(Ref(self.repo, self.commit))

    @property
    def tagged(self) -> str:
        """`hf://OWNER/NAME@TAG`; "" for a pull request, which has no tag."""
        return str(Ref(self.repo, self.tag)) if self.tag else ""

    def as_dict(self) -> dict[str, Any]:
        """As `zoo publish --json` prints it."""
        table = {"repo": self.repo, "commit": self.commit, "tag": self.tag, "url": self.url}
        return table | ({"space": self.space} if self.space else {})

    def __repr__(self) -> str:
        """Where it is."""
        return f"Published({self.tagged or self.url})"

    def _repr_html_(self) -> str:
        """Where it is, as a link; the address is the Hub's word, and only an address of the web is followed."""
        shown = html.escape(self.tagged or f"pull request in {self.repo}")
        if not self.url.startswith(("https://", "http://")):
            return f"<p>published: {shown}</p>"
        return f'<p>published: <a href="{html.escape(self.url)}">{shown}</a></p>'


@dataclass(frozen=True, repr=False)
class Planned:
    """What `zoo.publish(..., dry_run=True)` would send; nothing was sent.

    Attributes:
        repo: OWNER/NAME. tag: the result's. title: of the commit. card: the text of `README.md`.
        files: a row for each file: `name` and `bytes`.
        revision: the branch; None: the repository's own, main.
        edited: the card or pictures that were edited after the package was made; they are sent as they are.
        space: OWNER/NAME of the Space, and its files in `space_files`, as in `files`; "" where there is none.
    """

    repo: str
    tag: str
    title: str
    files: Table
    card: str
    revision: str | None = None
    edited: tuple[str, ...] = ()
    space: str = ""
    space_files: Table = field(default_factory=lambda: Table([], ("name", "bytes")))

    @property
    def reference(self) -> str:
        """`hf://OWNER/NAME`, with the branch if one was given."""
        return str(Ref(self.repo, self.revision))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.column("bytes"))

    def as_dict(self) -> dict[str, Any]:
        """As `zoo publish --dry-run --json` prints it."""
        files = list(self.files.rows)
        table = {"repo": self.repo, "tag": self.tag, "title": self.title, "files": files, "card": self.card}
        return table | ({"space": {"repo": self.space, "files": list(self.space_files.rows)}} if self.space else {})

    def __repr__(self) -> str:
        """One line: what, how much and where to."""
        return f"Planned({self.title!r}, {plural(len(self.files), 'file')}, {self.size:,} bytes, for {self.reference})"

    def _repr_html_(self) -> str:
        """The line, the files and the card's text."""
        card = f"<details><summary>card</summary><pre>{html.escape(self.card)}</pre></details>"
        return f"<p>{html.escape(repr(self))}</p>{self.files._repr_html_()}{card}"
