"""Labels of a table, which are texts, as class numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zoo.data.sources.class_order import ClassOrder
from zoo.data.sources.labels import MOST_CLASSES, composed
from zoo.errors import DataError

UNLABELLED, UNKNOWN = -1, -2
"""In the place of a class number: the row has no label; its label is none of the listed classes."""

_NO_LABEL = frozenset({"-1", "-1.0"})
_NOT_A_NUMBER = frozenset({"nan", "null", "none", "<na>"})


@dataclass(frozen=True)
class TableClasses:
    """The classes of a table.

    Attributes:
        names: in the order of their numbers. named: whether these are names; else they are numbers from 0.
    """

    names: tuple[str, ...]
    named: bool

    def numbers(self, texts: Sequence[str]) -> list[int]:
        """The class number of each text; `UNLABELLED` or `UNKNOWN` where there is none."""
        by_name = {name: number for number, name in enumerate(self.names)}
        whole = [_whole(text) for text in texts]
        names = {composed(text) for text in texts} | {str(number) for number in whole}
        by_number = by_name.keys().isdisjoint(names) and _all_numbers(texts)
        return [self._number(text, n, by_name, by_number) for text, n in zip(texts, whole, strict=True)]

    def _number(self, text: str, whole: int | None, by_name: Mapping[str, int], by_number: bool) -> int:
        for name in (composed(text), str(whole)):
            if name in by_name:
                return by_name[name]
        if text in _NO_LABEL or text.casefold() in _NOT_A_NUMBER:
            return UNLABELLED
        return whole if by_number and whole is not None and 0 <= whole < len(self.names) else UNKNOWN


def classes_of(
    texts: Sequence[str], others: Sequence[str], order: ClassOrder, where: str, *, count: bool = False
) -> TableClasses:
    """The classes of a table: of the training images, and behind them those that only other images have.

    Labels that are whole numbers from 0 without a gap are the numbers of classes without names; other numbers are
    names, sorted as numbers. A list of classes (`order.listed`) is all of the classes; numbers count them from 0.

    Args:
        texts: the different labels of training images. others: of other images alone. where: the column, for messages.
        count: numbers are always the numbers of classes, whichever of them have images.
    Raises:
        DataError: the labels are numbers with fractions, or too large ones.
    """
    if order.listed:
        return TableClasses(order.listed, named=True)
    labels = [text for text in (*texts, *others) if text not in _NO_LABEL]
    _refuse_fractions(labels, where)
    if not _all_numbers(labels):
        first, every = ({composed(text) for text in side if text not in _NO_LABEL} for side in (texts, labels))
        return TableClasses((*order.sorted(first), *order.sorted(every - first)), named=True)
    learnt, numbers = _numbers(texts), sorted(_numbers(labels))
    if not numbers:
        return TableClasses((), named=True)
    if numbers[0] < 0 or numbers[-1] >= MOST_CLASSES:
        wrong = numbers[0] if numbers[0] < 0 else numbers[-1]
        raise DataError(
            f"{where} holds {wrong}; classes are numbered from 0, below {MOST_CLASSES:,} (-1: no label), or have names"
        )
    if count or numbers == list(range(len(numbers))):
        return TableClasses(tuple(map(str, range(numbers[-1] + 1))), named=False)
    return TableClasses(tuple(map(str, sorted(numbers, key=lambda n: (n not in learnt, n)))), named=True)


def _is_text(text: str) -> bool:
    return text.casefold() not in _NOT_A_NUMBER


def _all_numbers(texts: Iterable[str]) -> bool:
    """Whether all texts are whole numbers, apart from those that stand for a missing number."""
    return all(_whole(text) is not None for text in texts if _is_text(text))


def _numbers(texts: Iterable[str]) -> set[int]:
    return {number for text in texts if (number := _whole(text)) is not None and text not in _NO_LABEL}


def _whole(text: str) -> int | None:
    """The whole number that a text is, written as numbers are: "7" or "7.0", but not "007"."""
    digits = text.removesuffix(".0")
    number = digits.removeprefix("-")
    return int(digits) if number.isdecimal() and number.isascii() and (number == "0" or number[0] != "0") else None


def _refuse_fractions(texts: Sequence[str], where: str) -> None:
    """Refuse measured values in the place of labels: all texts are numbers, and one of them is no whole one."""
    try:
        fractions = [text for text in texts if _is_text(text) and not float(text).is_integer()]
    except ValueError:
        return
    if fractions:
        raise DataError(
            f"{where} holds numbers with fractions ({fractions[0]}), which are no classes; if they are names, list "
            "them in a file, ?classes=FILE"
        )
