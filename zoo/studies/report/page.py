"""One HTML page of runs and published results: everything is inside, nothing is fetched.

What strangers wrote (names of runs, classes, models) enters as escaped text or as JSON; scripts are allowed
by their hashes alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.base.install import install_line
from zoo.base.templates import templates
from zoo.base.text import duration, plural
from zoo.base.version import __version__
from zoo.base.web_page import allowed
from zoo.data.portable import is_local, portable_spec
from zoo.errors import InputError
from zoo.runs.compare import GROUPS, facts, told
from zoo.runs.find import MAX_POINTS, Run, curves, number, row_of, short
from zoo.runs.without_paths import portable

if TYPE_CHECKING:
    from zoo.studies.report.measure import Seen

MAX_BYTES, MAX_BYTES_OF_MANY = 2_000_000, 10_000_000
BYTES_OF_RUN = 10_000
"""Of each of many runs; their curves then have at least `MIN_POINTS` epochs, but few of them have images."""

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("core.js", "table.js", "plots.js", "curves.js", "classes.js")
LIBRARY = Path("server") / "static" / "js" / "bokeh.min.js"
MOST_CELLS = 4000
MIN_POINTS = 50


class Column(NamedTuple):
    """A column of the table of results: the row's key, its title, and whether it holds numbers."""

    key: str
    title: str
    numeric: bool = False


COLUMNS = (
    Column("name", "Name"),
    Column("top1", "Top-1", True),
    Column("map", "mAP", True),
    Column("protocol", "Protocol"),
    Column("model", "Model"),
    Column("dataset", "Dataset"),
    Column("kind", "Kind"),
    Column("val_top1", "Validation", True),
    Column("val_map", "Validation mAP", True),
    Column("top5", "Top-5", True),
    Column("parameters", "Parameters", True),
    Column("flops", "FLOPs", True),
    Column("minutes", "Training time", True),
    Column("epochs", "Epochs", True),
    Column("recipe", "Recipe"),
    Column("seed", "Seed", True),
    Column("device", "Device"),
    Column("source", "Source"),
)


@dataclass(frozen=True)
class Content:
    """What a page shows.

    Attributes:
        catalogue: rows of `zoo.studies.report.published.rows`, with "flops" where they were counted.
        flops: by a run's name. seen: by a run's name, what was seen, or the line that says why not.
        images: of each run, the most confidently confused. stamp: a date to print; "" prints none.
    """

    runs: Sequence[Run]
    catalogue: Sequence[dict[str, Any]] = ()
    flops: Mapping[str, int | None] = field(default_factory=dict)
    seen: Mapping[str, Seen | str] = field(default_factory=dict)
    images: int = 12
    title: str = "hybrid-zoo: runs and results"
    stamp: str = ""


def library() -> tuple[str, str]:
    """Bokeh's script, as its wheel ships it, and its version.

    Raises:
        InputError: it is not installed.
    """
    package = find_spec("bokeh")
    folders = package.submodule_search_locations if package else None
    path = Path(next(iter(folders))) / LIBRARY if folders else None
    try:
        if path is not None:
            return path.read_text("utf-8"), version("bokeh")
    except (OSError, PackageNotFoundError):
        pass
    raise InputError(f"zoo report draws with Bokeh, which is not installed: {install_line('report')}")


def limit_of(count: int) -> int:
    """The bytes that a page of so many runs may have: 2 MB, of more than 200 runs up to 10 MB."""
    return min(MAX_BYTES_OF_MANY, max(MAX_BYTES, BYTES_OF_RUN * count))


def render(content: Content, limit: int | None = None) -> tuple[str, list[str]]:
    """The page, below a number of bytes.

    Args:
        limit: None: `limit_of` its runs.
    Returns:
        (HTML, one line for each thing that was left out for the sake of its size).
    Raises:
        InputError: Bokeh is missing, or the runs do not fit even so.
    """
    found = max((len(seen.worst) for seen in content.seen.values() if not isinstance(seen, str)), default=0)
    images, points = min(content.images, found), MAX_POINTS
    limit = limit or limit_of(len(content.runs))
    while len((page := _page(content, _data(content, images, points))).encode()) >= limit:
        if images > 0:
            images //= 2
        elif points > MIN_POINTS:
            points //= 2
        else:
            raise InputError(
                f"{plural(len(content.runs), 'run does', 'runs do')} not fit into a page of {limit / 1e6:.1f} MB; "
                "name fewer: `zoo report RUN...`"
            )
    left_out = []
    if images < min(content.images, found):
        left_out.append(f"{plural(images, 'image')} of each run, not {content.images}: the page would be too large")
    if points < MAX_POINTS:
        left_out.append(f"{plural(points, 'epoch')} of each run's curves at most: the page would be too large")
    return page, left_out


# ---- the data that the scripts read ---------------------------------------------------------


def table_rows(content: Content) -> list[dict[str, Any]]:
    """The rows of the table: runs, then the catalogue's; `run` is the place among the runs.

    They are in the order in which the page offers their datasets, the best first: as they are read without scripts.
    """
    rows = []
    for i, run in enumerate(content.runs):
        row = row_of(run) | {"kind": "run", "run": i, "flops": content.flops.get(run.name)}
        row["source"] = "" if run.state == "finished" else f"{run.state} after {plural(row['epochs'], 'epoch')}"
        rows.append(row)
        row["dataset"] = portable_spec(row["dataset"])
    rows += [dict(row) for row in content.catalogue]
    for row in rows:
        seconds = row.get("seconds")
        row["minutes"] = None if seconds is None else float(f"{seconds / 60:.4g}")
        row["source"] = "; ".join(filter(None, (row.get("source"), row.get("note"))))
    keys = {*(column.key for column in COLUMNS), "run"}
    kept = [{k: v for k, v in row.items() if k in keys and v is not None} for row in rows]
    place = {name: i for i, (name, _) in enumerate(datasets(kept))}
    return sorted(kept, key=lambda row: (place[row["dataset"]], -row.get("top1", row.get("map", -1.0))))


def datasets(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The datasets of rows, each with what there is of it: those of most runs first.

    Results on different datasets cannot be ranked beside one another, so the page shows one at a time.
    """
    counts: dict[str, list[int]] = {}
    for row in rows:
        counts.setdefault(row["dataset"], [0, 0])["run" not in row] += 1
    found = sorted(counts.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))
    return [(name, f"{name} ({_counted(runs, others)})") for name, (runs, others) in found]


def _counted(runs: int, others: int) -> str:
    told = [plural(runs, "run")] if runs else []
    return ", ".join([*told, f"{plural(others, 'result')} of the catalogue"] if others else told)


def _data(content: Content, images: int, points: int) -> dict[str, Any]:
    shared_images: dict[str, str] = {}
    classes: list[list[str]] = []
    runs = [_run(run, content, images, points, shared_images, classes) for run in content.runs]
    words: dict[str, int] = {}
    return {
        "rows": table_rows(content),
        "runs": runs,
        "classes": classes,
        "images": shared_images,
        "facts": _facts(content.runs, words),
        "words": list(words),
    }


def _run(
    run: Run, content: Content, images: int, points: int, shared_images: dict[str, str], classes: list[list[str]]
) -> dict[str, Any]:
    """One run, its class names and images put among those that runs share."""
    names = list(run.record.data.classes)
    if names not in classes:
        classes.append(names)
    seen = content.seen.get(run.name, "it was not asked for")
    entry: dict[str, Any] = {
        "name": run.name,
        "dataset": portable_spec(run.record.data.spec),
        "protocol": run.record.protocol,
        "curves": curves(run, points),
        "classes": classes.index(names),
        "seen": None,
        "images": [],
        "note": "",
    }
    if isinstance(seen, str):
        seen = _without_paths(seen, run)
        return entry | {"reason": seen, "images_note": f"No images: {seen}"}
    for worst in seen.worst[:images]:
        key = hashlib.sha256(worst.image.encode()).hexdigest()[:12]  # runs share many of them
        shared_images[key] = worst.image
        entry["images"].append([key, worst.true, worst.said, worst.probability])
    why = "no image was given a wrong class" if not seen.worst else "none were asked for, or they did not fit"
    return entry | {
        "seen": _classes(seen, len(names)),
        "note": _agreement(run, seen),
        "images_note": f"No images: {why}.",
    }


def _without_paths(reason: str, run: Run) -> str:
    """Why a run was not measured, with names in place of this machine's folders of the run and its images."""
    names = dict.fromkeys((str(run.folder.absolute()), str(run.folder.resolve())), run.name)
    if is_local(spec := run.record.data.spec):
        names[spec] = portable_spec(spec)
        names[_place(spec)] = _place(portable_spec(spec))
    for path in sorted(filter(None, names), key=len, reverse=True):
        reason = reason.replace(path, names[path])
    return reason


def _place(spec: str) -> str:
    return spec.partition(":")[2].partition("?")[0]


def _classes(seen: Seen, count: int) -> dict[str, Any]:
    """Counts per class, and the cells of the confusion matrix: all hits, and the most frequent misses."""
    total, hits, predicted = [0] * count, [0] * count, [0] * count
    for true, guess, n in seen.cells:
        total[true] += n
        predicted[guess] += n
        hits[true] += n if true == guess else 0
    cells = sorted(seen.cells, key=lambda cell: (cell[0] != cell[1], -cell[2], cell))[:MOST_CELLS]
    return {"total": total, "hit": hits, "said": predicted, "cells": cells}


def _agreement(run: Run, seen: Seen) -> str:
    """What was measured now beside what was recorded."""
    correct = sum(n for true, guess, n in seen.cells if true == guess)
    count = sum(n for _, _, n in seen.cells)
    recorded = number(run.result, "test.correct")
    measured = f"Measured again on the test split: {correct:,} of {count:,} right ({correct / max(count, 1):.2%})"
    if recorded is None:
        return f"{measured}. The run records no result yet."
    same = "as recorded" if recorded == correct else f"recorded were {recorded:,}"
    return f"{measured}, {same}."


def _facts(runs: Sequence[Run], words: dict[str, int]) -> list[list[Any]]:
    """Rows [group, key, [word of each run]]; words are kept once, as many runs share them."""
    # The page may be shown to others: no paths of this machine.
    tables = [facts(replace(run, record=portable(run.record))) for run in runs]
    keys = sorted({key: None for table in tables for key in table}, key=lambda key: GROUPS.index(key[0]))

    def word(value: str) -> int:
        return words.setdefault(value if len(value) <= 400 else f"{value[:399]}…", len(words))

    return [[*key, [word(told(*key, table.get(key))) for table in tables]] for key in keys]


# ---- HTML -----------------------------------------------------------------------------------


def _page(content: Content, data: dict[str, Any]) -> str:
    code, bokeh = library()
    script = "(() => {\n'use strict';\n" + "".join(_asset(name) for name in SCRIPTS) + "})();"
    scripts = {"library": _safe_script(code), "script": _safe_script(script)}
    hashes = " ".join(map(allowed, scripts.values()))
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    pages = templates(ASSETS)
    pages.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    page = pages.get_template("page.html").render(
        policy=policy,
        version=__version__,
        bokeh=bokeh,
        content=content,
        lead=_lead(content),
        columns=[c for c in COLUMNS if not c.key.endswith("map") or any(c.key in row for row in data["rows"])],
        datasets=datasets(data["rows"]),
        cell=cell,
        style=_asset("page.css"),
        data=data,
        **scripts,
    )
    return page.encode("utf-8", "replace").decode()  # a folder's name need not be UTF-8


def _asset(name: str) -> str:
    return (ASSETS / name).read_text("utf-8")


def _safe_script(code: str) -> str:
    """Code as an HTML parser hands it on, so that its hash holds: no end tag, no carriage returns."""
    return code.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _lead(content: Content) -> str:
    runs = content.runs
    models, sets = {r.record.model for r in runs}, {r.record.data.fingerprint for r in runs}
    counted = f"{plural(len(runs), 'run')} of {plural(len(models), 'model')} on {plural(len(sets), 'dataset')}"
    more = f", beside {plural(len(content.catalogue), 'result')} of the catalogue" if content.catalogue else ""
    return f"{counted}{more}."


def cell(key: str, value: Any) -> str:
    """A value of the table as people read it."""
    if value is None or value == "":
        return "-"
    if key in ("top1", "top5", "val_top1", "map", "val_map"):
        return f"{value:.2%}"
    if key in ("parameters", "flops"):
        return short(value)
    if key == "minutes":
        return duration(60 * value)
    return str(value)
