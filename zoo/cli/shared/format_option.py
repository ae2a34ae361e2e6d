"""`--format` of `zoo export`: names of formats, those of plugins too, in help and completion; torch is not imported."""

from __future__ import annotations

import click

from zoo.catalogue.export_formats import BUILT_IN, export_formats
from zoo.catalogue.registry import load_registry
from zoo.errors import ZooError


def format_names() -> dict[str, str]:
    """What can be written: the summary of each format by its name."""
    return {name: component.summary for name, component in export_formats(load_registry()).items()}


class Format(click.ParamType):
    """The name of a format; whether there is one is the call's to say."""

    name = "FORMAT"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """All names, as a list of choices shows them; ours alone where the catalogue cannot be read."""
        try:
            names = [*format_names()]
        except (ZooError, OSError):
            names = [component.name for component in BUILT_IN]
        return f"[{'|'.join(names)}]"
