"""Parts of the reference that are made from the code when the pages are built; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from zoo import errors
from zoo.cli import EXIT_CODES


def setup(app):
    """The directive, and the examples of a command's help as a block of shell commands."""
    app.add_directive("exit-codes", ExitCodes)
    app.connect("sphinx-click-process-description", examples_as_code)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def exit_codes() -> Iterator[tuple[int, str, str]]:
    """(code, name of the error or "", what it means), by code."""
    found = [(code, "", means) for code, means in EXIT_CODES.items()]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.ZooError) and kind is not errors.ZooError:
            found.append((kind.exit_code, name, " ".join((kind.__doc__ or "").split())))
    return iter(sorted(found))


class ExitCodes(Directive):
    """`exit-codes`: the table of all exit codes."""

    def run(self):
        """A table written as Markdown, read by the page's own parser."""
        lines = ["| Code | Error | Means |", "|--:|---|---|"]
        for code, name, means in exit_codes():
            error = f"{{py:class}}`~zoo.errors.{name}`" if name else ""
            lines.append(f"| {code} | {error} | {means} |")
        box = nodes.container(classes=["exit-codes"])
        self.state.nested_parse(StringList(lines, source="zoo/errors.py"), self.content_offset, box)
        return [box]


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
