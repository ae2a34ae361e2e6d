"""A static Space: one page that classifies images in the visitor's browser, with all that it needs beside it.

index.html             the page, its script and style inside, and a policy that allows no other code
model.onnx             the package's `onnx/model.onnx`
ort.wasm.min.mjs ...   ONNX Runtime Web, which runs it
README.md SHA256SUMS   what the Hub shows, and the hash of each file
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from PIL import ImageColor

from zoo.base.files import write_text
from zoo.base.headline import headline
from zoo.base.templates import templates
from zoo.base.text import plural
from zoo.base.version import __version__
from zoo.base.web_page import allowed
from zoo.catalogue.registry import Registry
from zoo.data.files.decode import MAX_PIXELS, Rule
from zoo.errors import InputError
from zoo.export.facts import PIXEL_VALUES
from zoo.hub.card import TEMPLATES, Markdown, escape
from zoo.hub.entry import stated_licence
from zoo.hub.package import Package
from zoo.hub.ref import parse_ref
from zoo.hub.sums import CARD, ONNX, SUMS, copy_file, sums_text
from zoo.hub.web_runtime import RUNTIME, runtime_folder
from zoo.runs.folder import read_result, thresholds_of
from zoo.runs.images import rule_of
from zoo.serve.page import asset

PAGE, MODEL = "index.html", "model.onnx"
CONNECT: Final = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.co"
"""Whence the page may fetch: from the Space, and from the Hub's storage, to which a Space leads for large files."""

OF_THE_RULE: Final = tuple(field.name for field in fields(Rule) if field.name != "colours")
"""What the page's script knows of how images are scaled and cut: all of it."""


class Space(NamedTuple):
    """What a Space will hold: its name OWNER/NAME, its files in `folder`, and the title of the commit."""

    repo: str
    folder: Path
    names: tuple[str, ...]
    title: str

    @property
    def files(self) -> list[tuple[str, int]]:
        """Each file with its size in bytes."""
        return [(name, (self.folder / name).stat().st_size) for name in self.names]


class Asked(NamedTuple):
    """The Space that was asked for: its name OWNER/NAME, and the folder with ONNX Runtime Web."""

    repo: str
    runtime: Path


def asked_space(name: str | bool, model: str, runtime: Path | None, *, create_pr: bool) -> Asked | None:
    """What the option `--space` asks for, checked before anything is measured or sent.

    Args:
        name: OWNER/NAME; True: as `model`, the name of the package's repository; False: none.
        runtime: a folder with ONNX Runtime Web; None: npm fetches it.
    Returns:
        None where no Space was asked for.
    Raises:
        InputError: it is no name that a repository can have, an option does not fit, or the runtime is missing.
    """
    if name is False:
        if runtime is not None:
            raise InputError(f"--runtime {runtime}: is for a Space; give --space too")
        return None
    if create_pr:
        raise InputError("--space shows what is published, and --create-pr only proposes it; leave out one of them")
    ref = parse_ref(model if name is True else name)
    if ref.revision:
        raise InputError(f"--space {name}: a Space is made on its main branch; leave out @{ref.revision}")
    return Asked(ref.repo, runtime_folder(runtime))


def make_space(package: Package, asked: Asked, model: str, folder: Path, registry: Registry) -> Space:
    """Write the files of a Space.

    Args:
        package: one with `onnx/model.onnx`. model: OWNER/NAME of its repository.
        folder: one that does not exist yet.
    """
    folder.mkdir(parents=True)
    hashes = {MODEL: copy_file(package.folder / ONNX, folder / MODEL)}
    hashes |= {name: copy_file(asked.runtime / name, folder / name) for name in RUNTIME}
    words = _words(package, model)
    texts = {PAGE: _page(package, words, registry), CARD: _readme(package, words)}
    for name, text in texts.items():
        write_text(folder / name, text)
        hashes[name] = hashlib.sha256(text.encode()).hexdigest()
    write_text(folder / SUMS, sums_text(hashes))
    title = f"{words['title']} [{package.sums_sha256[:8]}]"
    return Space(asked.repo, folder, (*sorted(hashes), SUMS), title)


def _words(package: Package, model: str) -> dict[str, Any]:
    """What both the page and the README say."""
    from huggingface_hub import constants

    record, test = package.record, read_result(package.folder)["test"]
    return {
        "title": f"{record.model} on {record.data.spec}",
        "accuracy": f"test {headline(test).name} {headline(test).of(test):.2%}",
        "model": model,
        "link": f"{constants.ENDPOINT}/{model}",
        "version": __version__,
    }


def _page(package: Package, words: dict[str, Any], registry: Registry) -> str:
    parts = (*(_template(name) for name in ("scale.js", "space.js")), asset("page.js"))
    script = "\n".join([f"import * as ort from './{RUNTIME[0]}';", *parts])
    style = asset("page.css")
    policy = (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' {allowed(script)}; style-src {allowed(style)}; "
        f"img-src blob: data:; connect-src {CONNECT}; form-action 'none'; base-uri 'none'"
    )
    facts = _facts(package, registry)
    page = templates(TEMPLATES).get_template("space.html")
    return page.render(facts=facts, policy=policy, style=style, script=script, plural=plural, **words)


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text("utf-8")


def _facts(package: Package, registry: Registry) -> dict[str, Any]:
    """What the page's script knows of the model."""
    rule: Rule = rule_of(package.record, registry)
    red, green, blue = ImageColor.getrgb(rule.colours.background or "white")[:3]
    return {
        "model": MODEL,
        "input": PIXEL_VALUES,
        "classes": list(package.config.classes),
        "thresholds": list(thresholds_of(package.folder, package.record)),
        "rule": {name: getattr(rule, name) for name in OF_THE_RULE},
        "background": f"rgb({red}, {green}, {blue})",
        "most": MAX_PIXELS,
    }


def _readme(package: Package, words: dict[str, Any]) -> str:
    from huggingface_hub import SpaceCardData

    licence = stated_licence(package.folder)
    data = SpaceCardData(
        title=words["title"],
        sdk="static",
        app_file=PAGE,
        license=licence,
        tags=["hybrid-zoo", "image-classification"],
        models=[words["model"]],
    )
    page = templates(TEMPLATES, finalize=lambda value: value if isinstance(value, Markdown) else escape(str(value)))
    named = {**words, "link": Markdown(words["link"]), "onnx": MODEL}
    return page.get_template("space.md.tmpl").render(data=Markdown(data.to_yaml()), **named)
