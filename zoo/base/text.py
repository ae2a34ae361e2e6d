"""Text for messages: on one line, shortened, and with the right plural.

`zoo list` reads this file, so that it keeps to the language itself.
"""

from __future__ import annotations


def one_line(text: object, most: int | None = None) -> str:
    """The text with every run of white space as one blank, cut after `most` characters."""
    return " ".join(str(text).split())[:most]


def printable_line(text: str, most: int | None = None) -> str:
    """`one_line` without what could steer a terminal; where it is cut, its last character is an ellipsis."""
    line = one_line("".join(c if c.isprintable() else " " for c in text))
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"


def printable(text: str) -> str:
    """The text in its lines; what could steer a terminal is written as Python writes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def reason_of(error: BaseException, most: int = 300) -> str:
    """An error's message on one line; the name of its class where it has no message."""
    return one_line(error, most) or type(error).__name__


def first_line(error: BaseException, most: int | None = 200) -> str:
    """The first line of an error's message; the name of its class where it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def plural(count: float, one: str, many: str = "") -> str:
    """The count with its noun: "1 image", "2,000 images", "0.5 seconds".

    Args:
        one: the words for one thing: "test image", "file is".
        many: the words for any other number; without them, the plural of the last word of `one`.
    """
    number = f"{count:g}" if isinstance(count, float) else f"{count:,}"
    return f"{number} {one if count == 1 else many or _plural_of(one)}"


def unit_of_time(seconds: float) -> tuple[str, int]:
    """The unit that fits a time, and how many seconds it has."""
    units = (("h", 3600), ("min", 60))
    return next(((unit, size) for unit, size in units if seconds >= 2 * size), ("s", 1))


def duration(seconds: float) -> str:
    """A time in the unit that fits it, with as many digits as mean something: "0.14 s", "45.4 s", "2.7 min"."""
    unit, size = unit_of_time(seconds)
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.{2 if value < 10 else 3}g} {unit}"


def _plural_of(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")) and not word.endswith("epoch"):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"
