"""Looking at a stranger's plugin in a process of its own.

One worker process forks once for each plugin: what the plugin does there, to the process, its terminal
or its modules, ends with that process. Nothing of it is ever imported by the process that lists.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import BinaryIO, NoReturn

import msgspec

from zoo.catalogue.plugins import Found, PluginRecord, leave_out, load, origin, record

PATIENCE = 20.0
"""Seconds that one plugin may take before it is given up; `ZOO_PLUGIN_SECONDS` overrides it."""

WORKER = "import sys; sys.path[:] = sys.argv[1:]; from zoo.catalogue.isolation import serve; serve()"


class Task(msgspec.Struct, frozen=True):
    """What the worker is given."""

    entries: list[Found]
    patience: float


def inspect(entries: Sequence[Found]) -> list[PluginRecord]:
    """The record of each plugin, in order; where the system cannot fork, they are imported here."""
    if not entries or not hasattr(os, "fork") or not sys.executable:
        return [load(one) for one in entries]
    records: list[PluginRecord] = []
    while len(records) < len(entries):
        todo = list(entries[len(records) :])
        answers = _ask(Task(todo, _patience()))
        records += answers
        if len(answers) < len(todo):
            records.append(_failed(todo[len(answers)], "ends the process that lists the plugins"))
    return records


def _patience() -> float:
    try:
        return max(0.1, float(os.environ["ZOO_PLUGIN_SECONDS"]))
    except (KeyError, ValueError):
        return PATIENCE


def _ask(task: Task) -> list[PluginRecord]:
    flags = ["-I"] if sys.flags.isolated else []
    command = [sys.executable, *flags, "-c", WORKER, *sys.path]
    try:
        done = subprocess.run(
            command, input=msgspec.msgpack.encode(task), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return [load(one) for one in task.entries]
    answers, rest = [], done.stdout
    while len(rest) >= 8 and len(rest) >= 8 + (size := int.from_bytes(rest[:8], "big")):
        answers.append(msgspec.msgpack.decode(rest[8 : 8 + size], type=PluginRecord))
        rest = rest[8 + size :]
    return answers


def _failed(one: Found, reason: str) -> PluginRecord:
    path = origin(one)
    return record(one, status="failed", reason=reason, fix=leave_out(one), files=(path,) if path else ())


# ---- the worker -------------------------------------------------------------------------------


def serve() -> None:
    """The worker: a task on stdin, records on stdout, each after its length in eight bytes."""
    import importlib.util
    import io

    import pluggy

    from zoo.plugin import hooks

    del importlib, io, pluggy, hooks  # imported once here, and not again in every fork
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    with os.fdopen(os.dup(1), "wb") as out:
        for one in task.entries:
            answer = _looked_at(one, task.patience)
            if any("ms to be listed" in w for w in answer.warnings):  # perhaps only for want of bytecode
                answer = min(answer, _looked_at(one, task.patience), key=lambda r: r.milliseconds or 1e9)
            content = msgspec.msgpack.encode(answer)
            out.write(len(content).to_bytes(8, "big") + content)
            out.flush()


def _looked_at(one: Found, patience: float) -> PluginRecord:
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _be_the_child(one, send, patience)
    os.close(send)
    content, late = None, True
    try:
        content, late = _received(receive, patience)
    finally:
        os.close(receive)
        ended = _end(child, 0.0 if late else 0.5)
    if content is not None:
        return msgspec.msgpack.decode(content, type=PluginRecord)
    if late:
        return _failed(one, f"is not imported within {patience:g} s")
    return _failed(one, f"ends the process that imports it ({ended})")


def _end(child: int, grace: float) -> str:
    """End a child with all that it started, and say how it ended; one that has no more to do gets `grace` s."""
    deadline = time.monotonic() + grace
    finished, status = os.waitpid(child, os.WNOHANG)
    while not finished and time.monotonic() < deadline:
        time.sleep(0.002)
        finished, status = os.waitpid(child, os.WNOHANG)
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    if not finished:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else signal.Signals(-code).name


def _received(pipe: int, patience: float) -> tuple[bytes | None, bool]:
    """The child's answer, and whether it came too late."""
    deadline, got = time.monotonic() + patience, b""
    while len(got) < 8 or len(got) < 8 + int.from_bytes(got[:8], "big"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None, True
        part = os.read(pipe, 1 << 16)
        if not part:
            return None, False
        got += part
    return got[8 : 8 + int.from_bytes(got[:8], "big")], False


def _be_the_child(one: Found, send: int, patience: float) -> NoReturn:
    try:
        os.setsid()
        signal.setitimer(signal.ITIMER_REAL, 2 * patience + 1)  # ends it even where the worker was killed
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            content = msgspec.msgpack.encode(_with_output(load(one, isolated=True), out, err))
        with os.fdopen(send, "wb") as answer:
            answer.write(len(content).to_bytes(8, "big") + content)
    finally:
        os._exit(0)


def _with_output(answer: PluginRecord, out: BinaryIO, err: BinaryIO) -> PluginRecord:
    """The record with what reached the terminal past Python's own stdout."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    warnings = [
        f"prints to {name} when listed"
        for name, file in (("stdout", out), ("stderr", err))
        if os.fstat(file.fileno()).st_size
    ]
    new = tuple(warning for warning in warnings if warning not in answer.warnings)
    failed = answer.status == "failed"  # one reason is enough
    return answer if failed else msgspec.structs.replace(answer, warnings=(*answer.warnings, *new))
