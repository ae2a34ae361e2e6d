"""What every picture of ours shares: colours, markers, settings, and files that are the same each time.

matplotlib is imported only where something is drawn; nothing depends on the clock or on the user's settings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zoo.base.files import write_bytes
from zoo.base.paths import local_path
from zoo.base.quiet_imports import ignoring
from zoo.base.text import printable_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#169C70", "#800055", "#B21AFF", "#604A20")
"""Blue and vermilion of Okabe and Ito, "Color Universal Design" (2008), and four more, chosen so that all have a
contrast of at least 3 on white and that people who see no red or no green tell them apart; `zoo report` has the same.
"""

DASHES = (0, (3, 1.6))
"""The line of what was trained on; what was held out is solid."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
NAMELESS = MappingProxyType(
    {
        "png": MappingProxyType({"Software": None}),
        "svg": MappingProxyType({"Date": None, "Creator": None}),
        "pdf": MappingProxyType({"CreationDate": None}),
    }
)
"""By format: the metadata that would differ from one drawing to the next, or from one version to the next."""


class Picture:
    """A drawn picture: `save` writes it, notebooks show it.

    Attributes:
        data: the file's bytes. kind: "png", "svg" or "pdf".
        path: where it was written; None if it was not.
        alt: what it shows, for those who do not see it.
    """

    __slots__ = ("alt", "data", "kind", "path")

    def __init__(self, data: bytes, kind: str, path: Path | None = None, alt: str = "picture") -> None:
        self.data, self.kind, self.path, self.alt = data, kind, path, alt

    def save(self, path: str | Path) -> Path:
        """Write the bytes to a file.

        Raises:
            WriteError: it cannot be written.
        """
        place = local_path(path)
        write_bytes(place, self.data)
        return place

    def __repr__(self) -> str:
        """The kind, the size, and where it is."""
        return f"Picture({self.kind}, {len(self.data):,} bytes{f', {self.path}' if self.path else ''})"

    def _repr_html_(self) -> str:
        """The picture itself."""
        import base64
        import html

        kind = {"svg": "image/svg+xml", "png": "image/png"}.get(self.kind)
        if kind is None:
            return html.escape(repr(self))
        data = base64.b64encode(self.data).decode()
        return f'<img alt="{html.escape(self.alt)}" src="data:{kind};base64,{data}">'


@contextlib.contextmanager
def styled(**ours: Any) -> Iterator[None]:
    """matplotlib's own defaults, whatever the user's; `ours` with "_" for the dots of its names."""
    import matplotlib

    base = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    asked = {name.replace("_", ".", 1): value for name, value in ours.items()}
    with matplotlib.rc_context({**base, "svg.hashsalt": "hybrid-zoo", **asked}):
        yield


def encoded(
    figure: Figure, kind: str, *, dpi: float | str = "figure", metadata: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a picture's file.

    Args:
        kind: "png", "svg" or "pdf". metadata: texts to keep in it, by keyword.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = BytesIO()
    with ignoring("Glyph .* missing from"):  # in a script that the font has not
        figure.savefig(buffer, format=kind, dpi=dpi, metadata={**NAMELESS[kind], **(metadata or {})})
    return buffer.getvalue()


def save(figure: Figure, path: Path, **options: Any) -> Path:
    """Write a figure in the format of the path's suffix; `options` are those of `encoded`.

    Raises:
        WriteError: it cannot be written.
    """
    write_bytes(path, encoded(figure, path.suffix.lower().removeprefix("."), **options))
    return path


def plain_text(text: str) -> str:
    """Printable, on one line, without matplotlib's mathematics, and shown even if it begins with "_"."""
    line = printable_line(text).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line
