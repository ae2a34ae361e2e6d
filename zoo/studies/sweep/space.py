"""The search space of a sweep: keys with values to choose from, and keys with ranges to draw from."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from zoo.base.structs import Struct
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import decode
from zoo.catalogue.vary import NAMES, field, inline, vary
from zoo.errors import InputError, SpecError
from zoo.models.compose import check_arguments

FORM = "KEY=LOW..HIGH or KEY=log:LOW..HIGH"


Grid = Mapping[str, Sequence[Any]] | Sequence[str]
"""Keys with their values, {"lr": [1e-3, 3e-4]}; or as the command line has them, ["lr=1e-3,3e-4"]."""

Sample = Mapping[str, tuple[float, float] | str] | Sequence[str]
"""Keys with their ranges, {"lr": "log:1e-4..1e-2", "momentum": (0.8, 0.99)}; or ["lr=log:1e-4..1e-2"]."""


class Choice(Struct, frozen=True, kw_only=True):
    """A key and its values, as they would be in TOML."""

    key: str
    values: tuple[Any, ...]


class Range(Struct, frozen=True, kw_only=True):
    """A key and the range from which its values are drawn, uniformly or log-uniformly."""

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False


class Space(Struct, frozen=True, kw_only=True):
    """The search space: all keys of a sweep."""

    choices: tuple[Choice, ...] = ()
    ranges: tuple[Range, ...] = ()

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of the choices."""
        keys = [choice.key for choice in self.choices]
        for values in product(*(choice.values for choice in self.choices)):
            yield dict(zip(keys, values, strict=True))

    def samples(self) -> Iterator[tuple[str, Any]]:
        """Pairs of key and value that have to be valid: all choices, and both ends of each range."""
        for choice in self.choices:
            yield from ((choice.key, value) for value in choice.values)
        for drawn in self.ranges:
            ends = (drawn.low, drawn.high)
            yield from ((drawn.key, int(value) if drawn.whole else value) for value in ends)


def parse_space(grid: Grid, sample: Sample) -> Space:
    """Read `--grid KEY=A,B` and `--sample KEY=[log:]LOW..HIGH`, or the same as tables.

    Raises:
        InputError: a wrong form, no values, an invalid range, or a key that is given twice.
    """
    choices = map(_given_choice, grid.items()) if isinstance(grid, Mapping) else map(_choice, _texts(grid))
    ranges = map(_given_range, sample.items()) if isinstance(sample, Mapping) else map(_range, _texts(sample))
    space = Space(choices=tuple(choices), ranges=tuple(ranges))
    keys = [choice.key for choice in space.choices] + [drawn.key for drawn in space.ranges]
    if not keys:
        raise InputError("nothing to sweep over: give --grid KEY=A,B,C or --sample KEY=log:1e-4..1e-2")
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"{key} is given twice; give each key once")
        if key in ("dataset", "recipe.precision", "precision"):
            raise InputError(f"a sweep cannot search over {key}; give it as an option for all trials")
    return space


def check_space(space: Space, registry: Registry, model: str) -> None:
    """Check that every key exists and accepts its values.

    Raises:
        InputError: names the key and what is allowed.
    """
    for key, value in space.samples():
        where = f"{key}={inline(value)}"
        variant = vary(registry, model, {key: value}, where)
        check_arguments(variant.model.build, registry, f"{where}: build")
        for name, given in variant.settings.items():
            decode(Recipe, {name: given}, where)


def _key(text: str, option: str, form: str) -> tuple[str, str]:
    key, mark, values = text.partition("=")
    key = key.strip()
    if not mark or not key or not values.strip():
        raise InputError(f"{option} {text}: write {option} {form}")
    return _full(key), values.strip()


def _full(key: str) -> str:
    """The key with its table: "lr" is "recipe.lr"."""
    return f"recipe.{key}" if key not in NAMES and "." not in key else key


def _texts(given: Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def _given_choice(pair: tuple[str, Any]) -> Choice:
    """A key and its values as Python has them."""
    key, values = pair
    if isinstance(values, str):
        return _choice(f"{key}={values}")
    where = f"grid {key}={values!r}"
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise InputError(f"{where}: give a list of values")
    try:
        plain = tuple(map(_plain, values))
    except (TypeError, ValueError):
        raise InputError(f"{where}: allowed: texts, numbers, true and false, lists and tables of these") from None
    if not plain:
        raise InputError(f"{where}: give at least one value")
    return Choice(key=_full(key.strip()), values=_distinct(plain))


def _plain(value: Any) -> Any:
    """A value as TOML reads it: lists for tuples, and numbers of Python for those of numpy.

    Raises:
        TypeError, ValueError: TOML has no such value.
    """
    return tomllib.loads(f"value = {inline(_number(value))}")["value"]


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _distinct(values: Sequence[Any]) -> tuple[Any, ...]:
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(for_optuna(value), value)
    return tuple(found.values())


def _choice(text: str) -> Choice:
    key, values = _key(text, "--grid", "KEY=A,B,C")
    parsed = tuple(_value(part) for part in _parts(values))
    if any(value == "" for value in parsed):
        raise InputError(f"--grid {text}: an empty value; write --grid KEY=A,B,C")
    return Choice(key=key, values=_distinct(parsed))


def _parts(text: str) -> list[str]:
    """Split at the commas outside of brackets and strings."""
    parts, depth, quoted = [""], 0, ""
    for character in text:
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "\"'":
            quoted = character
        depth += (character in "[{" and not quoted) - (character in "]}" and not quoted)
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _value(text: str) -> Any:
    """Parse a value as TOML; anything that is not valid TOML is a string."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        inline(value)
    except (tomllib.TOMLDecodeError, TypeError):  # TypeError: a date, which no key accepts
        return text
    return value


def _given_range(pair: tuple[str, Any]) -> Range:
    """A key and its range as Python has it: two numbers, or text."""
    key, ends = pair
    if isinstance(ends, str):
        return _range(f"{key}={ends}")
    numbers = [_number(end) for end in ends] if isinstance(ends, Iterable) else []
    if len(numbers) != 2 or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise InputError(f'sample {key}={ends!r}: give two numbers, (LOW, HIGH), or text, "log:LOW..HIGH"')
    return _range(f"{key}={numbers[0]!r}..{numbers[1]!r}")


def _range(text: str) -> Range:
    key, values = _key(text, "--sample", FORM)
    log = values.startswith("log:")
    low, mark, high = values.removeprefix("log:").partition("..")
    try:
        ends = (float(low), float(high))
    except ValueError:
        raise InputError(f"--sample {text}: write --sample {FORM}") from None
    if not mark or not all(map(math.isfinite, ends)) or ends[0] >= ends[1] or (log and ends[0] <= 0):
        need = "0 < LOW < HIGH" if log else "LOW < HIGH"
        raise InputError(f"--sample {text}: a range needs {need}")
    whole = all(part.strip().lstrip("+-").isdecimal() for part in (low, high)) and not _is_float(key)
    return Range(key=key, low=ends[0], high=ends[1], log=log, whole=whole)


def _is_float(key: str) -> bool:
    """Whether a key of the recipe accepts fractions, so that 0..1 is a range of fractions."""
    if not key.startswith("recipe."):
        return False
    try:
        decode(Recipe, {field(key, key): 0.5}, key)
    except SpecError:
        return False
    return True


def changes_of(space: Space, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an Optuna trial as changes by key; lists and tables, which it stores as text, are restored."""
    texts = {choice.key: choice for choice in space.choices}
    return {key: _restored(value, texts.get(key)) for key, value in params.items()}


def for_optuna(value: Any) -> Any:
    """The value of a choice as Optuna can store it: lists and tables as text."""
    return value if isinstance(value, str | int | float | bool) else inline(value)


def _restored(value: Any, choice: Choice | None) -> Any:
    if choice is None:
        return value
    return next(v for v in choice.values if for_optuna(v) == value and type(for_optuna(v)) is type(value))


def as_text(space: Space) -> str:
    """The space as text, to tell whether two sweeps are the same."""
    return msgspec.json.encode(space, order="deterministic").decode()
