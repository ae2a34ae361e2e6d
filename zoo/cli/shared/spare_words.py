"""A word too many on the command line: where it is a dataset, the answer is the option that takes it."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from zoo.errors import InputError, ZooError

TAKES_A_DATASET = ("--on", "--dataset")
"""Options that take a SPEC; the first one that a command has."""


class Command(click.Command):
    """A command that says how a dataset is given, if one stands where no argument is taken."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            InputError: a dataset is among them, without its option. click.UsageError: as click.
        """
        ctx.allow_extra_args = True
        spare = super().parse_args(ctx, args)
        if spare and not ctx.resilient_parsing:
            self._refuse(ctx, spare)
        return spare

    def _refuse(self, ctx: click.Context, spare: list[str]) -> NoReturn:
        known = [flag for flag in TAKES_A_DATASET if any(flag in parameter.opts for parameter in self.params)]
        if known and (datasets := [word for word in spare if _is_dataset(word)]):
            raise InputError(
                f"{datasets[0]!r}: a dataset is given by an option: {ctx.command_path} ... {known[0]} {datasets[0]}"
            )
        ctx.fail(f"Got unexpected extra argument{'s' if len(spare) > 1 else ''} ({' '.join(spare)})")


def _is_dataset(word: str) -> bool:
    from zoo.catalogue.registry import load_registry
    from zoo.data.dataset_spec import SCHEMES

    if word.partition(":")[0] in SCHEMES or Path(word).is_dir():
        return True
    try:
        return word in load_registry().datasets
    except ZooError:
        return False
