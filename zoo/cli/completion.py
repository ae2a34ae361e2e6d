"""Shell completion by click, with the names of the catalogue; nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

import zoo
from zoo.base.paths import local_path
from zoo.base.text import one_line
from zoo.cli.shared import table
from zoo.cli.shared.format_option import format_names
from zoo.cli.shared.run_argument import run_names
from zoo.errors import ZooError

VARIABLE = "_ZOO_COMPLETE"
"""The environment variable that the completion scripts set."""

SHELLS = ("bash", "zsh", "fish")

MAY_BE_FILES = ("model", "models", "name", "weights")
"""Parameters that take FILE.toml#NAME, or a run folder, besides names of the catalogue."""

Pairs = Iterable[tuple[str, str]]
"""Names, each with what is shown beside it."""

Names = Callable[[], Pairs]


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
        "weights": lambda: [*_models(), *((name, "") for name in run_names())],
        "dataset": _datasets,
        "on": _datasets,
        "recipe": _recipes,
        "log": _listeners,
        "form": _formats,
        "spec": _datasets,
        "family": lambda: ((model.family, "") for model in zoo.load_registry().models.values()),
        "tag": lambda: ((tag, "") for model in zoo.load_registry().models.values() for tag in model.tags),
    }
    special: dict[str, dict[str, Names]] = {
        "info": {"name": _models},
        "list": {"pattern": _models},
        "check": {"names": lambda: ((p.name, p.distribution) for p in zoo.load_registry().plugins)},
    }
    return common | special.get(command, {})


def _models() -> Pairs:
    return ((name, model.summary) for name, model in zoo.load_registry().models.items())


def _datasets() -> Pairs:
    from_files = ((f"{scheme}:", "") for scheme in ("folder", "csv", "jsonl", "parquet", "wds", "hf"))
    return [*((name, data.summary) for name, data in zoo.load_registry().datasets.items()), *from_files]


def _recipes() -> Pairs:
    return [("best", "the model's better recipe"), *((n, r.summary) for n, r in zoo.load_registry().recipes.items())]


def _listeners() -> Pairs:
    listeners = ((n, c) for n, c in zoo.load_registry().components.items() if c.kind == "listener")
    return ((name.partition(".")[2], component.summary) for name, component in listeners)


def _formats() -> Pairs:
    return format_names().items()


def _completer(names: Names, files: bool = False) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(context: click.Context, incomplete: str) -> list[CompletionItem]:
        del context
        path, mark, rest = incomplete.rpartition("#")
        try:
            known = dict(_models_in(path) if mark else names())
        except (ZooError, OSError, ValueError, RecursionError):
            return []  # an error must not be printed into the user's command line
        fitting = [(name, text) for name, text in sorted(known.items()) if name.startswith(rest)]
        if files and not (mark or fitting):  # FILE.toml#... or a run folder
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(f"{path}{mark}{name}", help=one_line(text, 80)) for name, text in fitting]

    return complete


def _models_in(path: str) -> Pairs:
    """The models of FILE.toml#..."""
    import tomllib

    models = tomllib.loads(local_path(path).read_text("utf-8")).get("models", {})
    return [(name, "") for name in models] if isinstance(models, dict) else []
