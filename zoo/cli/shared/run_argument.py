"""RUN and RUNS on the command line: words that mean runs, said and completed in the same way by every command."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from zoo.cli.shared import table
from zoo.cli.shared.launch import TOGETHER
from zoo.errors import ZooError

HUB = "hf://"


class RunName(click.ParamType):
    """One run: becomes the path of its folder, or stays `hf://...`.

    Args:
        also: words that the command itself understands, which stay as they are.
        weights: whether the weights of a library are taken in the place of a run: "timm/NAME" stays as it is.
    """

    name = "RUN"

    def __init__(self, *also: str, weights: bool = False) -> None:
        self.also, self.weights = also, weights

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The folder's path; the newest run is named on stderr where `last` was typed."""
        word = str(value)
        if word in self.also or (ctx is not None and ctx.resilient_parsing):
            return word
        return chosen_run(word, weights=self.weights)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The runs below runs/, `last`, and folders."""
        return offered(incomplete, self.also)


class RunNames(click.ParamType):
    """Several runs, which the command looks up itself: they may be patterns, and folders of runs."""

    name = "RUNS"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The runs below runs/, `last`, and folders."""
        return offered(incomplete)


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """As `RunName.shell_complete`, for an argument that is not always a run."""
    del ctx, param
    return offered(incomplete)


def chosen_run(word: str, *, weights: bool = False) -> str:
    """The path of the run's folder, or the word where it names a package on the Hub or weights of the catalogue.

    Args:
        weights: or the weights of a library, several joined by a plus (an ensemble), or an exported file.
    Raises:
        InputError: as `zoo.runs.which.unknown`.
    """
    from zoo.runs.which import is_ensemble, is_exported_file, known, members_of, reference_of, unknown

    if is_ensemble(word, allowed=weights):
        say_last(members_of(word))
        return word
    if weights and is_exported_file(word):
        return word
    if word.startswith(HUB) or (weights and "/" in word and known(word) is None and _offers_weights(word)):
        return word
    if (folder := known(word)) is not None:
        _say_last(word, str(folder))
        return str(folder)
    if reference_of(word) is None:
        raise unknown(word)
    if "@" not in word:
        _say_which(word)
    return word


def _say_which(word: str) -> None:
    """Say which weights the name of a model stands for."""
    from zoo.catalogue.registry import load_registry
    from zoo.catalogue.weights import find_weights_of

    if found := find_weights_of(word, load_registry()):
        table.say(f"{word}: {found.name}")


def _offers_weights(word: str) -> bool:
    from zoo.catalogue.registry import load_registry

    return load_registry().offers_weights(word)


def say_last(words: Sequence[str]) -> None:
    """Say which run `last` is, where it is one of the words."""
    from zoo.runs.which import LAST, known

    if LAST in words:
        _say_last(LAST, str(known(LAST)))


def offered(incomplete: str, also: Sequence[str] = ()) -> list[CompletionItem]:
    """What completes a word that means a run: the folders by the shell itself, then the names.

    bash offers folders only where no name fits; after names, its script would forget these.
    """
    fitting = (word for word in (*also, *run_names(), *_names_of_weights()) if word.startswith(incomplete))
    return [CompletionItem(incomplete, type="dir"), *map(CompletionItem, fitting)]


def _names_of_weights() -> list[str]:
    """NAME@DATASET of all weights; none where the catalogue cannot be read: nothing must be printed into the line."""
    from zoo.catalogue.registry import load_registry
    from zoo.catalogue.weights import names_of_weights

    try:
        return list(names_of_weights(load_registry()))
    except ZooError:
        return []


def run_names() -> Iterator[str]:
    """The word `last`, if there is a run below runs/, and the names of the runs."""
    from zoo.runs.which import LAST, RUNS, below

    try:
        names = [name for _, name in below(RUNS, RUNS)]
    except OSError:  # an error must not be printed into the user's command line
        names = []
    yield from (*([LAST] if names else []), *names)


def _say_last(word: str, folder: str) -> None:
    """Say once which run `last` is: several processes that train together are given the same words."""
    from zoo.runs.which import LAST

    is_first = os.environ.get("RANK", "0") == "0" and TOGETHER not in os.environ
    if word == LAST and folder != LAST and is_first:
        table.say(f"last: {folder}")
