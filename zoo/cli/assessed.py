"""What `zoo eval` does beyond its options: plain or in full, and how the result is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.cli.evaluate import OF_A_FOLDER
from zoo.cli.shared import table
from zoo.cli.shared.table import Column
from zoo.errors import RunError

MOST_CELLS = 20
"""A confusion matrix of more classes is shown as its most frequent mistakes."""

MOST_PAIRS = 15


def assessed(
    run: str,
    *,
    quiet: bool,
    split: str,
    what: tuple[str, ...],
    other: str | None,
    output: Path | None,
    **more: Any,
) -> dict[str, Any]:
    """Measure a run: accuracy alone, or all that was asked for; with `recorded` beside it."""
    from zoo.evaluate.opened import open_run, recorded_metrics
    from zoo.hub.fetch import local_folder
    from zoo.hub.ref import is_ref
    from zoo.hub.verify import usable_device
    from zoo.runs.folder import read_record

    if "robustness" in what:
        from zoo.evaluate.corruptions import choose, library

        more["corruptions"] = choose(
            [word.strip() for word in more["corruptions"].split(",") if word.strip()]
        )
        library()  # before anything that takes minutes
    folder, device = local_folder(run), more.pop("device")
    if is_ref(run) and device is None:
        device = usable_device(read_record(folder).device)
    places = {key: more.pop(key) for key in ("data_dir", "dataset", "on")} | {"device": device}
    if not what and other is None and output is None:
        opened = open_run(folder, split=split, **places)  # type: ignore[arg-type]  # click has checked it
        about = {"run": str(run), "split": split, "on": opened.on, "tta": opened.record.settings.tta}
        recorded = recorded_metrics(folder, opened.split, opened.on)
        return {**about, **opened.measure().as_dict(), "recorded": recorded}
    from zoo.evaluate.evaluation import Asked, judge

    second = None if other is None else local_folder(other)
    if other is not None and device is None:
        places["device"] = read_record(folder).device  # one device for both
    asked = Asked(
        split=split,  # type: ignore[arg-type]  # click has checked it
        parts=frozenset(what or (OF_A_FOLDER if output is not None else ())),
        other=second,
        output=output,
        table=more["predictions"],
        corruptions=more["corruptions"] if "robustness" in what else (),
        severities=more["severities"],
        images=more["images"] or None,
        workers=_workers(more["workers"]),
        seed=more["seed"],
        batch=more["batch_size"],
        seconds=more["seconds"],
    )
    with_bar = Passes(quiet)
    try:
        return judge(folder, asked, places, name=str(run), other_name=other or "", show=with_bar)
    finally:
        with_bar.close()


def _workers(given: int | None) -> int:
    from zoo.data.files.pool import MOST, default_workers

    return min(MOST, default_workers("cuda") + 1) if given is None else given


class Passes:
    """Progress through the corruptions: a bar on a terminal, else a line for each corruption, on stderr."""

    def __init__(self, quiet: bool) -> None:
        from zoo.cli.shared.display import DecodeBar

        self.quiet, self.last = quiet, ""
        self.bar = DecodeBar(quiet)

    def __call__(self, text: str, done: int, total: int) -> None:
        """Show what is being done."""
        name = text.partition(" ")[0]
        if self.bar.live:
            self.bar("robustness", done, total)
        elif not self.quiet and name not in (self.last, "done"):
            table.say(f"robustness: {name} ({done} of {total} passes done)")
        self.last = name

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()


def settle(run: str, out: dict[str, Any], recorded: dict[str, Any] | None) -> None:
    """Compare with what is recorded of the same split.

    Raises:
        RunError: another number was recorded.
    """
    for path in out.get("files", ()):
        table.say(f"wrote {path}")
    if recorded is None:
        if out["on"] is not None:
            table.say(f"measured on {out['on']}, of which the run recorded nothing to compare with")
        elif out["split"] == "train":
            table.say("no result of training images is recorded to compare with")
        else:
            table.say("the run was not finished: no result is recorded to compare with")
    elif recorded["correct"] != out["correct"] or recorded["count"] != out["count"]:
        raise RunError(
            f"{run}: result.json records {recorded['correct']} of {recorded['count']} correct, "
            f"measured {out['correct']} of {out['count']}"
        )
    else:
        table.say("the same as recorded")


# ---- for people ---------------------------------------------------------------------------------


def emit_accuracy(out: dict[str, Any]) -> None:
    """Print all that was measured."""
    print(_accuracy(out))
    sys.stdout.flush()
    if "top1_interval" in out:
        low, high = out["top1_interval"]["ends"]
        table.emit([f"{out['split']} top-1, 95% interval {low:.2%} to {high:.2%} (Wilson)"])
    shown: dict[str, Callable[[dict[str, Any], str], None]] = {
        "classes": _classes,
        "confusion": _confusion,
        "calibration": _calibration,
        "compare": _compare,
        "latency": _latency,
        "robustness": _robustness,
    }
    for part, show in shown.items():
        if part in out:
            table.emit([""])
            show(out[part], out["split"])


def _accuracy(out: dict[str, Any]) -> str:
    tta = out["tta"]
    return (
        f"{out['split']} top-1 {out['top1']:.4%} ({out['correct']} of {out['count']}), top-5 {out['top5']:.4%}, "
        f"loss {out['loss']:.4f}" + (f", over the views {tta}" if tta != "none" else "")
    )


def _classes(found: dict[str, Any], split: str) -> None:
    columns = [Column(f"CLASS ({split})", flexible=True)]
    columns += [Column(title, right=True) for title in ("PRECISION", "RECALL", "F1", "SUPPORT")]
    rows = [(row["class"], row, f"{row['support']:,}") for row in found["rows"]]
    rows += [(f"{kind} average", found[kind], "") for kind in ("macro", "weighted")]
    cells = [
        [name, *(f"{row[key]:.2%}" for key in ("precision", "recall", "f1")), support]
        for name, row, support in rows
    ]
    table.emit_table(columns, cells, table.width())


def _confusion(found: dict[str, Any], split: str) -> None:
    names, counts = found["classes"], found["counts"]
    widths = [max(len(str(row[i])) for row in counts) for i in range(len(names))]
    shown = [name[: max(5, w)] for name, w in zip(names, widths, strict=True)]
    side = min(20, max(map(len, names)))
    wide = max(side, len(f"{split}: true") + 2) + sum(
        2 + max(len(n), w) for n, w in zip(shown, widths, strict=True)
    )
    if len(names) <= MOST_CELLS and wide <= (table.width() or 10**6):
        columns = [Column(f"{split}: true"), *(Column(name, right=True) for name in shown)]
        table.emit_table(
            columns, [[n[:20], *map(str, row)] for n, row in zip(names, counts, strict=True)], None
        )
        return
    wrong = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j]
    cells = [[names[i], names[j], f"{n:,}", f"{n / sum(counts[i]):.1%}"] for n, i, j in _most(wrong)]
    columns = [Column(f"{split}: TRUE", flexible=True), Column("TAKEN FOR", flexible=True)]
    columns += [Column("IMAGES", right=True), Column("OF THE CLASS", right=True)]
    table.emit_table(columns, cells, table.width())


def _most(wrong: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    return iter(sorted(wrong, key=lambda cell: (-cell[0], cell[1:]))[:MOST_PAIRS])


def _calibration(found: dict[str, Any], split: str) -> None:
    table.emit(
        [
            f"{split} calibration: ECE {found['ece']:.2%}, MCE {found['mce']:.2%}, Brier {found['brier']:.4f}",
            f"mean confidence {found['confidence']:.2%}, accuracy {found['accuracy']:.2%}; {len(found['bins'])} bins "
            "of equal width",
        ]
    )
    columns = [Column(t, right=True) for t in ("CONFIDENCE", "IMAGES", "MEAN CONFIDENCE", "ACCURACY", "GAP")]
    cells = [
        [
            f"{row['low']:.2f}-{row['high']:.2f}",
            f"{row['count']:,}",
            f"{row['confidence']:.2%}",
            f"{row['accuracy']:.2%}",
            f"{row['accuracy'] - row['confidence']:+.2%}",
        ]
        for row in found["bins"]
        if row["count"]
    ]
    table.emit_table(columns, cells, table.width())


def _compare(found: dict[str, Any], split: str) -> None:
    paired = found["paired"]
    low, high = paired["interval"]
    sure = "less" if paired["p"] < 0.05 else "not less"
    table.emit(
        [
            f"compared with {table.clean(found['run'])}:",
            _accuracy(found),
            f"difference {paired['difference']:+.2%} of {split} top-1, 95% interval {low:+.2%} to {high:+.2%}",
            f"  (paired bootstrap, {paired['resamples']:,} resamples)",
            f"both right {paired['both_right']:,}, only the first {paired['only_first']:,}, "
            f"only the second {paired['only_second']:,}, both wrong {paired['both_wrong']:,}",
            f"McNemar's exact test: p = {paired['p']:.3g}, {sure} than 0.05",
        ]
    )


def _latency(found: dict[str, Any], split: str) -> None:
    columns = [Column(t, right=True) for t in ("BATCH", "MEDIAN ms", "P95 ms", "MIN ms", "IMAGES/s", "CALLS")]
    cells = [
        [
            str(row["batch"]),
            *(f"{row[key]:.3f}" for key in ("median_ms", "p95_ms", "min_ms")),
            f"{row['images_per_second']:,.0f}",
            str(row["calls"]),
        ]
        for row in found["rows"]
    ]
    table.emit_table(columns, cells, table.width())
    views = f", over the views {found['tta']}" if found["tta"] != "none" else ""
    table.emit(
        [
            f"latency from images on the device to logits: {table.clean(found['hardware'])}",
            f"  {found['precision']}, {found['threads']} threads, {found['rows'][0]['warm_up']} calls of "
            f"warm-up{views}",
        ]
    )


def _robustness(found: dict[str, Any], split: str) -> None:
    columns = [Column("CORRUPTION"), Column("GROUP", drop=1)]
    columns += [
        Column(f"SEVERITY {s}" if s == found["severities"][0] else str(s), right=True)
        for s in found["severities"]
    ]
    columns += [Column("MEAN", right=True)]
    cells = [
        [row["corruption"], row["group"], *(f"{value:.1%}" for value in row["top1"]), f"{row['mean']:.1%}"]
        for row in found["rows"]
    ]
    table.emit_table(columns, cells, table.width())
    table.emit(
        [
            f"{split} top-1 of {found['images']:,} images: clean {found['clean']:.2%}, "
            f"corrupted {found['mean']:.2%}",
            f"  (mean of {len(found['rows'])} corruptions, seed {found['seed']})",
        ]
    )
