"""Draw the pictures of the README and the pages: terminals and compositions, as SVG that needs no network.

    python docs/make_pictures.py              # all of them, into docs/images
    python docs/make_pictures.py list info hybrid-alt-1

A picture of the terminal is a real command on a real terminal: what it writes is read by a terminal emulator (pyte), so
that live bars look as they do for a person. A composition is what `zoo info NAME --picture FILE` draws.
Run it where nothing else runs: pictures of training show images per second.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS, ROWS = 80, 60
IMAGES = Path(__file__).resolve().parent / "images"
LIMIT = 100_000
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
COLOURS = {"brown": "yellow"}
"""Names of pyte's that rich calls otherwise."""


@dataclass(frozen=True)
class Picture:
    """A command, and what the screen shows when it is drawn.

    Attributes:
        words: of `zoo`. until: a pattern; the screen is taken when it shows that, and the command stopped.
    """

    words: str
    until: str = ""


PICTURES = {
    "list": Picture("list 'hybrid-*'"),
    "info": Picture("info hybrid-alt-1"),
    "train": Picture(
        "train cnn-baseline --dataset digits --epochs 8 --output runs/first",
        until=r"epoch 3/8.*\n +epoch [━╸╺ ]+ ([3-9]|1\d)/\d+",
    ),
}

COMPOSITIONS = ("hybrid-alt-1",)
"""Models that `zoo info NAME --picture` draws, as the README shows them."""


def screen_of(picture: Picture, folder: Path) -> pyte.Screen:
    """Run the command on a terminal, until it ends or shows what is waited for.

    Raises:
        SystemExit: it failed, or never showed that.
    """
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    env |= {f"ZOO_{name}_DIR": str(folder / name.lower()) for name in ("CACHE", "DATA", "CONFIG")}
    process = subprocess.Popen(
        ["sh", "-c", f"exec {sys.executable} -m zoo {picture.words}"],
        cwd=folder,
        env=env | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "ZOO_LOAD_PLUGINS": ""},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    try:
        found = _read(master, stream, screen, picture.until)
    finally:
        if process.poll() is None and picture.until:
            process.send_signal(signal.SIGTERM)
        os.close(master)
        code = process.wait(120)
    if not found or (code and not picture.until):
        sys.exit(f"error: zoo {picture.words}: code {code}, it showed\n" + "\n".join(screen.display))
    return screen


def _read(master: int, stream: pyte.ByteStream, screen: pyte.Screen, until: str) -> bool:
    """Feed the screen; whether it showed `until`, or the command ended where nothing is waited for."""
    while select.select([master], [], [], 300)[0]:
        try:
            block = os.read(master, 4096)
        except OSError:  # Linux's way to say that the other side is closed
            block = b""
        if not block:
            return not until
        stream.feed(block)
        if until and re.search(until, "\n".join(line.rstrip() for line in screen.display)):
            return True
    return False


def text_of(screen: pyte.Screen, words: str) -> Text:
    """The prompt, and what the screen shows, with its styles."""
    text = Text.assemble(("$ ", "bold green"), (f"zoo {words}\n", "bold"))
    lines = [screen.buffer[row] for row in range(ROWS)]
    last = max(row for row in range(ROWS) if screen.display[row].strip())
    for line in lines[: last + 1]:
        written = Text()
        cells = [line[column] for column in range(COLUMNS)]
        for (colour, bold), run in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            written.append("".join(cell.data for cell in run), Style(color=_colour(colour), bold=bold or None))
        written.rstrip()
        text.append_text(written).append("\n")
    text.rstrip()
    return text


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    name = COLOURS.get(name, name)
    return f"bright_{name[6:]}" if name.startswith("bright") else name


def svg_of(text: Text, name: str) -> str:
    """A window with the text; fonts are those that the reader has."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=False)
    svg = console.export_svg(title="", theme=MONOKAI, unique_id=f"zoo-{name}", font_aspect_ratio=0.61)
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;]+;", f"font-family: {FONTS};", svg)
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


def main(names: list[str]) -> None:
    """Draw the pictures of these names, or all."""
    known = (*PICTURES, *COMPOSITIONS)
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"error: no picture {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in names or known:
        with tempfile.TemporaryDirectory(prefix="zoo-picture-") as folder:
            svg = draw(name, Path(folder))
        if len(svg.encode()) > LIMIT:
            sys.exit(f"error: {name}.svg has {len(svg.encode()):,} bytes; keep it below {LIMIT:,}")
        (IMAGES / f"{name}.svg").write_text(svg, "utf-8")
        print(IMAGES / f"{name}.svg")


def draw(name: str, folder: Path) -> str:
    """The picture of this name as SVG; commands run in the folder."""
    if name in PICTURES:
        return svg_of(text_of(screen_of(PICTURES[name], folder), PICTURES[name].words), name)
    file = folder / f"{name}.svg"
    words = ["info", name, "--picture", str(file)]
    subprocess.run([sys.executable, "-m", "zoo", "--no-plugins", *words], check=True, stdout=subprocess.DEVNULL)
    return file.read_text("utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
