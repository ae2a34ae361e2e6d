"""Parts of the reference that are made from the code when the pages are built; nothing here imports torch."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from typing import get_args

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from zoo import errors
from zoo.catalogue.augmentation import Step
from zoo.catalogue.keys import keys_of, summary_of
from zoo.cli import EXIT_CODES

VALUE = re.compile(r'"[\w:.*-]+"')


def setup(app):
    """The directives, and the examples of a command's help as a block of shell commands."""
    app.add_directive("exit-codes", ExitCodes)
    app.add_directive("keys-of", KeysOf)
    app.add_directive("augmentation-steps", AugmentationSteps)
    app.connect("sphinx-click-process-description", examples_as_code)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def exit_codes() -> Iterator[tuple[int, str, str]]:
    """(code, name of the error or "", what it means), by code."""
    found = [(code, "", means) for code, means in EXIT_CODES.items()]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.ZooError) and kind is not errors.ZooError:
            found.append((kind.exit_code, name, " ".join((kind.__doc__ or "").split())))
    return iter(sorted(found))


def table_of_keys(struct) -> Iterator[str]:
    """The keys of a struct's table as a Markdown table."""
    yield from ("| Key | Is | Default | Means |", "|---|---|---|---|")
    for key in keys_of(struct):
        default = key.default if key.default in ("", "required") else f"`{key.default}`"
        cells = (f"`{key.name}`", VALUE.sub(r"`\g<0>`", key.type), default, VALUE.sub(r"`\g<0>`", key.line))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def augmentation_steps() -> Iterator[str]:
    """Each augmentation step: its name, what it does, and its keys."""
    for struct in get_args(Step):
        yield from (f"**`{struct.__struct_config__.tag}`**: {summary_of(struct)}", "", *table_of_keys(struct))


class Generated(Directive, ABC):
    """A directive whose content is Markdown made from the code, read by the page's own parser."""

    source = ""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """The Markdown."""

    def run(self):
        """One container with what the lines say."""
        box = nodes.container(classes=[self.name])
        self.state.nested_parse(StringList(list(self.lines()), source=self.source), self.content_offset, box)
        return [box]


class ExitCodes(Generated):
    """`exit-codes`: the table of all exit codes."""

    source = "zoo/errors.py"

    def lines(self) -> Iterator[str]:
        """One row for each code and error."""
        yield from ("| Code | Error | Means |", "|--:|---|---|")
        for code, name, means in exit_codes():
            error = f"{{py:class}}`~zoo.errors.{name}`" if name else ""
            yield f"| {code} | {error} | {means} |"


class KeysOf(Generated):
    """`keys-of STRUCT`: the table of the keys of a struct, given by its full name."""

    source = "zoo/catalogue/keys.py"
    required_arguments = 1

    def lines(self) -> Iterator[str]:
        """One row for each key."""
        module, _, name = self.arguments[0].rpartition(".")
        return table_of_keys(getattr(import_module(module), name))


class AugmentationSteps(Generated):
    """`augmentation-steps`: every augmentation step with its keys."""

    source = "zoo/catalogue/augmentation.py"

    def lines(self) -> Iterator[str]:
        """A paragraph and a table for each step."""
        return augmentation_steps()


def examples_as_code(app, context, lines: list[str]) -> None:
    """Turn the line blocks that sphinx-click makes of unwrapped text (our examples) into code."""
    del app, context
    made: list[str] = []
    for line in lines:
        if line.startswith("| "):
            if not made or not made[-1].startswith("   "):
                made += ["", ".. code-block:: sh", ""]
            made.append(f"   {line[2:].strip()}")
        else:
            made.append(line)
    lines[:] = made
