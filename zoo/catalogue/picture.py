"""The picture of a model's composition: its tree as boxes through which an image flows from top to bottom.

What stands one after the other in the tree stands one below the other; parts on the same input stand side
by side and meet again; what is repeated has its count. A box is coloured by its component's kind and says
it in words too. Everything comes from the registry: nothing here imports torch, and matplotlib is imported
only to draw. The same tree gives the same file, byte for byte, with the same matplotlib.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.base.drawing import encoded, styled
from zoo.base.files import write_bytes
from zoo.base.quiet_imports import ignoring
from zoo.base.text import printable_line
from zoo.catalogue.spec import Node
from zoo.catalogue.tree import argument_text
from zoo.errors import InputError
from zoo.plugin.contract import Component

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, MAX_WIDTH = 640.0, 1600.0
"""CSS pixels: what every page has room for, and how far many branches may widen a picture."""

MAX_BOXES, MAX_BRANCHES, MAX_ARGUMENTS, MAX_VALUE = 60, 6, 8, 60
"""Beyond these a picture says how much it leaves out; a stranger's tree may be of any size."""

MAX_LINES = 3
"""Of one argument, where a box is narrow."""

COLOURS = (
    ("classifier", "#F3F3F3", "#555555"),
    ("combinator", "#FFF4D1", "#B87E00"),
    ("part", "#D9EAF6", "#0072B2"),
    ("stem", "#D6F0E7", "#007A5A"),
    ("head", "#FBE4D5", "#B84E00"),
    ("", "#FFFFFF", "#000000"),
)
"""Kind, fill and edge: tints of Okabe and Ito, "Color Universal Design" (2008); also told by words."""

ORDER = ("stem", "body", "head")
"""Arguments that an image meets in this order, whatever the order in the file."""

PAD, GAP, ARROW, CORNER, LEAST = 12.0, 12.0, 20.0, 5.0, 132.0
TITLE, TEXT, SMALL = 13.0, 11.5, 11.0
ADVANCE, LEADING = 0.602, 1.35
"""Of DejaVu Sans Mono: the width of every character, and the distance of lines, in font sizes."""


class _Block(NamedTuple):
    """A box to draw: what it says, and what is inside."""

    title: str
    label: str
    kind: str
    repeats: str
    lines: tuple[str, ...]
    summary: str
    inner: tuple[_Block, ...]
    branches: bool
    fuse: str


class _Mark(NamedTuple):
    """Something drawn: a box ("box", x, y, w, h, kind), a text or a line, in CSS pixels from the top left."""

    what: str
    at: tuple[float, ...]
    text: str = ""
    size: float = TEXT
    style: str = ""


def draw_tree(
    path: Path,
    tree: Node,
    components: Mapping[str, Component],
    *,
    image: str = "image",
    logits: str = "logits",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Draw a model's tree into a file.

    Args:
        path: ends in ".png" (two pixels for each CSS pixel) or ".svg" (letters as outlines).
        components: by full name, as `Registry.components`; one that is not in it is drawn as unknown.
        image: what goes in at the top. logits: what comes out at the bottom.
        metadata: texts to keep in a PNG, by keyword.
    Returns:
        `path`.
    Raises:
        InputError: another suffix. WriteError: the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{path}: a picture's name ends in .png or .svg")
    write_bytes(path, _drawn(tree, components, kind, (image, logits), metadata if kind == "png" else None))
    return path


ENDS = MappingProxyType({"classifier": ("image", "logits"), "stem": ("image", "map"), "head": ("map", "logits")})
"""What goes into a component and comes out, by its kind; of all others: a feature map."""


def as_svg(tree: Node, components: Mapping[str, Component]) -> bytes:
    """The picture of a tree or of a part of one, as `draw_tree` writes it."""
    component = components.get(tree.use)
    return _drawn(tree, components, "svg", ENDS.get(component.kind if component else "", ("map", "map")))


def _drawn(
    tree: Node,
    components: Mapping[str, Component],
    kind: str,
    ends: tuple[str, str],
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    block = _block(tree, components, "", 1, [MAX_BOXES])
    width = min(MAX_WIDTH, max(WIDTH, _least(block) + 2 * GAP))
    marks: list[_Mark] = []
    height = _page(block, width, *ends, marks)
    return _rendered(kind, width, height, marks, metadata)


def in_words(tree: Node, components: Mapping[str, Component]) -> str:
    """The composition in one line, as the text that stands for the picture.

    `a → b` is a then b, `a | b` is both on the same input, `(...) × 2` is repeated.
    """
    return _words(_block(tree, components, "", 1, [MAX_BOXES]))


def _words(block: _Block) -> str:
    if not block.inner:
        name = next((f" {line.removeprefix('name = ')}" for line in block.lines if line.startswith("name = ")), "")
        return f"{block.title}{name} {block.repeats}".rstrip()
    inside = (" | " if block.branches else " → ").join(_words(b) for b in block.inner)
    return f"{block.title} ({inside}) {block.repeats}".rstrip()


# ---- from the tree to boxes -------------------------------------------------------------------


def _block(node: Node, components: Mapping[str, Component], role: str, times: int, left: list[int]) -> _Block:
    left[0] -= 1
    component = components.get(node.use)
    kind = component.kind if component else ""
    branches = component is not None and component.branches
    repeat = node.args.get("repeat", 1)
    counts = [n for n in (times, repeat) if _is_count(n) and n > 1]
    return _Block(
        title=_plain(node.use),
        label=" · ".join(dict.fromkeys(part for part in (_plain(role), kind or "not installed") if part)),
        kind=kind,
        repeats=" ".join(f"× {n}" for n in counts),
        lines=tuple(_arguments(node, shown=("fuse",) if branches else (), counted=_is_count(repeat))),
        summary=_plain(component.summary, 2 * MAX_VALUE) if component else "",
        inner=tuple(_inner(node, components, branches, left)),
        branches=branches,
        fuse=_plain(str(node.args.get("fuse", "fused"))),
    )


def _arguments(node: Node, *, shown: Sequence[str], counted: bool) -> Iterator[str]:
    """Lines "key = value" for what is neither a box below nor said elsewhere in the picture."""
    hidden = {*shown, *(["repeat"] if counted else [])}
    plain = [(key, value) for key, value in node.plain_args().items() if key not in hidden]
    for key, value in plain[:MAX_ARGUMENTS]:
        yield f"{_plain(key)} = {_plain(argument_text(value))}"
    if len(plain) > MAX_ARGUMENTS:
        yield f"and {len(plain) - MAX_ARGUMENTS} more"


def _inner(node: Node, components: Mapping[str, Component], branches: bool, left: list[int]) -> Iterator[_Block]:
    children = sorted(node.children(), key=lambda c: ORDER.index(c[0]) if c[0] in ORDER else 1)
    alike = [[c] for c in children] if branches else [list(g) for _, g in groupby(children, lambda c: c[1])]
    most = MAX_BRANCHES if branches else MAX_BOXES
    for place, group in enumerate(alike):
        if place >= most or left[0] <= 0:
            rest = sum(len(g) for g in alike[place:])
            yield _Block(f"and {rest} more", "left out", "", "", (), "", (), False, "")
            return
        key, child = group[0]
        role = "" if key.startswith("of[") else key.partition("[")[0]
        yield _block(child, components, role, len(group), left)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(text: str, most: int = MAX_VALUE) -> str:
    return printable_line(text[: 4 * most], most)


# ---- from boxes to places ---------------------------------------------------------------------


def _least(block: _Block) -> float:
    """The width under which a box cannot be read."""
    inner = [_least(b) for b in block.inner]
    if not inner:
        return LEAST
    return 2 * PAD + (sum(inner) + GAP * (len(inner) - 1) if block.branches else max(inner))


def _page(block: _Block, width: float, image: str, logits: str, out: list[_Mark]) -> float:
    middle = width / 2
    out.append(_Mark("text", (middle, GAP + SMALL), image, SMALL, "center"))
    top = GAP + SMALL * LEADING
    out.append(_Mark("arrow", (middle, top + 2, middle, top + ARROW)))
    height = _draw(block, GAP, top + ARROW, width - 2 * GAP, out)
    end = top + ARROW + height
    out.append(_Mark("arrow", (middle, end, middle, end + ARROW - 2)))
    out.append(_Mark("text", (middle, end + ARROW + SMALL), logits, SMALL, "center"))
    return end + ARROW + SMALL * LEADING + GAP


def _draw(block: _Block, x: float, y: float, w: float, out: list[_Mark]) -> float:
    """Place a box at (x, y), `w` wide; its height."""
    inside: list[_Mark] = []
    room = w - 2 * PAD
    below = y + PAD + _header(block, x + PAD, y + PAD, room, inside)
    if block.inner:
        place = _side_by_side if block.branches else _in_turn
        below += GAP + place(block, x + PAD, below + GAP, room, inside)
    height = below + PAD - y
    if block.repeats:
        out.append(_Mark("box", (x + 4, y + 4, w, height), style=block.kind))
    out.append(_Mark("box", (x, y, w, height), style=block.kind))
    out += inside
    return height


def _header(block: _Block, x: float, y: float, room: float, out: list[_Mark]) -> float:
    """The words of a box; their height."""
    badge = len(block.repeats) * TITLE * ADVANCE
    texts = [(line, TITLE, "bold") for line in _wrap(block.title, room - badge, TITLE)]
    texts += [(line, SMALL, block.kind or "gray") for line in _wrap(block.label, room, SMALL)]
    texts += [(line, TEXT, "") for line in _flow(block.lines, room)]
    texts += [(line, SMALL, "gray") for line in _wrap(block.summary, room, SMALL)]
    if block.repeats:
        out.append(_Mark("text", (x + room, y + TITLE), block.repeats, TITLE, "right"))
    down = 0.0
    for text, size, style in texts:
        out.append(_Mark("text", (x, y + down + size), text, size, style))
        down += size * LEADING
    return down


def _in_turn(block: _Block, x: float, y: float, w: float, out: list[_Mark]) -> float:
    down = 0.0
    for place, child in enumerate(block.inner):
        if place:
            out.append(_Mark("arrow", (x + w / 2, y + down, x + w / 2, y + down + ARROW)))
            down += ARROW
        down += _draw(child, x, y + down, w, out)
    return down


def _side_by_side(block: _Block, x: float, y: float, w: float, out: list[_Mark]) -> float:
    """Branches from one line into one line, as high as the highest of them."""
    needs = [_least(child) for child in block.inner]
    share = (w - GAP * (len(needs) - 1)) / sum(needs)
    widths = [need * share for need in needs]
    lefts = [x + sum(widths[:i]) + GAP * i for i in range(len(widths))]
    top, middle = y + ARROW, x + w / 2
    centres = [left + wide / 2 for left, wide in zip(lefts, widths, strict=True)]
    ends = [min(*centres, middle), max(*centres, middle)]
    drawn: list[list[_Mark]] = [[] for _ in needs]
    placed = zip(block.inner, lefts, widths, drawn, strict=True)
    highest = max(_draw(child, left, top + ARROW * 0.9, wide, marks) for child, left, wide, marks in placed)
    low = top + ARROW * 0.9 + highest + ARROW * 0.7
    out.append(_Mark("line", (middle, y - GAP / 2, middle, top)))
    out.append(_Mark("line", (ends[0], top, ends[1], top)))
    out.append(_Mark("line", (ends[0], low, ends[1], low)))
    for child, centre, marks in zip(block.inner, centres, drawn, strict=True):
        out.append(_Mark("arrow", (centre, top, centre, top + ARROW * 0.9)))
        out.append(_Mark("line", (centre, low - ARROW * 0.7, centre, low)))
        boxes = 2 if child.repeats else 1  # its own come first: they are made as high as the highest
        out += [mark._replace(at=(*mark.at[:3], highest)) for mark in marks[:boxes]] + marks[boxes:]
    out.append(_Mark("arrow", (middle, low, middle, low + ARROW * 0.8)))
    out.append(_Mark("text", (middle, low + ARROW * 0.8 + TEXT), block.fuse, TEXT, "center"))
    return low + ARROW * 0.8 + TEXT * LEADING - y


def _wrap(text: str, room: float, size: float) -> list[str]:
    """Lines that fit, broken at spaces where there are some."""
    import textwrap

    return textwrap.wrap(text, max(4, int(room / (size * ADVANCE))))


def _flow(items: Sequence[str], room: float) -> list[str]:
    """Several arguments on a line where they fit."""
    most = max(4, int(room / (TEXT * ADVANCE)))
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + 3 + len(item) <= most:
            lines[-1] += f"   {item}"
        else:
            lines += _wrap(item, room, TEXT)[:MAX_LINES]
    return lines


# ---- from places to a file --------------------------------------------------------------------


def _rendered(kind: str, width: float, height: float, marks: list[_Mark], metadata: Mapping[str, str] | None) -> bytes:
    with styled(font_family=["DejaVu Sans Mono"]), ignoring("Glyph .* missing"):  # drawn as an empty box
        from matplotlib.figure import Figure

        dpi = 192 if height < 4000 else 96
        figure = Figure(figsize=(width / 96, height / 96), dpi=dpi, facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for number, mark in enumerate(marks):
            _put(axes, mark, number)
        return encoded(figure, kind, dpi=dpi, metadata=metadata)


def _put(axes: Axes, mark: _Mark, number: int) -> None:
    if mark.what == "box":
        _put_box(axes, mark, number)
    elif mark.what == "text":
        _put_text(axes, mark, number)
    else:
        x1, y1, x2, y2 = mark.at
        style = "-|>" if mark.what == "arrow" else "-"
        shape = {"arrowstyle": style, "color": "#444444", "linewidth": 1.1, "mutation_scale": 9}
        axes.annotate("", (x2, y2), (x1, y1), arrowprops={**shape, "shrinkA": 0, "shrinkB": 0}, zorder=number)


def _put_box(axes: Axes, mark: _Mark, number: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, w, h = mark.at
    fill, edge = next((f, e) for kind, f, e in COLOURS if kind in (mark.style, ""))
    dashes = "solid" if mark.style else "dashed"
    style = f"round,pad=0,rounding_size={CORNER}"
    axes.add_patch(
        FancyBboxPatch(
            (x, y), w, h, style, facecolor=fill, edgecolor=edge, linewidth=1.2, linestyle=dashes, zorder=number
        )
    )


def _put_text(axes: Axes, mark: _Mark, number: int) -> None:
    edges = {kind: edge for kind, _, edge in COLOURS if kind} | {"gray": "#555555"}
    x, y = mark.at
    axes.text(
        x,
        y,
        mark.text,
        size=mark.size * 0.75,  # CSS pixels to points
        weight="bold" if mark.style in ("bold", "right") else "normal",
        color=edges.get(mark.style, "black"),
        ha=mark.style if mark.style in ("center", "right") else "left",
        va="baseline",
        parse_math=False,
        zorder=number,
    )
