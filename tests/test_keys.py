"""What people read of the keys of a registry file: type, default and line, from the structs."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
import pytest

from zoo.base.explain import in_words
from zoo.base.structs import Count, Fraction, Positive
from zoo.catalogue import augmentation, recipe, spec, study
from zoo.catalogue.augmentation import Step
from zoo.catalogue.keys import keys_of, lines_of, summary_of
from zoo.catalogue.recipe import Recipe

STRUCTS = {
    name: kind
    for module in (augmentation, recipe, spec, study)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and msgspec.structs.fields(kind)
}


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_has_one_line_and_no_line_is_of_another_field(name: str) -> None:
    kind = STRUCTS[name]
    lines = lines_of(kind)
    assert list(lines) == list(kind.__struct_fields__)
    for field, line in lines.items():
        assert line[0] == '"' or line[0].isupper(), (field, line)
        assert line.endswith("."), (field, line)
    assert summary_of(kind).endswith(".")


def test_every_augmentation_step_has_a_summary_and_its_keys() -> None:
    assert len(get_args(Step)) >= 12
    for kind in get_args(Step):
        assert kind in STRUCTS.values()
        assert summary_of(kind)


def test_a_long_line_is_joined_and_a_following_section_ends_the_list() -> None:
    class Example(msgspec.Struct):
        """First line
        of two.

        Attributes:
            a: begins here: and
                goes on.
            b: short.

        Raises:
            c: is no field.
        """

        a: int
        b: str = ""

    assert lines_of(Example) == {"a": "begins here: and goes on.", "b": "short."}
    assert summary_of(Example) == "First line of two."


def test_keys_say_type_default_and_line() -> None:
    keys = {key.name: key for key in keys_of(Recipe)}
    assert list(keys) == list(Recipe.__struct_fields__)
    assert keys["epochs"][1:] == ("integer > 0", "50", "Passes over the training split.")
    assert (keys["lr"].default, keys["augment"].default, keys["normalize"].default) == ("0.001", "[]", '"dataset"')
    assert (keys["dropout"].type, keys["dropout"].default) == ("number from 0 to 1", "")
    assert next(iter(keys_of(recipe.Group))).default == "required"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Positive, "integer > 0"),
        (Count | None, "integer ≥ 0"),
        (tuple[Fraction, Fraction], "list of 2 numbers from 0 to 1"),
        (tuple[str, ...], "list of text"),
        (Literal["all", "matrices"], '"all" or "matrices"'),
        (Literal["none"] | tuple[str, ...], '"none" or list of text'),
        (tuple[Step, ...], "list of tables with `op`"),
        (recipe.Lookahead | None, "table"),
        (dict[str, Any], "table"),
        (Any, "any"),
        (bool, "true or false"),
    ],
)
def test_types_in_words(kind: Any, words: str) -> None:
    assert in_words(kind) == words
