"""Every published model as ONNX, compared with torch: the largest difference of a logit, model by model.

    python benchmarks/export.py --json results/export.json
    python benchmarks/export.py --all --json export_all.json

Weights are the initial ones, moved where they begin at zero or one (see `benchmarks.export_survey.awake`): a trained
model needs its run. The smallest come first, and the record is written after each.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

import common

TOLERANCE = 1e-4


def main() -> None:
    options = parse()
    rows: list[dict[str, Any]] = []
    names = options.models or chosen(options.all)
    record = {**common.facts(), "tolerance": TOLERANCE, "rows": rows}
    for number, name in enumerate(names, 1):
        row = measured(name, options.largest, options.opset)
        rows.append(row)
        what = row.get("error") or f"{row['max_abs_difference']:.2e} of {row['max_abs_logit']:.2f}"
        common.say(f"{number}/{len(names)} {name}: {what}")
        record["summary"] = summary(rows)
        common.write(options.json, record)
    show(rows, record["summary"], markdown=options.markdown)
    sys.exit(0 if record["summary"]["agree"] == len(rows) else 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", help="names; default: every model with published results")
    parser.add_argument("--all", action="store_true", help="every model of the catalogue")
    parser.add_argument("--largest", type=int, default=250_000_000, help="more parameters: fewer layers")
    parser.add_argument("--opset", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


def chosen(everything: bool) -> list[str]:
    from benchmarks.export_survey import published
    from zoo.catalogue.registry import load_registry

    registry = load_registry()
    if not everything:
        return published(registry)
    return sorted(registry.models, key=lambda name: registry.models[name].parameters or 0)


def measured(name: str, largest: int, opset: int | None) -> dict[str, Any]:
    from benchmarks.export_survey import build, examine
    from zoo.catalogue.registry import load_registry
    from zoo.errors import ZooError

    gc.collect()
    try:
        return examine(build(name, load_registry(), largest=largest), opset=opset)
    except ZooError as error:
        return {"model": name, "error": str(error)}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    done = [row for row in rows if "error" not in row]
    agree = [row for row in done if row["max_abs_difference"] <= TOLERANCE]
    asleep = [row["model"] for row in done if row["std_of_logits"] == 0]
    worst = max(done, key=lambda row: float(row["max_abs_difference"]), default=None)
    return {
        "models": len(rows),
        "agree": len(agree),
        "whole": sum(row["built"] == "whole" for row in done),
        "worst": worst and {"model": worst["model"], "max_abs_difference": worst["max_abs_difference"]},
        "same_logits_for_every_image": asleep,
    }


def show(rows: list[dict[str, Any]], found: dict[str, Any], *, markdown: bool) -> None:
    titles = ("model", "built", "size", "parameters", "max difference", "largest logit", "same top-1")
    cells = [
        (
            row["model"],
            row["built"],
            f"{row['height']}x{row['width']}",
            f"{row['parameters']:,}",
            f"{row['max_abs_difference']:.1e}",
            f"{row['max_abs_logit']:.2f}",
            row["same_top1"],
        )
        if "error" not in row
        else (row["model"], row["error"], *[""] * 5)
        for row in rows
    ]
    print("\n".join(common.lines(titles, cells, markdown=markdown)))
    print(f"{found['agree']} of {found['models']} agree within {TOLERANCE:g}")


if __name__ == "__main__":
    main()
