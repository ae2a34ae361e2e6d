"""`zoo package`, `publish`, `pull`, `verify` and `search`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.shared import options, table
from zoo.cli.shared.table import Column
from zoo.errors import InputError, VerifyError

if TYPE_CHECKING:
    from zoo.hub.search import Hit

COLUMNS = (
    Column("REPOSITORY"),
    Column("DOWNLOADS", right=True),
    Column("TOP-1", right=True),
    Column("DATASET"),
    Column("TAGS", flexible=True, drop=1),
)
FOLDER = click.Path(path_type=Path)


def _packaging(command: Any) -> Any:
    """The options of what makes a package."""
    added = (
        click.option(
            "--licence", default="apache-2.0", show_default=True, help="Of the weights, as the Hub names it."
        ),
        options.data_dir,
        click.option("--device", help="Of the pass over the test split; default: the device of the run."),
        click.option(
            "--no-predictions", is_flag=True, help="No confusion matrix, no table of classes; needs no data."
        ),
    )
    for option in reversed(added):
        command = option(command)
    return command


@click.command("package")
@click.argument("run", type=FOLDER)
@click.option("--output", type=FOLDER, metavar="DIR", help="The package's folder; default: RUN/package.")
@_packaging
def package(
    run: Path,
    output: Path | None,
    licence: str,
    data_dir: str | None,
    device: str | None,
    no_predictions: bool,
) -> None:
    """Make a package of RUN: weights, config, card, pictures, and the hash of each.

    Examples:

    \b
      zoo package runs/hybrid-alt-1-digits-20261121-120000
      zoo package runs/mine --output mine --no-predictions
    """
    from zoo.hub.pack import package as make

    folder = output or run / "package"
    make(run, folder, licence=licence, data_dir=data_dir, device=device, predictions=not no_predictions)
    table.say(f"next: zoo verify {folder}\n  or: zoo publish {folder} OWNER/NAME")
    print(folder)


@click.command("publish")
@click.argument("run", type=FOLDER)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="If the repository is made: only you see it.")
@click.option("--revision", metavar="BRANCH", help="Commit there instead of to main.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@_packaging
def publish(
    run: Path,
    repo: str,
    private: bool,
    revision: str | None,
    create_pr: bool,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Publish RUN (a run folder or a package) to the Hub as OWNER/NAME, in one commit with a tag.

    Examples:

    \b
      zoo publish runs/mine me/hybrid-digits --dry-run
      zoo publish runs/hybrid-alt-1-digits-20261121-120000 me/hybrid-digits
      zoo publish runs/mine/package me/hybrid-digits --private --json
    """
    import tempfile

    from zoo.hub.publish import prepare
    from zoo.hub.publish import publish as send
    from zoo.hub.ref import Ref, parse_ref

    ref = parse_ref(repo)
    if ref.revision and revision:
        raise InputError(f"{repo}: a branch is named twice; leave out --revision")
    ref = Ref(ref.repo, ref.revision or (parse_ref(f"{ref.repo}@{revision}").revision if revision else None))
    asked["predictions"] = not asked.pop("no_predictions")
    with tempfile.TemporaryDirectory(prefix="zoo-publish-") as temporary:
        plan = prepare(run, ref, Path(temporary), **asked)
        if dry_run:
            _show(plan, ref, as_json)
            return
        done = send(plan, ref, private=private, create_pr=create_pr)
    if as_json:
        table.emit_json({"repo": done.repo, "commit": done.commit, "tag": done.tag, "url": done.url})
    elif done.tag:
        table.say(f"published: hf://{done.repo}@{done.tag} (commit {done.commit[:12]})")
        table.say(f"next: zoo verify hf://{done.repo}@{done.tag}")
        print(f"hf://{done.repo}@{done.commit}")
    else:
        table.say("pull request opened; its owner decides")
        print(done.url)


def _show(plan: Any, ref: Any, as_json: bool) -> None:
    card = (plan.package.folder / "README.md").read_text("utf-8")
    if as_json:
        files = [{"name": name, "bytes": size} for name, size in plan.files]
        table.emit_json(
            {"repo": ref.repo, "tag": plan.tag, "title": plan.title, "files": files, "card": card}
        )
        return
    columns = (Column("FILE"), Column("BYTES", right=True))
    table.emit_table(columns, [[name, f"{size:,}"] for name, size in plan.files], table.width())
    total = sum(size for _, size in plan.files)
    table.say(
        f"would be one commit to {ref}: {plan.title!r}, {total:,} bytes, tag {plan.tag}; nothing was sent"
    )
    table.emit(["", *map(table.clean, card.splitlines())])


@click.command("pull")
@click.argument("ref", metavar="OWNER/NAME[@REVISION]")
@click.option(
    "--output", type=FOLDER, metavar="DIR", help="Copy it there; default: only into the Hub's cache."
)
def pull(ref: str, output: Path | None) -> None:
    """Fetch a package from the Hub and verify it; prints its folder.

    Examples:

    \b
      zoo pull me/hybrid-digits
      zoo pull me/hybrid-digits@v1 --output here
    """
    from zoo.hub.copy import copy_out
    from zoo.hub.fetch import fetch
    from zoo.hub.ref import parse_ref

    fetched = fetch(parse_ref(ref), everything=True)
    folder = copy_out(fetched, output) if output else fetched.folder
    table.say(f"pulled: {fetched.pinned}\nnext: zoo predict {parse_ref(ref)} IMAGE")
    print(folder)


@click.command("verify")
@click.argument("source", metavar="hf://OWNER/NAME[@REVISION]|DIR")
@click.option(
    "--dataset",
    metavar="SPEC",
    help="Where the images are, if only the author had them at the recorded place.",
)
@options.data_dir
@click.option("--device", help="Default: the kind that was recorded, if it is here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(source: str, dataset: str | None, data_dir: str | None, device: str | None, as_json: bool) -> None:
    """Hash a package again, rebuild it, evaluate it again, and compare with its recorded numbers.

    Examples:

    \b
      zoo verify hf://me/hybrid-digits
      zoo verify runs/mine/package --json
    """
    from zoo.hub.verify import verify as check

    checks = check(source, dataset=dataset, data_dir=data_dir, device=device)
    if as_json:
        table.emit_json([{"check": c.name, "holds": c.holds, "seen": c.seen} for c in checks])
    else:
        rows = [[c.name, "ok" if c.holds else "DIFFERS", c.seen] for c in checks]
        columns = (Column("CHECK"), Column(""), Column("SEEN", flexible=True))
        table.emit_table(columns, rows, table.width())
    wrong = [c for c in checks if not c.holds]
    if wrong:
        raise VerifyError(f"{source}: {wrong[0].name} is not what was recorded: {wrong[0].seen}")
    print("verified", file=sys.stderr)


@click.command("search")
@click.argument("query", default="")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag; may be repeated.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def search(query: str, tags: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Search the Hub for packages of this library whose name holds QUERY.

    Results are as their cards say; `zoo verify` checks them.

    Examples:

    \b
      zoo search digits
      zoo search --tag hybrid --limit 10 --json
    """
    show_hits(query, tags, limit, as_json)


def show_hits(query: str, tags: tuple[str, ...], limit: int, as_json: bool, dataset: str = "") -> None:
    """Print what the Hub has, as a table or as JSON (also `zoo list --hub`); `dataset`: with a result on it."""
    from zoo.hub.search import search as ask

    hits = [h for h in ask(query, tags=tags, limit=limit) if dataset in ("", *(d for d, _, _ in h.results))]
    if as_json:
        table.emit_json([_row(hit) for hit in hits])
    elif hits:
        table.emit_table(COLUMNS, [_cells(hit) for hit in hits], table.width())
    if not hits:
        table.say("nothing on the Hub matches")


def _row(hit: Hit) -> dict[str, Any]:
    results = [{"dataset": d, "metric": m, "value": v} for d, m, v in hit.results]
    return {"repo": hit.repo, "downloads": hit.downloads, "tags": list(hit.tags), "results": results}


def _cells(hit: Hit) -> list[str]:
    dataset, value = hit.top1 or ("-", None)
    shown = "-" if value is None else f"{value:.2%}"
    return [f"hf://{hit.repo}", f"{hit.downloads:,}", shown, dataset, ", ".join(hit.tags)]
