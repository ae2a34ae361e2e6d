"""The command `zoo`: one file per command, imported when the command is used."""

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

from zoo.base.streams import silence
from zoo.base.version import __version__
from zoo.cli.shared.messages import check_folder, explained, say_error, say_problems
from zoo.cli.shared.quiet import ABOUT, add_quiet
from zoo.errors import ZooWarning

COMMANDS = MappingProxyType(
    {
        "list": ("zoo.cli.listing:list_models", "List the models of the catalogue."),
        "info": ("zoo.cli.info:info", "Show one model: its tree, recipe and results."),
        "plugins": ("zoo.cli.plugins:plugins", "List plugins, and run the conformance checks on them."),
        "datasets": ("zoo.cli.datasets:datasets", "List and check datasets."),
        "new": ("zoo.cli.new:new", "Create the package folder of a new plugin, with tests that pass."),
        "train": ("zoo.cli.train:train", "Train a model with its recipe, into a run folder."),
        "eval": ("zoo.cli.evaluate:evaluate", "Evaluate a run on its test split."),
        "calibrate": ("zoo.cli.calibrate:calibrate", "Fit the temperature of a run's probabilities."),
        "predict": ("zoo.cli.predict:predict", "Classify images, and explain the predictions."),
        "embed": ("zoo.cli.embed:embed", "Write the features of images to a file: Parquet or npy."),
        "probe": ("zoo.cli.probe:probe", "Compare the features of models by linear and kNN probes."),
        "serve": ("zoo.cli.serve:serve", "Serve a model: a web page to drop images on, and an HTTP endpoint."),
        "runs": ("zoo.cli.runs:runs", "List, filter, compare and remove runs."),
        "report": ("zoo.cli.report:report", "Write an HTML page of runs and published results."),
        "plot": ("zoo.cli.plot:plot", "Draw the training curves of runs as PNG, SVG or PDF."),
        "bench": ("zoo.cli.bench:bench", "Measure speed, memory and the overhead of the training loop."),
        "reproduce": ("zoo.cli.reproduce:reproduce", "Train the models of a published table, and print both results."),
        "sweep": ("zoo.cli.sweep:sweep", "Search for better recipe settings: grids, random samples, pruning."),
        "soup": ("zoo.cli.soup:soup", "Make one run of several: average their weights, or let them answer together."),
        "export": ("zoo.cli.export:export", "Export a run to ONNX and other formats, checked against torch."),
        "package": ("zoo.cli.hub:package", "Package a run: weights, config, card, hashes."),
        "publish": ("zoo.cli.hub:publish", "Publish a run or a package to the Hub."),
        "release": ("zoo.cli.release:release", "Publish the best run of every model, and record the weights."),
        "pull": ("zoo.cli.hub:pull", "Download a package from the Hub, and check its hashes and its model."),
        "verify": ("zoo.cli.hub:verify", "Check a package: its hashes, its model, and its accuracy measured again."),
        "search": ("zoo.cli.hub:search", "Search the Hub for packages."),
        "doctor": ("zoo.cli.doctor.command:doctor", "Check this installation, and say how to fix what is wrong."),
        "help": ("zoo.cli.help:show_help", "Print the help of zoo, or of a command."),
        "completion": ("zoo.cli.completion:completion", "Print the completion script for bash, zsh or fish."),
    }
)

EXIT_CODES = MappingProxyType(
    {
        0: "The command succeeded.",
        1: "The command failed, and the message says why; or a check found a problem.",
        2: "The input is wrong: an unknown name, option, key or value.",
        70: "A bug in zoo: please report it with the output of --debug.",
        129: "The command was stopped because its terminal was closed (SIGHUP).",
        130: "The command was stopped by Ctrl-C.",
        141: "The command was stopped because the program that reads its output ended.",
        143: "The command was stopped by SIGTERM.",
    }
)
"""Exit codes of every command; the errors in `zoo.errors` add codes of their own."""


class ReaderLeft(Exception):
    """The program that reads stdout ended: what it wanted, it has."""


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The command names, in the order of a typical workflow."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        add_quiet(command)
        command.name = cmd_name  # the name that users type; the function may have another
        if "_ZOO_COMPLETE" in os.environ:  # as the scripts of `zoo completion` set it
            from zoo.cli.completion import teach

            teach(command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would exit with 1 where the reader of stdout has left.

        Raises:
            ReaderLeft: as for `zoo list | head -1`.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderLeft from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, but suggest the nearest command for an unknown one."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from zoo.errors import UnknownNameError

            raise UnknownNameError("command", args[0], COMMANDS, "see `zoo --help`")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in the help without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="hybrid-zoo %(version)s")
@click.option("--debug", is_flag=True, help="Show the full traceback when a command fails.")
@click.option("--no-plugins", is_flag=True, help="Load only the built-in plugins.")
@click.option("-v", "--verbose", is_flag=True, help="Print the settings that a command chose by itself, and why.")
@click.option("-q", "--quiet", **ABOUT)
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
    check_folder()
    # -v is also the default of a command's own option; `add_quiet` does the same for -q.
    context.default_map = dict.fromkeys(COMMANDS, {"verbose": True} if verbose else {})
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(args: Sequence[str] | None = None, prog_name: str = "zoo") -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    _replace_closed_streams()
    _let_stdout_print_every_name()
    words = list(sys.argv[1:] if args is None else args)
    atexit.register(_leave_quickly)
    warnings.showwarning = _show_warning
    debug = "--debug" in words
    # --debug and --no-plugins are accepted anywhere on the command line
    words = [word for word in words if word != "--debug"]
    if "--no-plugins" in words:
        words.remove("--no-plugins")
        os.environ["ZOO_LOAD_PLUGINS"] = ""
    try:
        sys.exit(_run(words, prog_name))
    except (ReaderLeft, BrokenPipeError):
        silence(sys.stdout)  # the reader closed the pipe: not an error
        sys.exit(0)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            import traceback

            traceback.print_exc()
        code, message = explained(error)
        say_error(message)
        sys.exit(code)


def _replace_closed_streams() -> None:
    """Replace closed stdin, stdout and stderr (`<&-`, `2>&-`) by empty ones."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _let_stdout_print_every_name() -> None:
    """Let names of files through that the encoding of stdout lacks: those that are not UTF-8 as their bytes."""
    encoding, errors = (getattr(sys.stdout, name, None) for name in ("encoding", "errors"))
    if errors == "strict" and hasattr(sys.stdout, "reconfigure"):
        utf8 = str(encoding).lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any
) -> None:
    """Print a warning as one line on stderr: ours without its place in the code, a library's only with --debug."""
    if issubclass(category, ZooWarning):
        say_problems([str(message)])
    elif not _is_a_librarys(str(message), category, filename) or "--debug" in sys.argv or sys.warnoptions:
        print(f"{filename}:{lineno}: {category.__name__}: {message}", file=sys.stderr)


def _is_a_librarys(message: str, category: type[Warning], filename: str) -> bool:
    """Whether only a programmer can act on a warning: torch's own ones, and deprecations."""
    if issubclass(category, DeprecationWarning | FutureWarning):
        return True
    places = ("/torch/", "/torchvision/")
    return "Triggered internally at" in message or any(p in filename.replace("\\", "/") for p in places)


def _leave_quickly() -> None:
    """Skip the garbage collection at exit, which takes a tenth of `zoo list`; torch relies on it."""
    if "torch" not in sys.modules:
        gc.freeze()


def _run(words: list[str], prog_name: str) -> Any:
    collecting = gc.isenabled()
    if words[:1] in (["list"], ["runs"]):  # it ends before there is anything worth collecting
        gc.disable()
    try:
        code = cli.main(words, prog_name=prog_name, standalone_mode=False) or 0
        sys.stdout.flush()  # here, where a reader that has left is no error
        return code
    finally:
        if collecting:
            gc.enable()
