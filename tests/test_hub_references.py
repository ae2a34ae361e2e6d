"""References to repositories of the Hub, as people and strangers write them."""

from __future__ import annotations

import random

import pytest

from zoo.errors import InputError
from zoo.hub.ref import parse_ref


def test_hostile_references_are_wrong_input() -> None:
    draw = random.Random(5)
    letters = "abc/@.-_: \\\0\n%~$é\u202e../hf://"
    for _ in range(10_000):
        text = "".join(draw.choice(letters) for _ in range(draw.randrange(30)))
        try:
            ref = parse_ref(text)
        except InputError:
            continue
        assert ".." not in str(ref)
        assert str(ref).removeprefix("hf://").replace("/", "").replace("@", "").replace("_", "a").isprintable()


@pytest.mark.parametrize("text", ["a/b", "hf://a/b", "a/b@main", "a/b@refs/pr/1", "a-b/c.d_e@" + "0" * 40])
def test_references_that_the_hub_knows_are_read(text: str) -> None:
    assert str(parse_ref(text)).removeprefix("hf://") == text.removeprefix("hf://")
