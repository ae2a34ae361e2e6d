"""`zoo doctor`: checks this installation, and says how to fix what is wrong."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from zoo.base.paths import local_path
from zoo.cli.shared import table

if TYPE_CHECKING:
    from zoo.cli.doctor.finding import Finding

WIDTH: Final = 80
COLOURS: Final = (("ok", "32"), ("note", "36"), ("warning", "33"), ("error", "31"))
INDENT: Final = " " * 11


@click.command()
@click.option(
    "--runs",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of runs to check.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=60),
    default=4.0,
    show_default=True,
    help="Seconds to wait for an answer from the Hub.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.pass_context
def doctor(context: click.Context, root: Path, timeout: float, as_json: bool) -> None:
    """Check versions, devices, folders, plugins, data, the Hub and runs, and say how to fix what is wrong.

    Nothing is changed, and nothing is sent except one HEAD request to the Hub, without the token. The exit
    code is 1 if there is an error; warnings and notes leave it at 0.

    Examples:

    \b
      zoo doctor
      zoo doctor --json > doctor.json
      HF_HUB_OFFLINE=1 zoo doctor
    """
    from zoo.cli.doctor.examine import examine

    findings = examine(local_path(root), patience=timeout)
    count = {level: sum(f.level == level for f in findings) for level, _ in COLOURS}
    if as_json:
        import msgspec

        rows = [msgspec.to_builtins(finding) for finding in findings]
        table.emit_json({"ok": not count["error"], "counts": count, "findings": rows})
    else:
        table.emit(_lines(findings))
    table.say(_summary(count))
    if count["error"]:
        context.exit(1)


def _summary(count: dict[str, int]) -> str:
    def counted(level: str) -> str:
        return f"{count[level]} {level}{'' if count[level] == 1 else 's'}"

    if count["error"]:
        return f"{counted('error')} and {counted('warning')}: fix the errors first"
    return "no problems found" if not count["warning"] else f"it works, with {counted('warning')}"


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    limit = min(table.width() or WIDTH, WIDTH)
    for number, (area, group) in enumerate(groupby(findings, key=lambda f: f.area)):
        if number:
            yield ""
        yield table.bold(area)
        for finding in group:
            yield from _finding(finding, limit)


def _finding(finding: Finding, limit: int) -> Iterator[str]:
    first, *rest = _wrapped(finding.said, limit)
    yield f"  {_coloured(finding.level)}{' ' * (9 - len(finding.level))}{first.strip()}"
    yield from rest
    if finding.fix:
        yield from _wrapped(f"-> {finding.fix}", limit)


def _wrapped(text: str, limit: int) -> list[str]:
    """The text wrapped to the limit; a longer word (a path, a command) is not broken, so that it can be copied."""
    return textwrap.wrap(
        table.clean(text),
        limit,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _coloured(level: str) -> str:
    return f"\033[{dict(COLOURS)[level]}m{level}\033[0m" if table.on_terminal() else level
