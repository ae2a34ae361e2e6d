r"""BibTeX entries: of the source of a model, and of a package.

The text may come from strangers: it is one line, has no backtick, which could end the fence around an entry, and no
character that means something to LaTeX, to HTML or in a link of Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from zoo.catalogue.spec import Source

ADDRESS = r"https?://[\w.:/?&=%+~-]+"
"""Web addresses without a character that means something in Markdown, HTML or BibTeX where it stands."""

LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "{}&%$#_"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "[": "{[}",
        "]": "{]}",
        "`": "'",
    }
)


def of_source(key: str, source: Source) -> str:
    """The entry of a paper or report, as far as the catalogue describes it."""
    fields = {
        "title": f"{{{latex(source.title)}}}",  # in two braces, so that styles keep its capitals
        "author": latex(" and ".join(authors(source.authors))),
        "howpublished": latex(source.code),
        "url": address(source.url),
    }
    return entry(key, fields)


def of_package(title: str, repo: str, weights: str, version: str) -> str:
    """The entry of a package.

    Args:
        title: the model and its dataset. repo: "OWNER/NAME". weights: their sha256.
        version: of hybrid-zoo; "" if it is not known.
    """
    fields = {
        "title": f"{{{latex(title)}}}",
        "howpublished": "Hugging Face Hub",
        "url": f"https://huggingface.co/{repo}",
        "note": latex(f"weights of hybrid-zoo {version}".rstrip() + f", sha256 {weights[:16]}"),
    }
    return entry(title, fields)


def entry(key: str, fields: Mapping[str, str]) -> str:
    """One entry `@misc`, without the fields that are empty.

    Args:
        key: any text; letters, digits and hyphens of it are used. fields: by name, as LaTeX reads them.
    """
    name = re.sub(r"[^A-Za-z0-9]+", "-", key).strip("-") or "model"
    lines = [f"  {field} = {{{text}}}," for field, text in fields.items() if text.strip("{}")]
    return "\n".join([f"@misc{{{name},", *lines, "}"])


def authors(text: str) -> list[str]:
    """Names from "A, B and C (an institution)"; "others" for "et al."."""
    names = re.split(r"[,;&]|\band\b", re.sub(r"\([^()]*\)", " ", text))
    divided = [re.sub(r"\bet al\b\.?", ", others", name).split(",") for name in names]
    return [one for name in divided for part in name if (one := " ".join(part.split()))]


def latex(text: str) -> str:
    """Text as it is, whatever LaTeX would make of it; one line, without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).translate(LATEX)


def address(url: str) -> str:
    """A web address; "" where it holds anything but an address."""
    return url if re.fullmatch(ADDRESS, url, re.ASCII) else ""
