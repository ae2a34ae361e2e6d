"""The card: true, complete, and safe whatever strangers call things."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import torch
import yaml
from hub_server.runs import own_caches, untrained_run
from huggingface_hub import ModelCard

from zoo.base.version import __version__
from zoo.catalogue.augmentation import Crop
from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import load_registry
from zoo.catalogue.spec import Dataset, Measured, Published, Source
from zoo.evaluate.multi_label import LabelPredictions
from zoo.hub.card import TEMPLATES, Facts, escape, link, render
from zoo.hub.citation import authors, of_source
from zoo.hub.eval_results import dataset_id
from zoo.runs.folder import read_result
from zoo.runs.record import TeacherRecord, read_record

HOSTILE = (
    "</td><script>alert(1)</script>",
    "a | b | c",
    "`; rm -rf ~`",
    "line\nbreak\r\n# Heading",
    "![x](http://evil.example/track.png)",
    "[click](javascript:alert(1))",
    "\u202eright to left\x1b[31m",
    "---\nlicense: evil",
    "$\\mathcal{x}$",
    "@someone",
    "{{ 7 * 7 }}{% for %}",
)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    folder = tmp_path_factory.mktemp("card")
    with own_caches(folder):
        source = untrained_run(folder / "run", limit_train=64, limit_test=64)
        registry = load_registry()
    record, result = read_record(source), read_result(source)
    counts = torch.diag(torch.arange(1, 11)) + torch.ones(10, 10, dtype=torch.int64)
    return Facts(record, result, registry, "apache-2.0", counts, False, "f" * 64, "me/digits")


def with_classes(facts: Facts, names: tuple[str, ...]) -> Facts:
    data = msgspec.structs.replace(facts.record.data, classes=names)
    return facts._replace(record=msgspec.structs.replace(facts.record, data=data))


def test_the_front_matter_is_what_the_hub_reads(facts: Facts) -> None:
    card = ModelCard(render(facts))
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "hybrid-zoo")
    assert card.data.pipeline_tag == "image-classification"
    assert "hybrid-zoo" in (card.data.tags or [])
    (first, fifth) = card.data.eval_results or []
    assert (first.metric_name, first.metric_value) == ("top-1 accuracy", facts.result["test"]["top1"])
    assert fifth.metric_name == "top-5 accuracy"
    assert first.dataset_split == "test"
    assert (first.dataset_args or {})["selection"] == "best top1 on validation, epoch 1"
    assert (first.metric_args or {})["seeds"] == 1


def test_the_card_has_what_people_need(facts: Facts) -> None:
    text = render(facts)
    for part in (
        "zoo predict hf://me/digits",
        '\n```python\nimport zoo\nmodel = zoo.load("hf://me/digits")',
        "cnn.residual",
        "![hybrid.classifier (hybrid.alternate (cnn.residual → vit.image))](composition.png)",
        "confusion.png",
        "curves.png",
    ):
        assert part in text
    for title in ("Use it", "Composition", "Results", "Classes", "Training", "Environment", "Limits", "Citation"):
        assert re.search(rf"^## {title}", text, re.MULTILINE)
    assert f"`{'f' * 64}`" in text


def test_the_sources_result_and_our_spread_stand_beside_it(facts: Facts) -> None:
    model = facts.registry.models["hybrid-alt-1"]
    spec, recipe = facts.record.data.spec, facts.record.recipe
    changed = msgspec.structs.replace(
        model,
        published=(Published(dataset=spec, top1=0.987, source="mixture-models"),),
        measured=(Measured(dataset=spec, top1=0.95, spread=0.012, seeds=5, recipe=recipe),),
    )
    registry = msgspec.structs.replace(facts.registry, models={**facts.registry.models, "hybrid-alt-1": changed})
    text = render(facts._replace(registry=registry))
    assert "98.70%" in text
    assert "95.00% ± 1.20%" in text
    results = ModelCard(text).data.eval_results or []
    assert (results[0].metric_args or {})["spread"] == 0.012


@pytest.mark.parametrize("name", HOSTILE)
def test_a_label_is_text_whatever_it_holds(name: str, facts: Facts) -> None:
    classes = (name, *(str(i) for i in range(1, 10)))
    text = render(with_classes(facts, classes))
    table = text.split("| class |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(table) == 10
    for row in table:
        assert len(re.findall(r"(?<!\\)\|", row)) == 5
        assert "<" not in row
        assert "`" not in row.replace("\\`", "")
        assert "](" not in row.replace("\\]", "")
        assert row.isprintable()
    front = text.split("---\n")[1]
    assert yaml.safe_load(front)["license"] == "apache-2.0"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_and_a_dataset_are_text_whatever_they_are_called(name: str, facts: Facts) -> None:
    data = msgspec.structs.replace(facts.record.data, spec=f"hf:{name}")
    record = msgspec.structs.replace(facts.record, model=name, data=data, device=name, environment={name: name})
    text = render(facts._replace(record=record, licence=name))
    assert "<script" not in text.split("\n---\n", 1)[1]
    assert re.findall(r"^# ", text.split("\n---\n", 1)[1], re.MULTILINE) == ["# "]
    loaded = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert loaded["model-index"][0]["name"] == name
    assert loaded["license"] == name


@pytest.mark.parametrize("text", ["plain", "two words", "café", "10% of 5-6"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert escape(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_plugins_catalogue_says_is_text(text: str, facts: Facts) -> None:
    """Summaries, titles and addresses come from whoever wrote the plugin."""
    registry, spec = facts.registry, facts.record.data.spec
    source = Source(title=text, authors=text, url=f"https://evil.example/{text}")
    model = msgspec.structs.replace(
        registry.models["hybrid-alt-1"], summary=text, source="evil", published=(Published(dataset=spec, top1=0.5),)
    )
    dataset = Dataset(source="sklearn:digits", licence=text, homepage=f"https://evil.example/{text}")
    changed = msgspec.structs.replace(
        registry,
        models={**registry.models, "hybrid-alt-1": model},
        sources={**registry.sources, "evil": source},
        datasets={**registry.datasets, spec: dataset},
    )
    body = render(facts._replace(registry=changed)).split("\n---\n", 1)[1]
    for line in (line for line in body.splitlines() if "evil" in line or "published:" in line):
        assert re.search(r"<|(?<!\\)`|(?<!\\)\]\(", line) is None
        assert line.isprintable()
    assert len(re.findall(r"^#+ ", body, re.MULTILINE)) == 9
    assert "49" not in next(line for line in body.splitlines() if "published:" in line)


def test_the_catalogues_addresses_are_links(facts: Facts) -> None:
    addresses = [d.homepage for d in facts.registry.datasets.values() if d.homepage]
    addresses += [s.url for s in facts.registry.sources.values() if s.url.startswith("https://")]
    assert len(addresses) > 20
    assert [address for address in addresses if link(address) != address] == []


def test_the_template_prints_only_what_cannot_be_a_strangers_as_it_stands() -> None:
    """`repo` is checked by the Hub's rules, `key` is a field of ours, `line` stands in a fence without backticks."""
    template = (TEMPLATES / "card.md.tmpl").read_text("utf-8")
    assert set(re.findall(r"{{([^}]*)\| verbatim }}", template)) == {" front_matter ", " repo ", " line ", " key "}
    assert "safe" not in re.findall(r"\| (\w+)", template)


def test_a_fine_tuned_model_names_its_base(facts: Facts) -> None:
    record = msgspec.structs.replace(facts.record, base_model=f"hf://you/base@{'a' * 40}")
    assert ModelCard(render(facts._replace(record=record))).data.base_model == "you/base"


def test_a_distilled_model_names_its_teacher(facts: Facts) -> None:
    teacher = TeacherRecord(model="resnet9", dataset="cifar10", origin=f"hf://you/r@{'a' * 40}", sha256="b" * 64)
    text = render(facts._replace(record=msgspec.structs.replace(facts.record, teacher=teacher)))
    assert "It was distilled from `resnet9`, trained on cifar10 (`hf://you/r@aaa" in text
    assert "knowledge-distillation" in ModelCard(text).data.tags
    assert "distil" not in render(facts)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("cifar10", "uoft-cs/cifar10"),
        ("hf:me/birds@v1?label=kind", "me/birds"),
        ("folder:photos", None),
        ("hf:../x", None),
    ],
)
def test_datasets_of_the_hub_are_linked(spec: str, found: str | None, facts: Facts) -> None:
    assert dataset_id(spec, facts.registry) == found


def test_no_path_is_on_the_card(facts: Facts) -> None:
    assert str(Path.home()) not in render(facts)


def test_what_needs_files_of_the_author_is_not_advised_without_them(facts: Facts) -> None:
    own = msgspec.structs.replace(facts.record.data, spec="folder:photos")
    teacher = TeacherRecord(model="vit", origin="sha256:" + "1" * 64, sha256="1" * 64)
    records = [
        facts.record,
        msgspec.structs.replace(facts.record, data=own),
        msgspec.structs.replace(facts.record, base_model="sha256:" + "2" * 64),
        msgspec.structs.replace(facts.record, teacher=teacher),
    ]
    texts = [render(facts._replace(record=record)) for record in records]
    assert ["Repeat it: `zoo train --from hf://me/digits`" in text for text in texts] == [True, False, False, False]
    assert ["`zoo train --from hf://me/digits --dataset SPEC`" in text for text in texts] == [False, True, True, True]
    assert ["`zoo verify hf://me/digits --dataset SPEC`" in text for text in texts] == [False, True, False, False]
    assert "Licence of the data: not stated." in texts[1]
    assert "the dataset's own page" not in texts[1]


def rows_of(text: str) -> list[list[str]]:
    """The cells of the table of classes."""
    lines = text.split("| class | test images |")[1].split("\n\n")[0].splitlines()[2:]
    return [line.strip("| ").split(" | ") for line in lines]


def test_a_class_without_test_images_has_no_recall(facts: Facts) -> None:
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[0, 0], counts[0, 1] = 3, 1
    rows = rows_of(render(facts._replace(counts=counts)))
    assert rows[:3] == [["0", "4", "75.00%", "100.00%"], ["1", "0", "-", "0.00%"], ["2", "0", "-", "-"]]


def test_of_very_many_classes_the_worst_that_have_test_images_are_shown(facts: Facts) -> None:
    names = tuple(f"product {number}" for number in range(300))
    many = with_classes(facts, names)
    counts = torch.zeros(300, 300, dtype=torch.int64)
    counts[7, 7], counts[8, 7], counts[8, 8] = 4, 3, 1
    text = render(many._replace(counts=counts))
    assert "The 2 of 300 classes with the lowest recall, of those that have test images:" in text
    assert rows_of(text) == [["product 8", "4", "25.00%", "100.00%"], ["product 7", "4", "100.00%", "57.14%"]]
    counts = torch.diag(torch.arange(1, 301))
    assert len(rows_of(render(many._replace(counts=counts)))) == 200


def test_of_very_many_labels_those_of_the_lowest_average_precision_are_shown(facts: Facts) -> None:
    many = with_classes(facts, tuple(f"label {number}" for number in range(300)))
    data = msgspec.structs.replace(many.record.data, task="multi-label")
    test = {"map": 0.5, "micro_f1": 0.5, "macro_f1": 0.5, "subset_accuracy": 0.5, "correct": 2, "count": 4, "loss": 0.7}
    labels, said = torch.zeros(4, 300, dtype=torch.uint8), torch.zeros(4, 300)
    labels[0, :2] = 1
    said[:, 0] = torch.tensor([0.1, 0.2, 0.3, 0.4])  # the worst order, though each image is said to show it
    said[:, 1] = torch.tensor([0.4, 0.1, 0.1, 0.1])  # the best order, though none is
    thresholds = torch.full((300,), 0.5, dtype=torch.float64)
    thresholds[0] = 0.05
    text = render(
        many._replace(
            record=msgspec.structs.replace(many.record, data=data),
            result=many.result | {"test": test},
            counts=LabelPredictions(labels, said, thresholds),
        )
    )
    assert "The 2 of 300 classes with the lowest average precision, of those that have test images:" in text
    assert [row[0] for row in rows_of(text)] == ["label 0", "label 1"]
    assert rows_of(text)[1] == ["label 1", "1", "100.00%", "0.00%", "-", "0.500"]


def test_settings_that_are_the_defaults_are_counted_and_not_shown(facts: Facts) -> None:
    recipe = msgspec.structs.replace(Recipe(), epochs=7, augment=(Crop(padding=2),))
    text = render(facts._replace(record=msgspec.structs.replace(facts.record, settings=recipe)))
    table = text.split("| setting | value |\n|---|---|\n")[1]
    rows, after = table.split("\n\n")[:2]
    assert [row.split(" | ")[0] for row in rows.splitlines()] == ["| epochs", "| augment"]
    assert after == f"{len(Recipe.__struct_fields__) - 4} more settings have their defaults."


def test_files_for_other_runtimes_are_said_where_they_are_there(facts: Facts) -> None:
    assert "zoo export hf://" in render(facts)
    with_files = render(facts._replace(onnx=True))
    assert "`onnx/model.onnx` and `preprocessor_config.json`" in with_files
    assert "zoo export hf://" not in with_files


@pytest.mark.parametrize(
    ("rule", "words"), [("top1", "the best epoch was chosen on the test split"), ("last", "selected none")]
)
def test_what_the_protocol_of_the_papers_means_follows_the_selection(rule: str, words: str, facts: Facts) -> None:
    record = msgspec.structs.replace(facts.record, protocol="paper")
    result = {**facts.result, "validation": None, "selection": {"rule": rule, "split": "test", "epoch": 1}}
    text = render(facts._replace(record=record, result=result))
    assert words in text
    assert ("too high" in text) == (rule == "top1")


def entries(text: str) -> list[str]:
    """The BibTeX entries of a card."""
    return re.findall(r"^```bibtex\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)[0].split("\n\n")


def test_the_source_and_the_package_can_be_cited(facts: Facts) -> None:
    assert entries(render(facts)) == [
        "@misc{mixture-models,\n"
        "  title = {{Mixture Models}},\n"
        "  author = {Sai Kiran Maddela and Ian Trowbridge},\n"
        "  howpublished = {trowk/CS395T\\_Final on GitHub},\n"
        "}",
        "@misc{hybrid-alt-1-on-sklearn-digits,\n"
        "  title = {{hybrid-alt-1 on sklearn:digits}},\n"
        "  howpublished = {Hugging Face Hub},\n"
        "  url = {https://huggingface.co/me/digits},\n"
        f"  note = {{weights of hybrid-zoo {__version__}, sha256 {'f' * 16}}},\n"
        "}",
    ]
    other = msgspec.structs.replace(facts.record, model="mine")
    assert len(entries(render(facts._replace(record=other)))) == 1


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Ada Lovelace", ["Ada Lovelace"]),
        ("A. One, B. Two (Institute of C, and D)", ["A. One", "B. Two"]),
        ("A. One and B. Two", ["A. One", "B. Two"]),
        ("A. One et al. (Somewhere)", ["A. One", "others"]),
        ("Anders Sandberg", ["Anders Sandberg"]),
        ("", []),
    ],
)
def test_authors_are_told_apart(text: str, names: list[str]) -> None:
    assert authors(text) == names


@pytest.mark.parametrize("text", HOSTILE)
def test_a_citation_is_text_whatever_its_source_says(text: str) -> None:
    lines = of_source(
        text, Source(title=text, authors=text, code=text, url=f"https://evil.example/{text}")
    ).splitlines()
    assert re.fullmatch(r"@misc\{[A-Za-z0-9-]+,", lines[0])
    assert lines[-1] == "}"
    for line in lines[1:-1]:
        value = line.split(" = ", 1)[1].removesuffix(",").replace("\\{", "").replace("\\}", "")
        assert value.count("{") == value.count("}")
        assert not re.search(r"`|<|\]\(|(?<!\\)[&%$#_]", value)
        assert line.isprintable()
