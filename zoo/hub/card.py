"""The model card: front matter by huggingface_hub's own classes, then what people want to know.

Its text is in `templates/card.md.tmpl`. Names and labels may come from strangers, so every value that the template
prints is made text by `escape`, in Markdown and in HTML, unless a filter returns `Markdown`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from zoo.base.headline import headline
from zoo.base.templates import templates
from zoo.base.text import plural
from zoo.catalogue.picture import in_words
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Dataset, Measured, Model, Node, Source, node_from_table
from zoo.data.dataset_spec import altered_test
from zoo.data.portable import is_local
from zoo.evaluate.classes import class_table
from zoo.evaluate.multi_label import LabelPredictions, label_table
from zoo.hub.citation import ADDRESS, of_package, of_source
from zoo.hub.eval_results import dataset_id, selection
from zoo.hub.storage import AS_TRAINED
from zoo.runs.folder import CALIBRATION, extensions_of
from zoo.runs.images import rule_of
from zoo.runs.record import RunRecord

if TYPE_CHECKING:
    from jinja2 import Environment
    from torch import Tensor

TEMPLATES = Path(__file__).parent / "templates"

LIBRARY = "hybrid-zoo"

MAX_CLASSES = 200
"""Longer tables of classes are cut to the worst of them."""

ABOUT = ("summary", "source")
"""Fields of a recipe that set nothing."""

METRICS = (
    ("top1", "accuracy", "top-1 accuracy"),
    ("top5", "accuracy", "top-5 accuracy"),
    ("map", "mean_average_precision", "mean average precision"),
    ("micro_f1", "f1", "micro F1"),
    ("macro_f1", "f1", "macro F1"),
)
"""Metrics of a result with their type and name in the front matter."""

OF_ONE = ("top1", "top5")
"""Those of images with one label."""

MAX_NAMES = 20
"""So many names of classes stand in a row; `config.json` has all of them."""


class Facts(NamedTuple):
    """What a card is made from.

    Attributes:
        record: the run's, without paths. counts: the confusion matrix (K, K), or the predictions of images with several
            labels, if they were measured.
        timm: whether timm can load the weights. weights: their sha256. repo: "OWNER/NAME".
        flops: of one image; None where they were not counted. onnx: whether the package has files for other runtimes.
    """

    record: RunRecord
    result: dict[str, Any]
    registry: Registry
    licence: str
    counts: Tensor | LabelPredictions | None
    timm: bool
    weights: str
    repo: str
    flops: int | None = None
    onnx: bool = False

    @property
    def model(self) -> Model | None:
        """The catalogue's entry of the model, if it has one with the same tree."""
        entry = self.registry.models.get(self.record.model)
        return entry if entry is not None and entry.build.to_table() == self.record.build else None

    @property
    def dataset(self) -> Dataset | None:
        """The catalogue's entry of the dataset."""
        return self.registry.datasets.get(self.record.data.spec)


class Markdown(str):
    """Text that the template prints as it stands, because a filter has made it safe."""


def render(facts: Facts) -> str:
    """The whole card: YAML between two lines of dashes, then Markdown."""
    return _templates().get_template("card.md.tmpl").render(_context(facts))


def sentences() -> str:
    """The template's own text, which is on every card."""
    return (TEMPLATES / "card.md.tmpl").read_text("utf-8")


def _templates() -> Environment:
    environment = templates(TEMPLATES, finalize=_printed)
    environment.filters |= {
        "code": code,
        "grouped": lambda number: f"{number:,.0f}",
        "json": lambda value: msgspec.json.encode(value).decode(),
        "link": link,
        "percent": lambda share: f"{share:.2%}",
        "reference": _reference,
        "verbatim": Markdown,
    }
    return environment


def _printed(value: Any) -> str:
    return value if isinstance(value, Markdown) else escape(str(value))


def escape(text: str) -> Markdown:
    """Text as it is, whatever Markdown or HTML would make of it; one line, without control characters."""
    plain = re.sub(r"([\\`*_{}\[\]#|~$]|^[-+>\d])", r"\\\1", html.escape(_one_line(text), quote=False))
    plain = re.sub(r"^\\(\d)", r"\1", plain).replace("://", "&#58;//").replace("@", "&#64;")
    return Markdown(plain)


def code(text: str) -> Markdown:
    """Text as inline code, with nothing that could end it."""
    return Markdown(f"`{_one_line(text).replace('`', chr(39)).replace('|', chr(0x2502))}`")


def link(address: str) -> Markdown:
    """A web address that readers can follow; as plain text where it holds anything but an address."""
    return Markdown(address) if re.fullmatch(ADDRESS, address, re.ASCII) else escape(address)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# ---- front matter ---------------------------------------------------------------------------


def card_data(facts: Facts) -> Any:
    """The front matter, as huggingface_hub's `ModelCardData`."""
    from huggingface_hub import ModelCardData

    record = facts.record
    base = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)@[0-9a-f]+", record.base_model)
    model = facts.model
    tags = [LIBRARY, "image-classification", *(model.tags if model else ()), *([model.family] if model else [])]
    tags += ["knowledge-distillation"] if record.teacher else []
    dataset = dataset_id(record.data.spec, facts.registry)
    return ModelCardData(
        license=facts.licence,
        library_name="timm" if facts.timm and record.build.get("use") == "timm.model" else LIBRARY,
        pipeline_tag="image-classification",
        tags=list(dict.fromkeys(tags)),
        datasets=[dataset] if dataset else None,
        metrics=["accuracy"] if not record.data.is_multi_label else ["mean_average_precision", "f1"],
        base_model=base[1] if base else record.base_hub or None,
        model_name=record.model,
        eval_results=_eval_results(facts),
    )


def _eval_results(facts: Facts) -> list[Any]:
    from huggingface_hub import EvalResult

    record, result = facts.record, facts.result
    spec = record.data.spec
    common = {
        "task_type": "image-classification",
        "dataset_type": dataset_id(spec, facts.registry) or _slug(spec),
        "dataset_name": spec,
        "dataset_split": "test",
        "dataset_args": {
            "protocol": record.protocol,
            "fingerprint": record.data.fingerprint,
            "selection": selection(result),
        },
    }
    spread = _spread(facts)
    args = {"seeds": 1, "seed": record.seed} | (
        {"spread": spread.spread, "spread_seeds": spread.seeds} if spread else {}
    )
    return [
        EvalResult(metric_type=kind, metric_name=name, metric_value=result["test"][key], metric_args=args, **common)
        for key, kind, name in METRICS
        if key in result["test"] and (key in OF_ONE or "map" in result["test"])
    ]


def _spread(facts: Facts) -> Measured | None:
    """Our own measurement over several seeds of the same model, dataset, protocol and recipe, if recorded."""
    model, record = facts.model, facts.record
    for row in model.measured if model else ():
        if (row.dataset, row.protocol, row.recipe) == (record.data.spec, record.protocol, record.recipe):
            return row if row.spread is not None else None
    return None


def _slug(spec: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", spec.lower()).strip("-") or "dataset"


# ---- for people -------------------------------------------------------------------------------


def _context(facts: Facts) -> dict[str, Any]:
    """What the template prints, by name."""
    record, result, model, dataset = facts.record, facts.result, facts.model, facts.dataset
    tree = node_from_table(record.build, "build")
    return {
        "record": record,
        "soup": record.soup or None,
        "result": result,
        "model": model,
        "test": result["test"],
        "figure": headline(result["test"]),
        "several": record.data.is_multi_label,
        "extended": extensions_of(result),
        "train": {"epochs": None, "steps": 0, "seconds": 0, "images_per_second": 0} | result.get("train", {}),
        "settings": _settings(record.settings),
        "folded": _folded(record.settings),
        "front_matter": card_data(facts).to_yaml(),
        "feeding": feeding(facts),
        "onnx": facts.onnx,
        "composition": in_words(tree, facts.registry.components),
        "tree": [line.replace("`", "'") for line in tree_lines(tree)],
        "selection": selection(result),
        "as_trained": result.get(AS_TRAINED),
        "calibration": result.get(CALIBRATION),
        "spread": _spread(facts),
        "published": _published(facts),
        "classes": _classes(facts),
        "source": facts.registry.sources.get((model.source if model else None) or ""),
        "citations": _citations(facts),
        "flops": facts.flops,
        "homepage": dataset.homepage if dataset else "",
        "data_licence": (dataset.licence if dataset else "") or _unknown_licence(record.data.spec),
        "local": is_local(record.data.spec),
        "repeats": _repeats(record),
        "licence": facts.licence,
        "timm": facts.timm,
        "weights": facts.weights,
        "repo": facts.repo,
    }


def feeding(facts: Facts) -> dict[str, str]:
    """What is done to an image before the model sees it, and what its outputs are: a row for each question."""
    record, rule = facts.record, rule_of(facts.record, facts.registry)
    data, sizes = record.data, record.sizes
    rows = {
        "image": f"RGB, {sizes.height}x{sizes.width} pixels, upright (EXIF); a gray one has three equal channels",
        "size": f"the whole image is scaled {rule}" if rule.size else str(rule),
        "values": Markdown(f"{code('x / 255')}, from 0 to 1; not normalised: no mean, no std"),
    }
    if record.settings.normalize:
        rows["values"] = code("(x / 255 - mean) / std")
        rows |= {key: code(", ".join(f"{n:.6g}" for n in row)) for key, row in (("mean", data.mean), ("std", data.std))}
    if rule.colours.white:
        black = f"{rule.colours.black:g} is black, " if rule.colours.black else ""
        rows["deep images"] = f"of more than 8 bits: {black}{rule.colours.white:g} is white"
    if rule.colours.background:
        rows["transparent pixels"] = f"lie on {rule.colours.background}"
    if altered := altered_test(data.spec, facts.registry):
        rows["test images"] = f"were altered before they were measured: {', '.join(altered)}"
    if record.settings.tta != "none":
        margin, views = record.settings.tta_margin, code(record.settings.tta)
        unsure = f" where the two largest probabilities differ by less than {margin:g}" if margin is not None else ""
        rows["views"] = Markdown(
            f"{code('predict')} and the results below average {views}{unsure}; {code('model(images)')} sees one"
        )
    if data.is_multi_label:
        what = "each class has a probability of its own, 1 / (1 + exp(-logit)); thresholds are in"
        rows["labels"] = Markdown(f"{what} {code('result.json')}")
    if calibrated := facts.result.get(CALIBRATION):
        by = code(f"{calibrated['temperature']:.6g}")
        rows["temperature"] = Markdown(
            f"{code('predict')} divides the logits by {by}; {code('model(images)')} does not"
        )
    names = ", ".join(map(escape, data.classes[:MAX_NAMES]))
    more = f", ...; all of them in {code('config.json')}" if len(data.classes) > MAX_NAMES else ""
    return rows | {f"{len(data.classes):,} classes": Markdown(f"{names}{more}")}


def _citations(facts: Facts) -> Markdown:
    """BibTeX entries: of the model's source, if the catalogue has one, and of the package."""
    record, key = facts.record, (facts.model.source if facts.model else None) or ""
    source = facts.registry.sources.get(key)
    version = record.environment.get("hybrid-zoo", "")
    package = of_package(f"{record.model} on {record.data.spec}", facts.repo, facts.weights, version)
    return Markdown("\n\n".join([of_source(key, source), package] if source else [package]))


def tree_lines(node: Node) -> Iterator[str]:
    """The tree, drawn: a component and its arguments on each line."""

    def walk(n: Node, key: str, first: str, rest: str) -> Iterator[str]:
        plain = {k: v for k, v in n.args.items() if not _has_nodes(v)}
        args = " ".join(f"{k}={msgspec.json.encode(v).decode()}" for k, v in plain.items())
        label = n.use if not key or key.startswith("of[") else f"{key}: {n.use}"
        yield " ".join("".join(c if c.isprintable() else " " for c in f"{first}{label}  {args}").rstrip().split("\n"))
        children = n.children()
        for i, (name, child) in enumerate(children):
            last = i == len(children) - 1
            yield from walk(child, name, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))

    return walk(node, "", "", "")


def _has_nodes(value: Any) -> bool:
    return isinstance(value, Node) or (isinstance(value, list) and any(isinstance(v, Node) for v in value))


def _published(facts: Facts) -> list[dict[str, Any]]:
    """What sources state for this model on this dataset: `source`, the title, and `top1`."""
    rows, sources = [], facts.registry.sources
    for row in facts.model.published if facts.model else ():
        if row.dataset == facts.record.data.spec and row.top1 is not None:
            key = row.source or (facts.model.source if facts.model else None) or "published"
            rows.append({"source": sources[key].title if key in sources else key, "top1": row.top1})
    return rows


def _classes(facts: Facts) -> list[dict[str, Any]]:
    """Class, recall, precision and support, in label order; of very many classes, the worst ones that have images."""
    if facts.counts is None:
        return []
    names = facts.record.data.classes
    if isinstance(facts.counts, LabelPredictions):
        rows: list[dict[str, Any]] = label_table(facts.counts, names)["rows"]
    else:
        rows = class_table(facts.counts, names)["rows"]
    if len(rows) <= MAX_CLASSES:
        return rows
    key = "average_precision" if facts.record.data.is_multi_label else "recall"
    return sorted((row for row in rows if row["support"]), key=lambda row: row[key])[:MAX_CLASSES]


def _unknown_licence(spec: str) -> str:
    """What is said of the licence of images of which the catalogue does not know it."""
    return "not stated" if is_local(spec) else "see the dataset's own page"


def _repeats(record: RunRecord) -> bool:
    """Whether others can repeat the run: they can have its images, the weights that it began with, and its teacher."""
    origins = (record.base_model, record.teacher.origin if record.teacher else "")
    return not (is_local(record.data.spec) or any(origin.startswith("sha256:") for origin in origins))


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe that differ from the defaults."""
    table, defaults = msgspec.to_builtins(recipe), msgspec.to_builtins(Recipe())
    return {k: v for k, v in table.items() if v != defaults[k] and k not in ABOUT}


def _folded(recipe: Recipe) -> str:
    """How many settings of a recipe are not shown, in words."""
    count = len(Recipe.__struct_fields__) - len(ABOUT) - len(_settings(recipe))
    return plural(count, "more setting has its default", "more settings have their defaults")


def _reference(source: Source) -> Markdown:
    parts = [
        escape(source.authors),
        escape(source.title),
        link(source.url) if source.url.startswith("https://") else "",
    ]
    return Markdown(". ".join(part for part in parts if part) + ".")
