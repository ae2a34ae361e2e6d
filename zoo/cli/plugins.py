"""`zoo plugins` lists the installed plugins; `zoo plugins check` runs the conformance kit on them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

import zoo
from zoo.base.text import plural
from zoo.cli.shared import table
from zoo.cli.shared.table import Column
from zoo.cli.shared.terminal import Terminal
from zoo.errors import PluginError

if TYPE_CHECKING:
    from zoo.testing import Case, Outcome

COLUMNS = (
    Column("PLUGIN"),
    Column("DISTRIBUTION"),
    Column("VERSION", drop=3),
    Column("STATUS"),
    Column("MS", right=True, drop=2),
    Column("COMPONENTS", right=True),
    Column("MODELS", right=True),
    Column("NOTE", flexible=True),
)
CHECK_COLUMNS = (
    Column("SUBJECT"),
    Column("CHECK"),
    Column("RESULT"),
    Column("MS", right=True, drop=1),
    Column("NOTE", flexible=True),
)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of objects on stdout.")
@click.pass_context
def plugins(context: click.Context, as_json: bool) -> None:
    """List the installed plugins: what each offers, or why it was left out and what to do.

    With --debug, the traceback of each plugin that failed is printed on stderr. ZOO_DISABLE_PLUGINS=NAME,...
    leaves plugins out, ZOO_LOAD_PLUGINS=NAME,... loads only these, and --no-plugins loads only the built-in
    ones. ZOO_PLUGIN_SECONDS is the time limit for importing each plugin (default: 20).

    Examples:

    \b
      zoo plugins
      zoo plugins check NAME
    """
    if context.invoked_subcommand is not None:
        return
    rows = zoo.plugins(reporter=Terminal())
    if as_json:
        table.emit_json(rows.rows)
    else:
        table.emit_table(COLUMNS, [_cells(row) for row in rows], table.width())
    if "--debug" in sys.argv:
        for row in rows:
            if row["detail"]:
                table.say(f"plugin {row['name']!r}:\n{row['detail']}")


def _cells(row: dict[str, Any]) -> list[str]:
    offers = ", ".join(row["components"])
    why = f"{row['reason']}; {row['fix']}" if row["fix"] else row["reason"]
    return [
        row["name"],
        row["distribution"],
        row["version"],
        row["status"],
        f"{row['milliseconds']:.1f}" if row["status"] == "loaded" else "-",
        str(len(row["components"])),
        str(len(row["models"])),
        why or "; ".join(row["warnings"]) or offers,
    ]


@plugins.command("check")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--only", default="*", metavar="GLOB", help="Check only components and models whose name matches GLOB.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array of objects on stdout.")
@click.pass_context
def check(context: click.Context, names: tuple[str, ...], only: str, as_json: bool) -> None:
    """Run the conformance kit (zoo.testing) on installed plugins.

    The exit code is 1 if a check fails.

    Examples:

    \b
      zoo plugins check waves
      zoo plugins check cnn --only cnn.residual
    """
    from zoo.testing import cases_like

    cases = cases_like(names, only)
    if as_json:
        import msgspec

        outcomes = [_run(case) for case in cases]
        table.emit_json(msgspec.to_builtins(outcomes))
    elif table.width() is None:
        outcomes = _run_and_print(cases)
    else:
        outcomes = [_run(case) for case in cases]
        table.emit_table(CHECK_COLUMNS, [_cells_of(o) for o in outcomes], table.width())
    _conclude(context, outcomes)


def _cells_of(o: Outcome) -> list[str]:
    result = o.result.upper() if o.result == "failed" else o.result
    return [o.subject, o.check, result, f"{o.milliseconds:.0f}", o.note]


def _run_and_print(cases: list[Case]) -> list[Outcome]:
    """Run the cases, and print the line of each when it is done: in a pipe or a log, nobody waits for the end."""
    widths = [max(len(case.subject) for case in cases), max(len(case.check) for case in cases), 7, 6]
    titles = [column.title for column in CHECK_COLUMNS]

    def show(cells: list[str]) -> None:
        subject, name, result, milliseconds, note = (table.clean(cell) for cell in cells)
        left = (text.ljust(width) for text, width in zip((subject, name, result), widths, strict=False))
        table.emit(["  ".join((*left, milliseconds.rjust(widths[3]), note)).rstrip()])

    show(titles)
    outcomes = []
    for case in cases:
        outcomes.append(_run(case))
        show(_cells_of(outcomes[-1]))
    return outcomes


def _run(case: Case) -> Outcome:
    from zoo.testing.effects import printed

    show = sys.stderr.isatty() and not table.is_quiet()
    if show:
        print(f"\r\033[K{case.id}", end="", file=sys.stderr, flush=True)
    with printed():  # stdout is for the result, whatever a plugin prints
        outcome = case.run()
    if show:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if outcome.detail and "--debug" in sys.argv:
        table.say(f"{case.id}:\n{outcome.detail}")
    return outcome


def _conclude(context: click.Context, outcomes: list[Outcome]) -> None:
    from zoo.testing import proves_something

    count = {r: sum(o.result == r for o in outcomes) for r in ("passed", "failed", "skipped")}
    shown = f"{count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped"
    table.say(f"{plural(len(outcomes), 'check')}: {shown}")
    if count["failed"]:
        context.exit(1)
    if not proves_something(outcomes):
        raise PluginError(
            "no check that builds a component ran, so nothing was verified; leave out --only, or fix the skipped checks"
        )
