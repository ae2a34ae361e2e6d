"""Runs the same work in several processes, on this machine or on a Ray cluster.

The work is a function, named as "module:function", that takes plain data and `stop`. The processes divide it
among themselves: runs by the locks of their folders, trials by the storage of their sweep. Each local process
reads a pipe from its parent: when the parent stops or dies for any reason, the pipe closes, and the process
stops too, after a checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

from zoo.base import children, cpus
from zoo.base.install import install_line
from zoo.base.streams import WatchedStream
from zoo.errors import InputError, ZooError

Engine = Literal["local", "ray"]
Stopper = Callable[[], int]

POLL_SECONDS = 0.1

RAY_SETTINGS = (("RAY_worker_niceness", "0"), ("RAY_COLOR_PREFIX", "0"), ("RAY_DEDUP_LOGS", "0"))
"""Settings of a Ray that we start; the user's have priority. By default its workers yield to all else on the machine,
its messages are coloured in pipes too, and a line that two workers print alike is printed once."""

STOPPED = signal.SIGTERM


def spread(call: str, given: Any, jobs: int, engine: Engine, stop: Stopper, *, gpu: bool = False) -> list[str]:
    """Run `call(given, stop)` in `jobs` processes and wait for all of them.

    Args:
        given: plain data. stop: called repeatedly; the number of a signal stops the processes.
        gpu: whether each process takes one GPU of the cluster.
    Returns:
        A line for each process that failed.
    Raises:
        InputError: the engine is not installed.
    """
    task = {"call": call, "given": given}
    return _on_ray(task, jobs, stop, gpu) if engine == "ray" else _here(task, jobs, stop)


def run(task: dict[str, Any], stop: Stopper) -> None:
    """Import the function that a task names, and call it."""
    module, _, name = task["call"].partition(":")
    getattr(import_module(module), name)(task["given"], stop)


# ---- on this machine -------------------------------------------------------------------------------


def _here(task: dict[str, Any], jobs: int, stop: Stopper) -> list[str]:
    threads = str(max(1, cpus.usable() // jobs))
    environment = {"OMP_NUM_THREADS": threads, **children.environment()}
    command = children.python("zoo.studies.workers")
    # the output of workers is for people and goes to stderr: stdout is for the table
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr, text=True, env=environment)
        for _ in range(jobs)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
    while any(process.poll() is None for process in started):
        if stop() > 0:
            break
        time.sleep(POLL_SECONDS)
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    codes = [process.wait() for process in started]
    return [f"a worker process ended with {_ended(code)}" for code in codes if code not in (0, 128 + STOPPED)]


def _ended(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


class ParentEnded:
    """A `stop` function: asks to stop once the parent's end of the pipe is closed."""

    def __init__(self) -> None:
        self.closed = False
        threading.Thread(target=self._watch, daemon=True).start()

    def __call__(self) -> int:
        """The number of the signal that this counts as, or 0."""
        return int(STOPPED) if self.closed else 0

    def leave(self) -> None:
        """Count a closed stdout or stderr as the end of the parent."""
        self.closed = True

    def _watch(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self.closed = True


def main() -> None:
    """Run a worker process: reads its task from stdin, works, and exits with 0, or 143 if it was stopped."""
    from zoo.train.loop import Stop

    for number in {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}:
        signal.signal(number, signal.SIG_IGN)  # the parent receives it, and closes the pipe
    task = json.loads(_line())
    stop = ParentEnded()
    sys.stdout, sys.stderr = (WatchedStream(s, stop.leave) for s in (sys.stdout, sys.stderr))
    try:
        run(task, stop)
    except Stop as stopped:
        sys.exit(128 + stopped.signal)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _line() -> bytes:
    """Read one line of stdin, unbuffered, so that `ParentEnded` sees the end of stdin."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            sys.exit(128 + STOPPED)
        line += byte
    return line


# ---- on a Ray cluster ------------------------------------------------------------------------------


def _on_ray(task: dict[str, Any], jobs: int, stop: Stopper, gpu: bool) -> list[str]:
    if "ray" not in sys.modules:  # it reads some of them when it is imported
        for name, value in RAY_SETTINGS:
            os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError(f"--engine ray needs Ray: {install_line('ray')}") from None
    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS")
        ray.init(address=address, include_dashboard=None if address else False, logging_level=logging.WARNING)
    try:
        cpus = ray.cluster_resources().get("CPU", 1.0) / jobs
        settings = {k: v for k, v in os.environ.items() if k.startswith("ZOO_") or k == "OMP_NUM_THREADS"}
        work = ray.remote(
            num_cpus=int(cpus) if cpus >= 1 else cpus,
            num_gpus=1 if gpu else 0,
            max_retries=0,
            runtime_env={"env_vars": settings},
        )(_ray_task).options(name="zoo")
        return _gather(ray, [work.remote(task, os.getcwd()) for _ in range(jobs)], stop)
    finally:
        if ours:
            ray.shutdown()


def _gather(ray: Any, waiting: list[Any], stop: Stopper) -> list[str]:
    failures, cancelled = [], False
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
        for reference in ready:
            try:
                ray.get(reference)
            except (ray.exceptions.RayError, KeyboardInterrupt) as error:
                if not cancelled:
                    failures.append(f"a Ray task ended with {type(error).__name__}: {str(error).splitlines()[-1]}")
        if stop() > 0 and not cancelled:
            cancelled = True
            for reference in waiting:
                ray.cancel(reference)
    return failures


def _ray_task(task: dict[str, Any], folder: str) -> None:
    os.chdir(folder)  # runs, data and storage have to be on a file system that all nodes share
    run(task, lambda: 0)


if __name__ == "__main__":
    main()
