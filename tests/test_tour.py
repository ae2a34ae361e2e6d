"""The tour of the code: each of its links leads to the line where the named class or function begins.

python tests/test_tour.py     # write the current line numbers into docs/tour.md
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOUR = ROOT / "docs" / "tour.md"
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<file>\.\./zoo/[\w/]+\.py)#L(?P<line>\d+)\)")


def definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, int]]:
    """Classes and functions with the line of their `class` or `def`; methods as `Class.method`."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node.lineno
        if isinstance(node, ast.ClassDef):
            yield from definitions(node.body, f"{node.name}.")


def line_of(link: re.Match[str]) -> int | None:
    """The line on which the definition stands that a link names; None where the file has none of that name."""
    path = (TOUR.parent / link["file"]).resolve()
    if not path.is_file():
        return None
    return dict(definitions(ast.parse(path.read_text("utf-8")).body)).get(link["name"])


def wrong_links(text: str) -> list[str]:
    """What is wrong with the links of a text, one line each."""
    wrong = []
    for link in LINK.finditer(text):
        line = line_of(link)
        if line is None:
            wrong.append(f"{link['file']} does not define {link['name']}")
        elif line != int(link["line"]):
            wrong.append(f"{link['name']} begins in line {line} of {link['file']}, not {link['line']}")
    return wrong


def renewed(text: str) -> str:
    """The text with the current line in each link whose name is still defined in its file."""

    def renew(link: re.Match[str]) -> str:
        return f"[`{link['name']}`]({link['file']}#L{line_of(link) or link['line']})"

    return LINK.sub(renew, text)


def test_every_link_of_the_tour_leads_to_the_definition_that_it_names() -> None:
    hint = "python tests/test_tour.py writes the current line numbers"
    assert wrong_links(TOUR.read_text("utf-8")) == [], hint


def test_every_link_into_the_code_has_a_name_and_a_line() -> None:
    text = TOUR.read_text("utf-8")
    assert text.count("](../zoo/") == len(LINK.findall(text)) >= 10


def test_a_stale_line_and_a_name_that_was_removed_are_seen_and_the_line_is_renewed() -> None:
    text = "[`Trainer.fit`](../zoo/train/loop.py#L1) [`Nothing`](../zoo/train/loop.py#L2) [`x`](../zoo/none.py#L3)"
    assert [line.split()[0] for line in wrong_links(text)] == ["Trainer.fit", "../zoo/train/loop.py", "../zoo/none.py"]
    assert [line.split()[0] for line in wrong_links(renewed(text))] == ["../zoo/train/loop.py", "../zoo/none.py"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/design.md"])
def test_the_tour_is_named_where_a_newcomer_begins(page: str) -> None:
    assert re.search(r"\((docs/)?tour\.md\)", (ROOT / page).read_text("utf-8"))


if __name__ == "__main__":
    TOUR.write_text(renewed(TOUR.read_text("utf-8")), "utf-8")
    sys.exit("\n".join(wrong_links(TOUR.read_text("utf-8"))) or 0)
