"""The commands of a page of the documentation, run as a reader would, and what the page shows beside them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^```(\S+)(?: (\w+))?\n(?::caption: (\S+)\n\n)?(.*?)^```$", re.DOTALL | re.MULTILINE)
ANYTHING = "..."
EITHER = ({"channels-last", "contiguous"}, {"bf16", "fp32"}, {"s", "min", "h"})
"""Words of which the hardware, or its speed, chooses one."""


class Step(NamedTuple):
    """A file to save (`path`), or a command with the lines that the page shows."""

    command: str
    shown: list[str]
    path: str = ""
    text: str = ""


def steps(markdown: str) -> Iterator[Step]:
    """Blocks with a caption are files; `$` in a console block begins a command."""
    for kind, _, caption, body in FENCE.findall(markdown):
        if caption:
            yield Step("", [], caption, body)
        elif kind == "console":
            for block in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                command, *shown = block.rstrip("\n").split("\n")
                yield Step(command, shown)


def environment(folder: Path) -> dict[str, str]:
    """This process's environment with `zoo` and `python` in front of all others on the path."""
    programs = folder / "programs"
    programs.mkdir()
    for name, words in {"zoo": "-m zoo", "python": ""}.items():
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
        script.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "COLUMNS", "NO_COLOR"))}
    return {**kept, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONUTF8": "1"}


def run(command: str, cwd: Path, env: Mapping[str, str]) -> list[str]:
    """The lines that the command prints, to people and for data; it must succeed."""
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"$ {command}\n{done.stdout}"
    return done.stdout.splitlines()


def form(line: str) -> str:
    """A pattern of the line in which numbers, hashes, and what the hardware chooses, may be others."""

    def pattern(match: re.Match[str]) -> str:
        return "[0-9a-f]+" if re.fullmatch("[0-9a-f]{8,}", match[0]) else "[0-9.,:]+"

    words = []
    for word in line.split():
        either = next((group for group in EITHER if word in group), None)
        if either:
            words.append(f"(?:{'|'.join(sorted(either))})")
        else:
            escaped = re.escape(word).replace(r"\.", ".")
            words.append(re.sub(r"\b[0-9a-f]{8,}\b|[\d.,:]*\d[\d.,:]*", pattern, escaped))
    return r"\s*" + r"\s+".join(words) + r"(?:\s+\*)?"  # the star of the best epoch


def differences(shown: list[str], printed: list[str]) -> list[str]:
    """What the page shows and the command does not print in that form, and the other way round."""
    pattern = "".join("(?:.*\n)*?" if line == ANYTHING else f"{form(line)}\n" for line in shown)
    if re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed)):
        return []
    wanted = [line for line in shown if line != ANYTHING]
    missing = [f"- {s}" for s in wanted if not any(re.fullmatch(form(s), p.rstrip()) for p in printed)]
    return missing or [f"+ {line}" for line in printed]
