"""Every published and every recorded result as one table, results/results.csv.

    python benchmarks/results_table.py

writes it, from registry.toml (`published`, `measured`, `weights`) and the records in results/*.json. A cell is empty
where nothing is known. Accuracies are fractions; FLOPs are those of one image, counted here for the catalogue's model
at the dataset's size, 2 for each multiply-add, and left out where a record is of a model of another size. What other
plugins and the user add to the catalogue is left out.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from zoo.base.files import write_text
from zoo.base.install import OURS
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Measured, Model, Published
from zoo.models.compose import check, sizes_for
from zoo.models.flops import flops
from zoo.studies.reproduce.recorded import commits

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "results" / "results.csv"
COLUMNS = (
    *("kind", "model", "dataset", "protocol", "recipe", "seeds", "top1", "spread", "parameters", "flops"),
    *("device", "versions", "commit", "weights", "budget", "images", "changes", "source", "record", "note"),
)
LIBRARIES = ("hybrid-zoo", "python", "torch", "torchvision", "timm", "numpy")
KINDS = ("published", "ours")
CLOSE = 5e-5
"""How far the catalogue's rounded accuracy may be from the record's."""

Row = dict[str, Any]


def rows(registry: Registry, records: Path) -> list[Row]:
    """All rows without their FLOPs, by model, dataset, kind, protocol and accuracy.

    Args:
        records: the folder of the records, in this repository.
    """
    found = [row for path in sorted(records.glob("*.json")) for row in _recorded(path, f"{records.name}/{path.name}")]
    for name, model in _own_models(registry).items():
        found += _published(name, model, registry)
        for measured in model.measured:
            _add(found, _measured(name, model, measured))
        for weights in getattr(model, "weights", ()):
            _add(found, _with_weights(name, model, weights))
    order = {name: i for i, name in enumerate(registry.models)}
    return sorted(found, key=lambda row: _place(row, order))


def with_flops(table: list[Row], registry: Registry) -> list[Row]:
    """The rows with the FLOPs of the catalogue's model, unless the row is of a model that was changed."""
    sizes: dict[tuple[str, str], Cost | None] = {}
    for row in table:
        key = (row["model"], row["dataset"])
        if key not in sizes:
            sizes[key] = _cost(*key, registry)
        if (cost := sizes[key]) and not row.get("changes"):
            same = row["kind"] == "published" or row.get("parameters") in (None, cost.parameters)
            row["flops"] = cost.flops if same else None
    return table


def text(table: list[Row]) -> str:
    """The table as CSV; fractions with six digits."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in table:
        writer.writerow({key: round(cell, 6) if isinstance(cell, float) else cell for key, cell in row.items()})
    return file.getvalue()


def _own_models(registry: Registry) -> dict[str, Model]:
    origins = {name: registry.origins.get(("model", name)) for name in registry.models}
    own = [name for name, origin in origins.items() if origin is None or origin.distribution == OURS]
    return {name: registry.models[name] for name in own}


def _place(row: Row, order: dict[str, int]) -> tuple[Any, ...]:
    known = order.get(row["model"], len(order))
    kind = KINDS.index(row["kind"])
    return known, row["model"], row["dataset"], kind, row.get("protocol") or "", -(row.get("top1") or 0), str(row)


def _add(found: list[Row], new: Row) -> None:
    """Add a row of the catalogue, or what it says besides to the recorded row that it is about."""
    same = [row for row in found if row["kind"] == "ours" and _is_about(new, row)]
    if not same:
        found.append(new)
        return
    for key in ("weights", "note"):
        told = [part for part in (same[0].get(key), new.get(key)) if part]
        same[0][key] = "; ".join(dict.fromkeys(told))


def _is_about(new: Row, row: Row) -> bool:
    keys = ("model", "dataset", "protocol", "recipe", *(["record"] if new.get("record") else []))
    close = abs((row.get("top1") or 0) - (new.get("top1") or 0)) < CLOSE
    return close and all(new.get(key) == row.get(key) for key in keys)


# ---- the catalogue -------------------------------------------------------------------------------------


def _published(name: str, model: Model, registry: Registry) -> Iterator[Row]:
    for row in model.published:
        key = row.source or model.source or ""
        source = registry.sources.get(key)
        yield {
            "kind": "published",
            "model": name,
            "dataset": row.dataset,
            "protocol": source.selection if source else "",
            "recipe": row.recipe or model.recipe,
            "top1": row.top1,
            "parameters": row.params or model.parameters,
            "weights": row.weights,
            "changes": _json(row.changes),
            "source": f"{source.title if source else key}: {row.published_as or name}",
            "note": _note_of(row),
        }


def _note_of(row: Published) -> str:
    return "; ".join(part for part in (row.pretrained and f"pretrained: {row.pretrained}", row.note) if part)


def _measured(name: str, model: Model, row: Measured) -> Row:
    facts = {key: getattr(row, key) for key in ("dataset", "protocol", "recipe", "top1", "spread", "seeds", "device")}
    facts |= {"record": row.record, "note": row.note, "parameters": model.parameters}
    return {"kind": "ours", "model": name, **facts}


def _with_weights(name: str, model: Model, entry: Any) -> Row:
    """A row of weights that anybody can have."""
    facts = {key: getattr(entry, key, "") for key in ("dataset", "protocol", "recipe", "top1", "record")}
    where = f"{name}@{entry.dataset} ({entry.where})"
    return {"kind": "ours", "model": name, "seeds": 1, "parameters": model.parameters, "weights": where, **facts}


# ---- the records ---------------------------------------------------------------------------------------


def _recorded(path: Path, record: str) -> Iterator[Row]:
    """The accuracies in a record; those of speed and size have none."""
    table = json.loads(path.read_text("utf-8"))
    if isinstance(table, dict) and "table" in table:
        for row in table["rows"]:
            yield _of_a_study(row, record)
    elif isinstance(table, dict) and {"summary", "peers"} <= table.keys():
        yield _of_a_speedrun(table, record)
    elif isinstance(table, dict) and "top1_mean" in table:
        yield _of_a_command(table, table["top1"], table["top1_mean"], table["top1_spread"], record)
    elif isinstance(table, dict):
        for case in table.values():
            for precision in ("fp32", "bf16") if isinstance(case, dict) and "command" in case else ():
                result = case.get(precision, {})
                if "mean" in result:
                    row = _of_a_command(case, result["top1"], result["mean"], result["spread"], record)
                    yield row | {"note": f"{precision}; {row['note']}"}


def _of_a_study(row: Row, record: str) -> Row:
    """A row of `zoo reproduce`: all devices, versions and commits that its runs have."""
    parts = [_machine(run["result"]["environment"]) for run in row["runs"]]
    machine = {key: "; ".join(dict.fromkeys(part[key] for part in parts)) for key in _machine({})}
    kept = {key: row[key] for key in ("model", "dataset", "protocol", "recipe", "top1", "spread", "parameters")}
    return kept | {
        "kind": "ours",
        "seeds": len(row["seeds"]),
        **machine,
        "commit": ", ".join(commits(row)),
        "budget": row["budget"],
        "images": row["images"],
        "changes": _json(row["changes"]),
        "record": record,
        "note": "; ".join(part for part in (row["why_not"], row.get("note", "")) if part),
    }


def _of_a_command(table: Row, each: list[float], mean: float, spread: float, record: str) -> Row:
    """Several seeds of one `zoo train`, which its command describes."""
    words = shlex.split(table["command"])
    return {
        "kind": "ours",
        "model": words[words.index("train") + 1],
        "dataset": words[words.index("--dataset") + 1],
        "protocol": table.get("protocol", "clean"),
        "recipe": table.get("recipe", ""),
        "seeds": len(each),
        "top1": mean,
        "spread": spread,
        **_machine(table["environment"]),
        "budget": "small" if "--limit-train" in words else "full",
        "record": record,
        "note": table["command"],
    }


def _of_a_speedrun(table: Row, record: str) -> Row:
    """Several seeds of `benchmarks/speedrun.py`."""
    command, top1 = table["machine"]["command"], table["summary"]["top1"]
    words = shlex.split(command)
    return {
        "kind": "ours",
        "model": "speedrun-94",
        "dataset": "cifar10",
        "protocol": "paper",
        "recipe": words[words.index("--recipe") + 1] if "--recipe" in words else "speedrun",
        "seeds": len(table["runs"]),
        "top1": top1["mean"],
        "spread": top1["deviation"],
        **_machine(table["environment"] | {"commit": table["machine"]["commit"]}),
        "budget": "full",
        "record": record,
        "note": command,
    }


def _machine(environment: dict[str, str]) -> Row:
    versions = [f"{name} {environment[name]}" for name in LIBRARIES if name in environment]
    return {
        "device": environment.get("device", ""),
        "versions": ", ".join(versions),
        "commit": environment.get("commit", ""),
    }


# ---- one cell ------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Of a model at the sizes of a dataset."""

    parameters: int
    flops: int


def _cost(name: str, dataset: str, registry: Registry) -> Cost | None:
    """Counted on the meta device; None for a dataset of no name."""
    model = registry.models.get(name)
    if model is None or dataset not in registry.datasets:
        return None
    sizes = sizes_for(msgspec.structs.replace(model, dataset=dataset), registry)
    module = check(model.build, registry, where=name, **sizes)
    return Cost(sum(p.numel() for p in module.parameters()), flops(module, sizes))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True) if value else ""


def main() -> None:
    """Write the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    registry = load_registry()
    write_text(TABLE, text(with_flops(rows(registry, ROOT / "results"), registry)))


if __name__ == "__main__":
    main()
