"""Shell completion by click, with the names of the catalogue; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from zoo.base.text import one_line
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.registry_file import parse_file
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import run_names
from zoo.errors import ZooError

VARIABLE = "_ZOO_COMPLETE"
"""The environment variable that the completion scripts set."""

SHELLS = ("bash", "zsh", "fish")

MAY_BE_FILES = ("model", "models", "name", "weights")
"""Parameters that take FILE.toml#NAME, or a run folder, besides names of the catalogue."""

Names = Callable[[Registry], Iterable[tuple[str, str]]]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, models, datasets, recipes, runs and paths.

    For bash, put the first example into ~/.bashrc; for zsh, the second one into ~/.zshrc, after compinit.

    Examples:

    \b
      eval "$(zoo completion bash)"
      eval "$(zoo completion zsh)"
      zoo completion fish > ~/.config/fish/completions/zoo.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # SHELLS are click's
    script = kind(click.Command("zoo"), {}, "zoo", VARIABLE)
    table.emit([script.source_template % script.source_vars()])


def teach(command: click.Command) -> None:
    """Make the parameters of a command complete names of the catalogue, chosen by the parameter's name."""
    for parameter in command.params:
        names = _sources(command.name or "").get(parameter.name or "")
        if names is not None and not isinstance(parameter.type, click.Choice):
            completer = _completer(names, files=parameter.name in MAY_BE_FILES)
            setattr(parameter, "shell_complete", completer)  # noqa: B010 - a method of the instance
    if isinstance(command, click.Group):
        for below in command.commands.values():
            teach(below)


def _sources(command: str) -> dict[str, Names]:
    common: dict[str, Names] = {
        "model": _models,
        "models": _models,
        "weights": lambda r: [*_models(r), *((name, "") for name in run_names())],
        "dataset": _datasets,
        "on": _datasets,
        "recipe": _recipes,
        "log": _listeners,
        "spec": _datasets,
        "family": lambda r: ((model.family, "") for model in r.models.values()),
        "tag": lambda r: ((tag, "") for model in r.models.values() for tag in model.tags),
    }
    special: dict[str, dict[str, Names]] = {
        "info": {"name": _models},
        "list": {"pattern": _models},
        "check": {"names": lambda r: ((p.name, p.distribution) for p in r.plugins)},
    }
    return common | special.get(command, {})


def _models(registry: Registry) -> Iterable[tuple[str, str]]:
    return ((name, model.summary) for name, model in registry.models.items())


def _datasets(registry: Registry) -> Iterable[tuple[str, str]]:
    from_files = ((f"{scheme}:", "") for scheme in ("folder", "parquet", "hf"))
    return [*((name, data.summary) for name, data in registry.datasets.items()), *from_files]


def _recipes(registry: Registry) -> Iterable[tuple[str, str]]:
    return [("best", "the model's better recipe"), *((n, r.summary) for n, r in registry.recipes.items())]


def _listeners(registry: Registry) -> Iterable[tuple[str, str]]:
    listeners = ((n, c) for n, c in registry.components.items() if c.kind == "listener")
    return ((name.partition(".")[2], component.summary) for name, component in listeners)


def _completer(names: Names, files: bool = False) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(context: click.Context, incomplete: str) -> list[CompletionItem]:
        del context
        path, mark, rest = incomplete.rpartition("#")
        try:
            known = dict(_models_in(path) if mark else names(load_registry()))
        except (ZooError, OSError):
            return []  # an error must not be printed into the user's command line
        fitting = [(name, text) for name, text in sorted(known.items()) if name.startswith(rest)]
        if files and not (mark or fitting):  # FILE.toml#... or a run folder
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(f"{path}{mark}{name}", help=one_line(text, 80)) for name, text in fitting]

    return complete


def _models_in(path: str) -> Iterable[tuple[str, str]]:
    """The models of FILE.toml#..."""
    return ((name, "") for name in parse_file(Path(path).expanduser()).get("models", {}))
