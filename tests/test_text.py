"""Text of messages: one line, and a singular for one thing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zoo.base.text import duration, first_line, one_line, plural, printable_line, reason_of

ZOO = Path(__file__).parent.parent / "zoo"


@pytest.mark.parametrize(
    ("count", "one", "expected"),
    [
        (0, "run", "0 runs"),
        (1, "run", "1 run"),
        (2, "run", "2 runs"),
        (1, "test image", "1 test image"),
        (50_000, "test image", "50,000 test images"),
        (1, "class", "1 class"),
        (10, "class", "10 classes"),
        (3, "batch", "3 batches"),
        (3, "epoch", "3 epochs"),
        (2, "study", "2 studies"),
        (4, "epoch", "4 epochs"),
        (2, "array", "2 arrays"),
        (1.0, "second", "1 second"),
        (0.5, "second", "0.5 seconds"),
    ],
)
def test_one_thing_has_the_singular_and_all_other_numbers_the_plural(count: float, one: str, expected: str) -> None:
    assert plural(count, one) == expected


def test_a_time_is_told_in_the_unit_that_fits_it() -> None:
    told = [duration(seconds) for seconds in (0, 0.13842, 2.9677, 45.41, 119, 160.2, 7199, 9000, 720_000)]
    assert told == ["0 s", "0.14 s", "3 s", "45.4 s", "119 s", "2.7 min", "120 min", "2.5 h", "200 h"]


def test_a_verb_goes_with_its_number() -> None:
    assert plural(1, "file is", "files are") == "1 file is"
    assert plural(2, "file is", "files are") == "2 files are"


def test_an_errors_message_is_one_line() -> None:
    error = ValueError("first  line\n\tsecond")
    assert (reason_of(error), first_line(error)) == ("first line second", "first  line")
    assert reason_of(error, 5) == "first"
    assert (reason_of(KeyError()), first_line(KeyError())) == ("KeyError", "KeyError")
    assert first_line(ValueError(" \n ")) == "ValueError"


def test_a_printable_line_cannot_steer_a_terminal() -> None:
    assert printable_line("a\x1b[2Jb\n c") == "a [2Jb c"
    assert printable_line("abcdef", 4) == "abc…"
    assert one_line("a\n b") == "a b"


def test_the_field_word_dataset_has_one_spelling() -> None:
    two_words = re.compile(r"\bdata[- ]sets?\b", re.IGNORECASE)
    paths = [ZOO.parent / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "registry.toml")]
    for folder, endings in (("zoo", "py html js md toml"), ("plugins", "py md toml"), ("docs", "md py ipynb")):
        paths += [path for ending in endings.split() for path in sorted((ZOO.parent / folder).rglob(f"*.{ending}"))]
    assert len(paths) > 300
    assert [str(path) for path in paths if two_words.search(path.read_text("utf-8"))] == []


NOT_YET = "card.py"
"""The card of a package counts by hand so far."""

NOUN = (
    "image|run|epoch|thread|model|seed|class|process|file|trial|dataset|step|component|plugin|check|worker|bin"
    "|call|point|result|micro-batch|label|corruption|channel|tensor"
)


def test_no_message_puts_a_number_before_a_plural_by_hand() -> None:
    """`plural` knows the singular; what is never one has a limit's name in capitals."""
    count = r"(?<!x)(?<! of )(?<! no )\{(?!plural|[A-Z_:,]+\})[^{}]*\}"
    by_hand = re.compile(rf"{count} ((test|train|unreadable) )?({NOUN})(e?s)\b(?!/s)")
    found = [
        f"{path.relative_to(ZOO)}:{number}: {line.strip()}"
        for path in sorted(ZOO.rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if by_hand.search(line) and path.name != NOT_YET
    ]
    assert found == []
