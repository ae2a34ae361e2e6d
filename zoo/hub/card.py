"""The model card: front matter by huggingface_hub's own classes, then what people want to know.

Names and labels may come from strangers: `escape` makes them text, in Markdown and in HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from zoo.catalogue.picture import in_words
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Dataset, Measured, Model, Node, Published, Source, node_from_table
from zoo.data.portable import is_local
from zoo.runs.record import RunRecord

if TYPE_CHECKING:
    from torch import Tensor

LIBRARY = "hybrid-zoo"
HUB_DATASETS = (
    ("cifar10", "uoft-cs/cifar10"),
    ("cifar100", "uoft-cs/cifar100"),
    ("mnist", "ylecun/mnist"),
    ("fashion-mnist", "zalando-datasets/fashion_mnist"),
)
"""The Hub's repositories of datasets that the catalogue names."""

MAX_CLASSES = 200
"""Longer tables of classes are cut to the worst of them."""


class Facts(NamedTuple):
    """What a card is made from.

    Attributes:
        record: the run's, without paths. counts: the confusion matrix (K, K), if it was measured.
        timm: whether timm can load the weights. weights: their sha256. repo: "OWNER/NAME".
    """

    record: RunRecord
    result: dict[str, Any]
    registry: Registry
    licence: str
    counts: Tensor | None
    timm: bool
    weights: str
    repo: str

    @property
    def model(self) -> Model | None:
        """The catalogue's entry of the model, if it has one with the same tree."""
        found = self.registry.models.get(self.record.model)
        return found if found is not None and found.build.to_table() == self.record.build else None

    @property
    def dataset(self) -> Dataset | None:
        """The catalogue's entry of the dataset."""
        return self.registry.datasets.get(self.record.data.spec)


def render(facts: Facts) -> str:
    """The whole card: YAML between two lines of dashes, then Markdown."""
    body = "\n".join(_body(facts))
    return f"---\n{card_data(facts).to_yaml()}\n---\n\n{body}\n"


def escape(text: str) -> str:
    """Text as it is, whatever Markdown or HTML would make of it; one line, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    plain = re.sub(r"([\\`*_{}\[\]#|~$]|^[-+>\d])", r"\\\1", html.escape(line, quote=False))
    return re.sub(r"^\\(\d)", r"\1", plain).replace("://", "&#58;//").replace("@", "&#64;")


def code(text: str) -> str:
    """Text as inline code, with nothing that could end it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"`{line.replace('`', chr(39)).replace('|', chr(0x2502))}`"


# ---- front matter ---------------------------------------------------------------------------


def card_data(facts: Facts) -> Any:
    """The front matter, as huggingface_hub's `ModelCardData`."""
    from huggingface_hub import ModelCardData

    record = facts.record
    base = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)@[0-9a-f]+", record.base_model)
    model = facts.model
    tags = [
        LIBRARY,
        "image-classification",
        *(model.tags if model else ()),
        *([model.family] if model else []),
    ]
    dataset = dataset_id(record.data.spec)
    return ModelCardData(
        license=facts.licence,
        library_name="timm" if facts.timm and record.build.get("use") == "timm.model" else LIBRARY,
        pipeline_tag="image-classification",
        tags=list(dict.fromkeys(tags)),
        datasets=[dataset] if dataset else None,
        metrics=["accuracy"],
        base_model=base[1] if base else record.base_hub or None,
        model_name=record.model,
        eval_results=_eval_results(facts),
    )


def dataset_id(spec: str) -> str | None:
    """The dataset's repository on the Hub; None where it has none that we know."""
    if spec.startswith("hf:"):
        found = re.fullmatch(r"hf:(\w[\w.-]*/\w[\w.-]*)(@.*)?(\?.*)?", spec, re.ASCII)
        return found[1] if found else None
    return dict(HUB_DATASETS).get(spec)


def _eval_results(facts: Facts) -> list[Any]:
    from huggingface_hub import EvalResult

    record, result = facts.record, facts.result
    spec = record.data.spec
    common = {
        "task_type": "image-classification",
        "dataset_type": dataset_id(spec) or _slug(spec),
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
        EvalResult(
            metric_type="accuracy",
            metric_name=f"top-{k} accuracy",
            metric_value=result["test"][f"top{k}"],
            metric_args=args,
            **common,
        )
        for k in (1, 5)
        if f"top{k}" in result["test"]
    ]


def selection(result: dict[str, Any]) -> str:
    """The selection rule in words: "best top1 on validation, epoch 12"."""
    chosen = result.get("selection", {})
    return f"best {chosen.get('rule')} on {chosen.get('split')}, epoch {chosen.get('epoch')}"


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


def _body(facts: Facts) -> Iterator[str]:
    record, result = facts.record, facts.result
    model = facts.model
    yield f"# {escape(record.model)} on {escape(record.data.spec)}"
    yield ""
    if model:
        yield f"{escape(model.summary)}."
    yield (
        f"{result['parameters']:,} parameters, {record.sizes.height}x{record.sizes.width} images, "
        f"{record.sizes.num_classes} classes. Test top-1 **{result['test']['top1']:.2%}** "
        f"({result['test']['correct']:,} of {result['test']['count']:,})."
    )
    for section in (_use, _tree, _results, _classes, _training, _environment, _limits, _citation):
        yield ""
        yield from section(facts)


def _use(facts: Facts) -> Iterator[str]:
    yield from (
        "## Use it",
        "",
        "```sh",
        f"zoo predict hf://{facts.repo} IMAGE  # after: pip install hybrid-zoo",
        "```",
        "",
        "```python",
        "import zoo",
        f'model = zoo.load("hf://{facts.repo}")  # every file is verified',
        'scores = model.predict(["image.png"])  # for each image its classes, the most probable one first',
        "logits = model(images)  # (B, C, H, W) normalised floats to (B, classes)",
        "```",
    )
    if facts.timm:
        yield from ("", "Or with timm alone:", "", "```python", "import timm")
        yield from (f'model = timm.create_model("hf-hub:{facts.repo}", pretrained=True)', "```")
    yield from (
        "",
        f"Elsewhere: `zoo export hf://{facts.repo} --with-preprocessing` writes ONNX, checked against torch; "
        '`session.run(None, {"pixels": images})` of ONNX Runtime then takes uint8 (batch, height, width, 3).',
        "",
        f"`zoo verify hf://{facts.repo}` hashes every file again and repeats the test. sha256 of the weights:",
    )
    yield f"`{facts.weights}`."


def _tree(facts: Facts) -> Iterator[str]:
    tree = node_from_table(facts.record.build, "build")
    yield from ("## Composition", "")
    words = escape(in_words(tree, facts.registry.components))
    yield f"![{words}](composition.png)"
    yield from ("", "<details><summary>as text</summary>", "", "```text")
    yield from (line.replace("`", "'") for line in tree_lines(tree))
    yield from ("```", "", "</details>")


def tree_lines(node: Node) -> Iterator[str]:
    """The tree, drawn: a component and its arguments on each line."""

    def walk(n: Node, key: str, first: str, rest: str) -> Iterator[str]:
        plain = {k: v for k, v in n.args.items() if not _has_nodes(v)}
        args = " ".join(f"{k}={msgspec.json.encode(v).decode()}" for k, v in plain.items())
        label = n.use if not key or key.startswith("of[") else f"{key}: {n.use}"
        yield " ".join(
            "".join(c if c.isprintable() else " " for c in f"{first}{label}  {args}").rstrip().split("\n")
        )
        children = n.children()
        for i, (name, child) in enumerate(children):
            last = i == len(children) - 1
            yield from walk(child, name, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))

    return walk(node, "", "", "")


def _has_nodes(value: Any) -> bool:
    return isinstance(value, Node) or (isinstance(value, list) and any(isinstance(v, Node) for v in value))


def _results(facts: Facts) -> Iterator[str]:
    record, result = facts.record, facts.result
    yield from (
        "## Results",
        "",
        "| | top-1 | top-5 | protocol | selection | seeds |",
        "|---|---|---|---|---|---|",
    )
    test = result["test"]
    fifth = f"{test['top5']:.2%}" if "top5" in test else "-"
    rule = escape(selection(result))
    yield f"| this package | {test['top1']:.2%} | {fifth} | {record.protocol} | {rule} | one ({record.seed}) |"
    if spread := _spread(facts):
        yield (
            f"| over seeds | {spread.top1:.2%} ± {spread.spread or 0:.2%} | - | {spread.protocol} | "
            f"{escape(spread.recipe)} | {spread.seeds} |"
        )
    for row in _published(facts):
        yield f"| {_source_name(facts, row)} | {row.top1 or 0:.2%} | - | as its source | as its source | - |"
    if not _spread(facts):
        yield from ("", "One run of one seed: its spread was not measured.")
    if result.get("validation"):
        yield from (
            "",
            f"Validation top-1 {result['validation']['top1']:.2%}; test was read once, at the end.",
        )
    elif record.protocol == "paper":
        yield from (
            "",
            "Protocol `paper`: the best epoch was chosen on the test split, as the source did; too high.",
        )


def _published(facts: Facts) -> list[Published]:
    rows = facts.model.published if facts.model else ()
    return [r for r in rows if r.dataset == facts.record.data.spec and r.top1 is not None]


def _source_name(facts: Facts, row: Published) -> str:
    key = row.source or (facts.model.source if facts.model else None) or "published"
    found = facts.registry.sources.get(key)
    return f"published: {escape(found.title if found else key)}"


def _classes(facts: Facts) -> Iterator[str]:
    if facts.counts is None:
        return
    counts, names = facts.counts, facts.record.data.classes
    rows = []
    for i, name in enumerate(names):
        true, said, hit = int(counts[i].sum()), int(counts[:, i].sum()), int(counts[i, i])
        rows.append((name, true, hit / true if true else 0.0, hit / said if said else 0.0))
    yield from ("## Classes", "", "![confusion matrix](confusion.png)", "")
    if len(rows) > MAX_CLASSES:
        yield from (f"The {MAX_CLASSES} of {len(rows)} classes with the lowest recall:", "")
        rows = sorted(rows, key=lambda r: r[2])[:MAX_CLASSES]
    yield from ("| class | test images | recall | precision |", "|---|---|---|---|")
    for name, true, recall, precision in rows:
        yield f"| {escape(name)} | {true:,} | {recall:.2%} | {precision:.2%} |"


def _training(facts: Facts) -> Iterator[str]:
    record, train = facts.record, facts.result.get("train", {})
    yield from ("## Training", "", "![loss and top-1 over epochs](curves.png)", "")
    yield (
        f"Recipe {code(record.recipe)}, seed {record.seed}: {train.get('epochs')} epochs, "
        f"{train.get('steps', 0):,} steps, {train.get('seconds', 0):.0f} s "
        f"({train.get('images_per_second', 0):,.0f} images/s)."
    )
    if record.base_model:
        yield f"It began with the weights of {code(record.base_model)}."
    yield from ("", "| setting | value |", "|---|---|")
    for key, value in _settings(record.settings).items():
        yield f"| {key} | {code(msgspec.json.encode(value).decode())} |"
    data = record.data
    yield from (
        "",
        f"{data.train:,} training, {data.validation:,} validation and {data.test:,} test images; "
        f"fingerprint of the dataset `{data.fingerprint}`.",
        "",
        f"Repeat it: `zoo train --from hf://{facts.repo}`. Everything is in `run.toml`.",
    )


def _settings(recipe: Recipe) -> dict[str, Any]:
    table: dict[str, Any] = msgspec.to_builtins(recipe)
    return {k: v for k, v in table.items() if v is not None and k not in ("summary", "source")}


def _environment(facts: Facts) -> Iterator[str]:
    record = facts.record
    yield from ("## Environment", "", "| | |", "|---|---|")
    yield f"| device | {escape(record.device)}, {record.precision} |"
    for key, value in record.environment.items():
        yield f"| {escape(key)} | {escape(value)} |"
    for use, origin in record.plugins.items():
        yield f"| {code(use)} | {escape(origin)} |"


def _limits(facts: Facts) -> Iterator[str]:
    dataset = facts.dataset
    licence = dataset.licence if dataset and dataset.licence else "see the dataset's own page"
    home = f" ({dataset.homepage})" if dataset and dataset.homepage else ""
    spec = facts.record.data.spec
    where = "It is a dataset of its author's own. " if is_local(spec) else ""
    yield from (
        "## Limits and data licence",
        "",
        f"Trained on {escape(spec)}{home} at {facts.record.sizes.height}x{facts.record.sizes.width} only: it knows its "
        f"{facts.record.sizes.num_classes} classes and nothing else, gives one of them to every image, and its "
        "probabilities are not calibrated. Images of another kind, size or source will do worse than the number above.",
        "",
        f"{where}Licence of the data: {escape(licence)}. Licence of these weights: {escape(facts.licence)}.",
    )


def _citation(facts: Facts) -> Iterator[str]:
    yield from ("## Citation", "")
    source = facts.registry.sources.get((facts.model.source if facts.model else None) or "")
    if source:
        yield f"{_reference(source)}"
    else:
        yield "The model has no source of its own in the catalogue."
    yield "Made with hybrid-zoo; please cite the version above."


def _reference(source: Source) -> str:
    parts = [
        escape(source.authors),
        escape(source.title),
        source.url if source.url.startswith("https://") else "",
    ]
    return ". ".join(p for p in parts if p) + "."
