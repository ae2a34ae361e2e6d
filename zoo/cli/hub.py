"""The commands `zoo package`, `publish`, `pull`, `verify` and `search`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.signals import StopRequests
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
    """The options that `package` and `publish` share."""
    shared = (
        click.option(
            "--licence", default="apache-2.0", show_default=True, help="Licence of the weights, as the Hub names it."
        ),
        options.data_dir,
        click.option("--device", help="Device on which the test split is measured; default: the device of the run."),
        click.option(
            "--no-predictions",
            is_flag=True,
            help="Do not measure the test split: no confusion matrix, no table of classes, no data needed.",
        ),
    )
    for option in reversed(shared):
        command = option(command)
    return command


@click.command("package")
@click.argument("run", type=RunName())
@click.option("--output", type=FOLDER, metavar="DIR", help="Folder of the package; default: RUN/package.")
@_packaging
def package(
    run: str, output: Path | None, licence: str, data_dir: str | None, device: str | None, no_predictions: bool
) -> None:
    """Make a package of RUN: weights, config, card and pictures, with the hash of each file.

    Examples:

    \b
      zoo package runs/hybrid-alt-1-digits-20261121-120000
      zoo package runs/mine --output mine --no-predictions
    """
    from zoo.hub.pack import package as make

    source = _local(run)
    folder = output or source / "package"
    with StopRequests():  # so that SIGTERM leaves no temporary folder behind
        make(source, folder, licence=licence, data_dir=data_dir, device=device, predictions=not no_predictions)
    table.say(f"next: zoo verify {folder}\n  or: zoo publish {folder} OWNER/NAME")
    print(folder)


@click.command("publish")
@click.argument("run", type=RunName())
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private if it is created.")
@click.option("--revision", metavar="BRANCH", help="Branch to commit to, instead of main.")
@click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing.")
@click.option(
    "--replace-edits",
    is_flag=True,
    help="Replace the card or a picture in the repository even if somebody edited it there.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be sent, but send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
@_packaging
def publish(
    run: str,
    repo: str,
    private: bool,
    revision: str | None,
    create_pr: bool,
    replace_edits: bool,
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

    from zoo.hub.publish import check_token, prepare
    from zoo.hub.publish import publish as send
    from zoo.hub.ref import Ref, parse_ref

    source = _local(run)
    ref = parse_ref(repo)
    if ref.revision and revision:
        raise InputError(f"{repo}: already names a branch; leave out --revision")
    ref = Ref(ref.repo, ref.revision or (parse_ref(f"{ref.repo}@{revision}").revision if revision else None))
    asked["predictions"] = not asked.pop("no_predictions")
    if not dry_run:
        check_token()  # before the test split is measured
    with StopRequests(), tempfile.TemporaryDirectory(prefix="zoo-publish-") as temporary:
        plan = prepare(source, ref, Path(temporary), **asked)
        _say_edits(plan.edited, "it is sent as it is")
        if dry_run:
            _show(plan, ref, as_json)
            return
        published = send(plan, ref, private=private, create_pr=create_pr, replace_edits=replace_edits)
    if as_json:
        table.emit_json(published._asdict())
    elif published.tag:
        tagged = f"hf://{published.repo}@{published.tag}"
        table.say(f"published: {tagged} (commit {published.commit[:12]})\nnext: zoo verify {tagged}")
        print(f"hf://{published.repo}@{published.commit}")
    else:
        table.say("the pull request is open; the owner of the repository decides on it")
        print(published.url)


def _local(run: str) -> Path:
    """The folder of RUN, which must be on this machine.

    Raises:
        InputError: it is a package on the Hub.
    """
    if run.startswith("hf://"):
        raise InputError(f"{run} is a package already; for a copy to publish: zoo pull {run} --output DIR")
    return Path(run)


def _say_edits(names: Sequence[str], what: str) -> None:
    for name in names:
        table.say(f"{name} was edited after the package was made: {what}")


def _show(plan: Any, ref: Any, as_json: bool) -> None:
    card = (plan.package.folder / "README.md").read_text("utf-8")
    if as_json:
        files = [{"name": name, "bytes": size} for name, size in plan.files]
        table.emit_json({"repo": ref.repo, "tag": plan.tag, "title": plan.title, "files": files, "card": card})
        return
    columns = (Column("FILE"), Column("BYTES", right=True))
    table.emit_table(columns, [[name, f"{size:,}"] for name, size in plan.files], table.width())
    total = sum(size for _, size in plan.files)
    table.say(
        f"zoo publish would make one commit in {ref}: {plan.title!r}, {total:,} bytes, tag {plan.tag}; nothing was sent"
    )
    table.emit(["", *map(table.clean, card.splitlines())])


@click.command("pull")
@click.argument("ref", metavar="OWNER/NAME[@REVISION]")
@click.option(
    "--output", type=FOLDER, metavar="DIR", help="Folder to copy the package to; default: only the Hub's cache."
)
def pull(ref: str, output: Path | None) -> None:
    """Fetch a package from the Hub, check its hashes and its model, and print its folder.

    Examples:

    \b
      zoo pull me/hybrid-digits
      zoo pull me/hybrid-digits@v1 --output here
    """
    from zoo.hub.copy import copy_out
    from zoo.hub.download import fetch
    from zoo.hub.ref import parse_ref

    with StopRequests():
        fetched = fetch(parse_ref(ref), everything=True)
        folder = copy_out(fetched, output) if output else fetched.folder
    _say_edits(fetched.package.edited, "SHA256SUMS lists another one; weights, config and results are checked")
    table.say(f"pulled: {fetched.pinned}\nnext: zoo predict {parse_ref(ref)} IMAGE")
    print(folder)


@click.command("verify")
@click.argument("source", type=RunName(), metavar="RUN")
@click.option(
    "--dataset",
    metavar="SPEC",
    help="Your copy of the images, as a SPEC; needed if the package was trained on its author's own files.",
)
@options.data_dir
@click.option("--device", help="Device to measure on; default: the recorded kind of device, if this machine has one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def verify(source: str, dataset: str | None, data_dir: str | None, device: str | None, as_json: bool) -> None:
    """Hash a package, build its model, evaluate it, and compare the results with the recorded ones.

    RUN is hf://OWNER/NAME[@REVISION], the folder of a package, or a run that has its package in it: its folder, its
    name below runs/, or `last`.

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
    failed = next((c for c in checks if not c.holds), None)
    if failed:
        raise VerifyError(f"{source}: {failed.name} differs from the record: {failed.seen}")
    table.say("verified")


@click.command("search")
@click.argument("query", default="")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only packages with this tag; may be repeated.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="Maximum number of packages to list."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def search(query: str, tags: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Search the Hub for packages of this library whose name contains QUERY.

    The accuracies are what the model cards claim; `zoo verify` measures them again.

    Examples:

    \b
      zoo search digits
      zoo search --tag hybrid --limit 10 --json
    """
    show_hits(query, tags, limit, as_json)


def show_hits(query: str, tags: tuple[str, ...], limit: int, as_json: bool, dataset: str = "") -> None:
    """Print packages of the Hub as a table or as JSON, also for `zoo list --hub`.

    Args:
        dataset: only packages with a result on it.
    """
    from zoo.hub.search import search as ask

    hits = [h for h in ask(query, tags=tags, limit=limit) if dataset in ("", *(d for d, _, _ in h.results))]
    if as_json:
        table.emit_json([_row(hit) for hit in hits])
    elif hits:
        table.emit_table(COLUMNS, [_cells(hit) for hit in hits], table.width())
    if not hits:
        table.say("no package on the Hub matches")


def _row(hit: Hit) -> dict[str, Any]:
    results = [{"dataset": d, "metric": m, "value": v} for d, m, v in hit.results]
    return {"repo": hit.repo, "downloads": hit.downloads, "tags": list(hit.tags), "results": results}


def _cells(hit: Hit) -> list[str]:
    dataset, value = hit.top1 or ("-", None)
    shown = "-" if value is None else f"{value:.2%}"
    return [f"hf://{hit.repo}", f"{hit.downloads:,}", shown, dataset, ", ".join(hit.tags)]
