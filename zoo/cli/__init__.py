"""The command `zoo`: one small file per command group, each imported when its command is used."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import click

from zoo.base.version import __version__
from zoo.cli.shared.messages import explained, say_error, say_problems
from zoo.errors import OtherVersionWarning

COMMANDS = MappingProxyType(
    {
        "list": ("zoo.cli.listing:list_models", "List the models of the catalogue."),
        "info": ("zoo.cli.info:info", "Show one model: its tree, recipe and results."),
        "plugins": ("zoo.cli.plugins:plugins", "List and check plugins, and say what is wrong with any."),
        "datasets": ("zoo.cli.datasets:datasets", "List and check datasets."),
        "new": ("zoo.cli.new:new", "Start a plugin of your own: a package folder that passes its tests."),
        "train": ("zoo.cli.train:train", "Train a model by its recipe into a run folder."),
        "eval": ("zoo.cli.evaluate:evaluate", "Evaluate a run on its test split."),
        "predict": ("zoo.cli.predict:predict", "Print the top classes of images, and explain them."),
        "serve": ("zoo.cli.serve:serve", "Serve a model: a page to drop images on, and an HTTP endpoint."),
        "runs": ("zoo.cli.runs:runs", "List, filter, compare and remove runs."),
        "report": ("zoo.cli.report:report", "Write runs and published results as one HTML page."),
        "plot": ("zoo.cli.plot:plot", "Draw the curves of runs as PNG, SVG or PDF."),
        "bench": ("zoo.cli.bench:bench", "Measure speed, memory, and what the training loop costs."),
        "reproduce": (
            "zoo.cli.reproduce:reproduce",
            "Train a source's table and print it beside the source's.",
        ),
        "sweep": ("zoo.cli.sweep:sweep", "Search a recipe: grids and samples, with pruning."),
        "export": ("zoo.cli.export:export", "Export a run to ONNX or torch.export, checked against torch."),
        "package": ("zoo.cli.hub:package", "Make a package of a run: weights, config, card, hashes."),
        "publish": ("zoo.cli.hub:publish", "Publish a run or a package to the Hub."),
        "pull": ("zoo.cli.hub:pull", "Fetch a package from the Hub and verify it."),
        "verify": ("zoo.cli.hub:verify", "Check a package: hashes, model, and its numbers measured again."),
        "search": ("zoo.cli.hub:search", "Search the Hub for packages."),
        "doctor": (
            "zoo.cli.doctor.command:doctor",
            "Say what is wrong with this installation, and what mends it.",
        ),
        "completion": ("zoo.cli.completion:completion", "Print the completion script for bash, zsh or fish."),
    }
)

EXIT_CODES = MappingProxyType(
    {
        0: "Done.",
        1: "Failed: the message says why. A check that found something wrong ends with it, too.",
        2: "Wrong input: an unknown name, option, key or value.",
        70: "A bug of ours: please report it with the output of --debug.",
        130: "Stopped by Ctrl-C.",
        143: "Stopped by SIGTERM.",
    }
)
"""What a command ends with; the errors of `zoo.errors` have codes of their own."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        command.name = cmd_name  # what users type; its function may be called otherwise
        if "_ZOO_COMPLETE" in os.environ:  # as the scripts of `zoo completion` set it
            from zoo.cli.completion import teach

            teach(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with the nearest command named where there is none."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from zoo.errors import UnknownNameError

            raise UnknownNameError("command", args[0], COMMANDS, "see `zoo --help`")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "-V", "--version", message="hybrid-zoo %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--no-plugins", is_flag=True, help="Load the built-in plugins only.")
@click.option("-v", "--verbose", is_flag=True, help="Say what was chosen, and why, where a command chooses.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no hints; errors and warnings stay.")
@click.pass_context
def cli(context: click.Context, debug: bool, no_plugins: bool, verbose: bool, quiet: bool) -> None:
    """Model zoo for image classification: list, train, evaluate, and mix architectures.

    Examples:

    \b
      zoo list
      zoo info hybrid-alt-1 --build
      zoo train hybrid-alt-1 --dataset digits
      zoo -q runs --best
    """
    chosen = {name: True for name, given in (("verbose", verbose), ("quiet", quiet)) if given}
    context.default_map = dict.fromkeys(COMMANDS, chosen)  # a command that has the option takes it from here


def main(args: Sequence[str] | None = None, prog_name: str = "zoo") -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    words = list(sys.argv[1:] if args is None else args)
    atexit.register(_leave_quickly)
    warnings.showwarning = _show_warning
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # both may stand anywhere
    if "--no-plugins" in words:
        words.remove("--no-plugins")
        os.environ["ZOO_LOAD_PLUGINS"] = ""
    try:
        sys.exit(_run(words, prog_name))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: not an error
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            import traceback

            traceback.print_exc()
        code, message = explained(error)
        say_error(message)
        sys.exit(code)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any
) -> None:
    """One line on stderr; a warning of ours without the place in the code, a library's only if asked for."""
    if issubclass(category, OtherVersionWarning):
        say_problems([str(message)])
    elif not _is_a_librarys(str(message), category, filename) or "--debug" in sys.argv or sys.warnoptions:
        print(f"{filename}:{lineno}: {category.__name__}: {message}", file=sys.stderr)


def _is_a_librarys(message: str, category: type[Warning], filename: str) -> bool:
    """What only a programmer can act on: torch's own warnings, and those about the future of an interface."""
    if issubclass(category, DeprecationWarning | FutureWarning):
        return True
    places = ("/torch/", "/torchvision/")
    return "Triggered internally at" in message or any(p in filename.replace("\\", "/") for p in places)


def _leave_quickly() -> None:
    """Collecting what the system takes back anyway costs a tenth of `zoo list`; torch wants it collected."""
    if "torch" not in sys.modules:
        gc.freeze()


def _run(words: list[str], prog_name: str) -> Any:
    collecting = gc.isenabled()
    if words[:1] == ["list"]:  # over before there is anything worth collecting
        gc.disable()
    try:
        return cli.main(words, prog_name=prog_name, standalone_mode=False) or 0
    finally:
        if collecting:
            gc.enable()
