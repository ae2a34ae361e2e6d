"""The output of `zoo eval`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from zoo.base.text import plural
from zoo.cli.shared import table
from zoo.cli.shared.table import Column

MOST_CELLS = 20
"""With more classes than this, only the most frequent mistakes of the confusion matrix are shown."""

MOST_PAIRS = 15


def emit_accuracy(out: dict[str, Any], num_classes: int) -> None:
    """Print all that was measured."""
    top5 = num_classes > 5  # of five classes the right one is always among the first five
    print(_accuracy(out, top5))
    sys.stdout.flush()
    if "top1_interval" in out:
        low, high = out["top1_interval"]["ends"]
        table.emit([f"{out['split']} top-1, 95% interval {low:.2%} to {high:.2%} (Wilson)"])
    shown: dict[str, Callable[..., None]] = {
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
            show(out[part], out["split"], **({"top5": top5} if part == "compare" else {}))


def _accuracy(out: dict[str, Any], top5: bool) -> str:
    views = _views(out)
    if "map" in out:
        return (
            f"{out['split']} mAP {out['map']:.4%}, F1 {out['micro_f1']:.4%} of all labels together and "
            f"{out['macro_f1']:.4%} as the mean of the classes, exactly the labels of {out['correct']} of "
            f"{plural(out['count'], 'image')}, loss {out['loss']:.4f}{views}"
        )
    return (
        f"{out['split']} top-1 {out['top1']:.4%} ({out['correct']} of {out['count']}), "
        + (f"top-5 {out['top5']:.4%}, " if top5 else "")
        + f"loss {out['loss']:.4f}{views}"
    )


def _views(out: dict[str, Any]) -> str:
    unsure = " of images that it is unsure of" if out.get("tta_margin") else ""
    return f", over the views {out['tta']}{unsure}" if out["tta"] != "none" else ""


def _labels(metrics: dict[str, Any], split: str) -> None:
    """The classes of images with several labels."""
    shares = ("average_precision", "precision", "recall", "f1")
    columns = [Column(f"CLASS ({split})", flexible=True)]
    titles = ("AVERAGE PRECISION", "PRECISION", "RECALL", "F1", "SUPPORT", "THRESHOLD")
    columns += [Column(title, right=True) for title in titles]
    cells = [
        [
            row["class"],
            *(f"{row[key]:.2%}" if row[key] == row[key] else "-" for key in shares),
            f"{row['support']:,}",
            f"{row['threshold']:.3f}",
        ]
        for row in metrics["rows"]
    ]
    table.emit_table(columns, cells, table.width())


def _classes(metrics: dict[str, Any], split: str) -> None:
    if "macro" not in metrics:
        return _labels(metrics, split)
    columns = [Column(f"CLASS ({split})", flexible=True)]
    columns += [Column(title, right=True) for title in ("PRECISION", "RECALL", "F1", "SUPPORT")]
    rows = [(row["class"], row, f"{row['support']:,}") for row in metrics["rows"]]
    rows += [(f"{kind} average", metrics[kind], "") for kind in ("macro", "weighted")]
    cells = [
        [name, *(f"{row[key]:.2%}" for key in ("precision", "recall", "f1")), support] for name, row, support in rows
    ]
    table.emit_table(columns, cells, table.width())
    present = sum(row["support"] > 0 for row in metrics["rows"])
    if any(row["predicted"] and not row["support"] for row in metrics["rows"]):
        table.emit(
            [
                f"{split} balanced accuracy {metrics['balanced_accuracy']:.2%}: the mean recall of the "
                f"{plural(present, 'class that has', 'classes that have')} images"
            ]
        )


def _confusion(matrix: dict[str, Any], split: str) -> None:
    names, counts = matrix["classes"], matrix["counts"]
    widths = [max(len(str(row[i])) for row in counts) for i in range(len(names))]
    shown = [name[: max(5, w)] for name, w in zip(names, widths, strict=True)]
    side = min(20, max(map(len, names)))
    wide = max(side, len(f"{split}: true") + 2) + sum(2 + max(len(n), w) for n, w in zip(shown, widths, strict=True))
    if len(names) <= MOST_CELLS and wide <= (table.width() or 10**6):
        columns = [Column(f"{split}: true"), *(Column(name, right=True) for name in shown)]
        table.emit_table(columns, [[n[:20], *map(str, row)] for n, row in zip(names, counts, strict=True)], None)
        return
    wrong = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j]
    cells = [[names[i], names[j], f"{n:,}", f"{n / sum(counts[i]):.1%}"] for n, i, j in _most(wrong)]
    columns = [Column(f"{split}: TRUE", flexible=True), Column("PREDICTED", flexible=True)]
    columns += [Column("IMAGES", right=True), Column("SHARE OF CLASS", right=True)]
    table.emit_table(columns, cells, table.width())


def _most(wrong: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    return iter(sorted(wrong, key=lambda cell: (-cell[0], cell[1:]))[:MOST_PAIRS])


def _calibration(scores: dict[str, Any], split: str) -> None:
    if "before" in scores:
        before = scores["before"]
        table.emit(
            [
                f"{split} calibration before temperature {scores['temperature']:.4f}: ECE {before['ece']:.2%}, "
                f"MCE {before['mce']:.2%}, Brier {before['brier']:.4f}; after it:"
            ]
        )
    table.emit(
        [
            f"{split} calibration: ECE {scores['ece']:.2%}, MCE {scores['mce']:.2%}, Brier {scores['brier']:.4f}",
            f"mean confidence {scores['confidence']:.2%}, accuracy {scores['accuracy']:.2%}; "
            f"{plural(len(scores['bins']), 'bin')} of equal width",
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
        for row in scores["bins"]
        if row["count"]
    ]
    table.emit_table(columns, cells, table.width())


def _compare(other: dict[str, Any], split: str, top5: bool) -> None:
    paired = other["paired"]
    low, high = paired["interval"]
    sure = "less" if paired["p"] < 0.05 else "not less"
    table.emit(
        [
            f"compared with {table.clean(other['run'])}:",
            _accuracy(other, top5),
            f"{split} top-1 of the first minus the second, in points: {100 * paired['difference']:+.2f}",
            f"  (95% interval {100 * low:+.2f} to {100 * high:+.2f}; paired bootstrap, "
            f"{paired['resamples']:,} resamples)",
            f"both right {paired['both_right']:,}, only the first {paired['only_first']:,}, "
            f"only the second {paired['only_second']:,}, both wrong {paired['both_wrong']:,}",
            f"McNemar's exact test: p = {paired['p']:.3g}, {sure} than 0.05",
        ]
    )


def _latency(latency: dict[str, Any], split: str) -> None:
    columns = [Column(t, right=True) for t in ("BATCH", "MEDIAN ms", "P95 ms", "MIN ms", "IMAGES/s", "CALLS")]
    cells = [
        [
            str(row["batch"]),
            *(f"{row[key]:.3f}" for key in ("median_ms", "p95_ms", "min_ms")),
            f"{row['images_per_second']:,.0f}",
            str(row["calls"]),
        ]
        for row in latency["rows"]
    ]
    table.emit_table(columns, cells, table.width())
    table.emit(
        [
            f"latency from images on the device to logits: {table.clean(latency['hardware'])}",
            f"  {latency['precision']}, {plural(latency['threads'], 'thread')}, "
            f"{plural(latency['rows'][0]['warm_up'], 'call')} of warm-up{_views(latency)}",
        ]
    )


def _robustness(robustness: dict[str, Any], split: str) -> None:
    columns = [Column("CORRUPTION"), Column("GROUP", drop=1)]
    columns += [
        Column(f"SEVERITY {s}" if s == robustness["severities"][0] else str(s), right=True)
        for s in robustness["severities"]
    ]
    columns += [Column("MEAN", right=True)]
    cells = [
        [row["corruption"], row["group"], *(f"{value:.1%}" for value in row["top1"]), f"{row['mean']:.1%}"]
        for row in robustness["rows"]
    ]
    table.emit_table(columns, cells, table.width())
    table.emit(
        [
            f"{split} top-1 of {robustness['images']:,} images: {robustness['clean']:.2%} as they are, "
            f"{robustness['mean']:.2%} corrupted",
            f"  (mean of {len(robustness['rows'])} corruptions, seed {robustness['seed']})",
        ]
    )
