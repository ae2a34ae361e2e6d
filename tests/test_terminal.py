"""What a person meets in a terminal: help with examples, 80 columns, quiet, no colour, no noise."""

from __future__ import annotations

import ast
import fcntl
import inspect
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import warnings
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from click_tree import command_at, commands, examples, options, parse, words_of

from zoo import cli
from zoo.cli import cli as root

PATHS = [context.command_path for context in commands()]
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


OTHERS = ("curl ",)
"""What begins an example of another program."""


@pytest.mark.parametrize("path", PATHS)
def test_every_help_has_examples_that_parse(path: str) -> None:
    shown = examples(command_at(path))
    assert shown, f"{path} --help has no block `Examples:`"
    ours = [example for example in shown if not example.startswith(OTHERS)]
    assert ours
    for example in ours:
        assert parse(words_of(example)).startswith(path), example


@pytest.mark.parametrize("path", PATHS)
def test_every_option_says_what_it_is(path: str) -> None:
    assert [option.opts for option in options(command_at(path)) if not option.help] == []


@pytest.mark.parametrize(
    "words", ["train x --no-such", "bench --compile never", "plugins chekc x", "info", "plot --dpi 1 x"]
)
def test_an_example_that_is_out_of_date_is_seen(words: str) -> None:
    with pytest.raises((click.UsageError, ValueError)):
        parse(words.split())


WALK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from click_tree import command_at, commands
found = {}
for context in commands():
    context.terminal_width = 80
    found[context.command_path] = context.command.get_help(context)
heavy = sorted({"torch", "numpy", "torchvision", "timm", "sklearn"} & set(sys.modules))
print(json.dumps([found, heavy]))
"""


def test_no_help_needs_torch_or_more_than_80_columns() -> None:
    words = [sys.executable, "-c", WALK, str(Path(__file__).parent)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    found, heavy = json.loads(done.stdout)
    assert heavy == []
    assert list(found) == PATHS
    wide = [f"{p}: {line}" for p, text in found.items() for line in text.splitlines() if len(line) > 80]
    assert wide == []


def prints_a_table(command: click.Command) -> bool:
    """Whether the command's function reaches `emit_table` through the functions of its module."""
    callback = inspect.unwrap(command.callback) if command.callback else None
    module = sys.modules[callback.__module__] if callback else None
    if module is None or not (module.__file__ or "").endswith(".py"):
        return False
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    bodies = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    names, seen = [callback.__name__], set()
    while names:
        name = names.pop()
        if name == "emit_table":
            return True
        if name in bodies and name not in seen:
            seen.add(name)
            nodes = list(ast.walk(bodies[name]))
            names += [n.id for n in nodes if isinstance(n, ast.Name)]
            names += [n.attr for n in nodes if isinstance(n, ast.Attribute)]
    return False


def test_whoever_prints_a_table_prints_json_too() -> None:
    tables = {c.command_path: c.command for c in commands() if prints_a_table(c.command)}
    assert {"zoo list", "zoo runs", "zoo plugins", "zoo verify"} <= set(tables)
    without = [path for path, c in tables.items() if not any("--json" in o.opts for o in options(c))]
    assert without == []


def on_terminal(words: list[str], cwd: Path, more: Mapping[str, str] | None = None) -> str:
    """What `zoo` writes to a real terminal of 80 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    env |= {"TERM": "xterm-256color", **(more or {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", *words], cwd=cwd, env=env, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            block = os.read(master, 1 << 16)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not block:
            break
        shown += block
    os.close(master)
    assert process.wait(60) == 0, shown.decode()
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "words", ["list", "plugins", "datasets", "info hybrid-alt-1", "info hybrid-joint-3 --tree", "list speedrun*"]
)
def test_tables_fit_80_columns(words: str, tmp_path: Path) -> None:
    shown = ANSI.sub("", on_terminal(words.split(), tmp_path))
    assert len(shown.splitlines()) > 1
    assert [line for line in shown.splitlines() if len(line) > 80] == []


def test_no_color_takes_the_styles_away_and_quiet_the_hints(tmp_path: Path) -> None:
    styled = on_terminal(["list", "hybrid-alt*"], tmp_path)
    assert "\x1b[1m" in styled
    assert "next: zoo info" in styled
    plain = on_terminal(["-q", "list", "hybrid-alt*"], tmp_path, {"NO_COLOR": "1"})
    assert "\x1b" not in plain
    assert "next:" not in plain
    assert "hybrid-alt-1" in plain


@pytest.mark.parametrize("words", ["-q -v train x", "train x -q -v", "-q train x -v"])
def test_quiet_and_verbose_before_a_command_are_its_own_options(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def instead(quiet: bool, verbose: bool, **_: object) -> None:
        seen.append((quiet, verbose))

    monkeypatch.setattr(command_at("zoo train"), "callback", instead)
    root.main(words.split(), prog_name="zoo", standalone_mode=False)
    assert seen == [(True, True)]


@pytest.mark.parametrize(
    ("message", "category", "filename", "shown"),
    [
        ("pin_memory is set, no accelerator", UserWarning, "/lib/torch/utils/data.py", False),
        ("not writable (Triggered internally at tensor.cpp:1)", UserWarning, "/zoo/rerun.py", False),
        ("will go", FutureWarning, "/lib/x.py", False),
        ("an image of 90 million pixels", UserWarning, "/lib/PIL/Image.py", True),
    ],
)
def test_only_warnings_that_a_user_can_act_on_are_shown(
    message: str,
    category: type[Warning],
    filename: str,
    shown: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["zoo", "predict"])
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings():
        cli._show_warning(message, category, filename, 1)
        assert (message in capsys.readouterr().err) is shown
        monkeypatch.setattr(sys, "argv", ["zoo", "--debug", "predict"])
        cli._show_warning(message, category, filename, 1)
        assert message in capsys.readouterr().err
