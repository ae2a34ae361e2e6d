"""A real process in which `zoo` commands run one after another: importing torch once is enough.

It learns where the Hub is from its environment alone, as any process does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

SERVE = """
import contextlib, io, json, sys, time
from zoo.cli import main
import zoo.hub.publish, zoo.hub.download
print("ready", flush=True)
for line in sys.stdin:
    words = json.loads(line)
    out, err, start = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([code or 0, out.getvalue(), err.getvalue(), time.monotonic() - start]), flush=True)
"""


STARTING = 600
"""Seconds in which the imports must be done: not the commands' time, and long on a busy machine."""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float


class Worker:
    """The process, with a cache, a home and a token of its own; `extra` variables are of a subclass's."""

    extra: tuple[tuple[str, str], ...] = ()

    def __init__(self, hub: Any, folder: Path, *, token: str | None = None, xet: bool = False) -> None:
        self.home = folder / "hf"
        self.zoo_cache = folder / "zoo-cache"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        env |= hub.env(self.home, token) | {"ZOO_CACHE_DIR": str(self.zoo_cache), "OMP_NUM_THREADS": "1"}
        env |= {"HF_HUB_DISABLE_XET": "0" if xet else "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= dict(self.extra)
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        self.ready = False
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=env,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
        )

    def __call__(self, *words: str | Path, limit: float = 180) -> Done:
        """Run one command; the process is ended where it takes longer than `limit` seconds."""
        assert self.process.stdin is not None
        if not self.ready:
            self.ready = self._line(STARTING, "its imports") == "ready\n"
        self.process.stdin.write(json.dumps([str(w) for w in words]) + "\n")
        self.process.stdin.flush()
        return Done(*json.loads(self._line(limit, words)))

    def good(self, *words: str | Path) -> tuple[str, str]:
        """What a command that has to succeed writes to stdout and to stderr."""
        done = self(*words)
        assert done.code == 0, (words, done.err[-1500:])
        return done.out, done.err

    def _line(self, limit: float, what: Any) -> str:
        assert self.process.stdout is not None
        timer, start = threading.Timer(limit, self.process.kill), time.monotonic()
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if line:
            return line
        self.stderr.seek(0)
        stderr = self.stderr.read().decode(errors="replace")[-2000:]
        raise AssertionError(f"the process ended after {time.monotonic() - start:.0f} s at {what}: {stderr}")

    def forget(self) -> None:
        """Empty the caches."""
        import shutil

        for folder in (self.home / "hub", self.home / "xet", self.zoo_cache / "hub"):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Worker:
        """Nothing: the process runs already."""
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        """End the process."""
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.stderr.close()
