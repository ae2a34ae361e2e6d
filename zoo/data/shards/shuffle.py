"""How images in shards are shuffled: the numbers of the rule, which a run records.

The rule itself is `zoo.data.batches.windows`; docs/shards.md explains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.base.structs import Positive, Struct
from zoo.errors import InputError

OPTIONS = frozenset({"stream", "buffer", "buffer_mb"})
"""Options of every SPEC whose images may stay in shards."""


class Shuffle(Struct, frozen=True, kw_only=True):
    """The numbers of the rule by which an epoch's order is made.

    Attributes:
        buffer: images that a window has at least, unless it has enough bytes. buffer_mb: megabytes (2**20 bytes) of
            encoded images that end a window. block: images of a block of a tar, at most. block_mb: megabytes of one.
    """

    buffer: Positive = 10_000
    buffer_mb: Positive = 256
    block: Positive = 256
    block_mb: Positive = 8

    @classmethod
    def asked(cls, options: Mapping[str, Any], where: str) -> Shuffle:
        """The rule with what the options `buffer` and `buffer_mb` say.

        Raises:
            InputError: one is no positive number.
        """
        given = {}
        for key in ("buffer", "buffer_mb"):
            if key in options:
                text = str(options[key])
                if not text.isdecimal() or not int(text):
                    raise InputError(f"{where}: ?{key.replace('_', '-')}={text}: expected a positive whole number")
                given[key] = int(text)
        return cls(**given)


def refuse_unstreamed(options: Mapping[str, Any], where: str) -> None:
    """Refuse what says how shards are shuffled of images that do not stay in them.

    Raises:
        InputError: names the option.
    """
    for key in ("buffer", "buffer_mb"):
        if key in options and not options.get("stream"):
            name = key.replace("_", "-")
            raise InputError(
                f"{where}: ?{name}= says how images that stay in their shards are shuffled; add ?stream or leave it out"
            )
