"""Runs the same work in several processes, on this machine or on a Ray cluster.

The work is a function, named as "module:function", that takes plain data, `stop` and a reporter. The processes
divide it among themselves: runs by the locks of their folders, trials by the storage of their sweep. Each local
process reads a pipe from its parent: when the parent stops or dies for any reason, the pipe closes, and the process
stops too, after a checkpoint. What the work says comes back to the reporter of the process that started it.
"""

from __future__ import annotations

import contextlib
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
from queue import SimpleQueue
from typing import Any, Literal

from zoo.base import children, cpus
from zoo.base.install import install_line
from zoo.base.reporter import Reporter
from zoo.base.streams import WatchedStream
from zoo.errors import InputError, ZooError

Engine = Literal["local", "ray"]
Stopper = Callable[[], int]
Told = tuple[str, str]
"""A kind ("say", "note", "warn" or "error") and a line."""

POLL_SECONDS = 0.1

RAY_SETTINGS = (("RAY_worker_niceness", "0"), ("RAY_COLOR_PREFIX", "0"), ("RAY_DEDUP_LOGS", "0"))
"""Settings of a Ray that we start; the user's have priority. By default its workers yield to all else on the machine,
its messages are coloured in pipes too, and a line that two workers print alike is printed once."""

STOPPED = signal.SIGTERM


def spread(
    call: str, given: Any, jobs: int, engine: Engine, stop: Stopper, reporter: Reporter, *, gpu: bool = False
) -> list[str]:
    """Run `call(given, stop, reporter)` in `jobs` processes and wait for all of them.

    However this ends, by an exception too, no process goes on: each is asked to stop, and does after a checkpoint.

    Args:
        given: plain data. stop: called repeatedly; the number of a signal stops the processes.
        reporter: receives what the work says, in this thread.
        gpu: whether each process takes one GPU of the cluster.
    Returns:
        A line for each process that failed.
    Raises:
        InputError: the engine is not installed.
    """
    task = {"call": call, "given": given}
    if engine == "ray":
        return _on_ray(task, jobs, stop, reporter, gpu)
    return _here(task, jobs, stop, reporter)


def takes_gpu(engine: Engine, device: str) -> bool:
    """Whether each process of a Ray cluster shall have a GPU: where there is one, unless another device is named."""
    if engine != "ray" or device in ("cpu", "mps"):
        return False
    import torch

    return torch.cuda.is_available()


def run(task: dict[str, Any], stop: Stopper, reporter: Reporter) -> None:
    """Import the function that a task names, and call it."""
    module, _, name = task["call"].partition(":")
    getattr(import_module(module), name)(task["given"], stop, reporter)


class Sender(Reporter):
    """Sends what the work says to the process that started it."""

    def __init__(self, send: Callable[[Told], None]) -> None:
        self.send = send

    def say(self, line: str) -> None:
        """Send a message."""
        self.send(("say", line))

    def note(self, line: str) -> None:
        """Send a detail."""
        self.send(("note", line))

    def warn(self, line: str) -> None:
        """Send a warning."""
        self.send(("warn", line))


def _pass_on(told: Told, reporter: Reporter) -> None:
    {"say": reporter.say, "note": reporter.note, "warn": reporter.warn}[told[0]](told[1])


# ---- on this machine -------------------------------------------------------------------------------


class Worker:
    """A process that works, and a thread that reads what it sends.

    Attributes:
        reason: the error that ended it; "" if none did.
    """

    def __init__(self, jobs: int, lines: SimpleQueue[Told]) -> None:
        threads = str(max(1, cpus.usable() // jobs))
        environment = {"OMP_NUM_THREADS": threads, **children.environment()}
        command = children.python("zoo.studies.workers")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.lines, self.reason = lines, ""
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()

    def give(self, task: dict[str, Any]) -> None:
        """Send the task; a process that has ended already tells by its exit code."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()

    def ask_to_stop(self) -> None:
        """Close the pipe that the process watches."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def failure(self) -> str:
        """Wait for the end; a line if the process failed, else ""."""
        code = self.process.wait()
        self.reading.join(timeout=5.0)
        if code in (0, 128 + STOPPED):
            return ""
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"a worker process ended with {how}{f': {self.reason}' if self.reason else ''}"

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                with contextlib.suppress(ValueError):  # half a line of a process that was killed
                    kind, text = json.loads(line)
                    if kind == "error":
                        self.reason = text
                    else:
                        self.lines.put((kind, text))


def _here(task: dict[str, Any], jobs: int, stop: Stopper, reporter: Reporter) -> list[str]:
    lines: SimpleQueue[Told] = SimpleQueue()
    workers: list[Worker] = []
    try:
        for _ in range(jobs):
            workers.append(Worker(jobs, lines))
        for worker in workers:
            worker.give(task)
        while any(worker.process.poll() is None for worker in workers) and stop() <= 0:
            _pass_all_on(lines, reporter)
            time.sleep(POLL_SECONDS)
    finally:
        failures = _end(workers)
    _pass_all_on(lines, reporter)
    return failures


def _pass_all_on(lines: SimpleQueue[Told], reporter: Reporter) -> None:
    while not lines.empty():
        _pass_on(lines.get(), reporter)


def _end(workers: list[Worker]) -> list[str]:
    """Ask all to stop, and wait until they have; who interrupts this too wants them gone at once."""
    for worker in workers:
        worker.ask_to_stop()
    try:
        return list(filter(None, [worker.failure() for worker in workers]))
    except BaseException:
        for worker in workers:
            worker.kill()
        raise


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
    for number in {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}:
        signal.signal(number, signal.SIG_IGN)  # the parent receives it, and closes the pipe
    task = json.loads(_line())
    stop = ParentEnded()
    send = _sender(stop)
    sys.stdout = sys.stderr = WatchedStream(sys.stderr, stop.leave)
    try:
        run(task, stop, Sender(send))
    except ZooError as error:
        send(("error", str(error)))
        sys.exit(1)
    except Exception as error:
        from zoo.train.loop import Stop  # here, so that no process imports torch before its work does

        if isinstance(error, Stop):
            sys.exit(128 + error.signal)
        send(("error", f"unexpected {type(error).__name__}: {error}"))
        raise


def _sender(stop: ParentEnded) -> Callable[[Told], None]:
    """What sends a line to the parent, through stdout; what libraries print there goes to stderr from now on."""
    messages = WatchedStream(os.fdopen(os.dup(1), "w", encoding="ascii"), stop.leave)
    os.dup2(2, 1)

    def send(told: Told) -> None:
        messages.write(f"{json.dumps(told)}\n")
        messages.flush()

    return send


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


def _on_ray(task: dict[str, Any], jobs: int, stop: Stopper, reporter: Reporter, gpu: bool) -> list[str]:
    if "ray" not in sys.modules:  # it reads some of them when it is imported
        for name, value in RAY_SETTINGS:
            os.environ.setdefault(name, value)
    try:
        import ray
        from ray.util.queue import Queue
    except ImportError:
        raise InputError(f"--engine ray needs Ray: {install_line('ray')}") from None
    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS")
        dashboard = None if address else False
        ray.init(address=address, include_dashboard=dashboard, logging_level=logging.WARNING, log_to_driver=False)
    try:
        cpus = ray.cluster_resources().get("CPU", 1.0) / jobs
        settings = {k: v for k, v in os.environ.items() if k.startswith("ZOO_") or k == "OMP_NUM_THREADS"}
        work = ray.remote(
            num_cpus=int(cpus) if cpus >= 1 else cpus,
            num_gpus=1 if gpu else 0,
            max_retries=0,
            runtime_env={"env_vars": settings},
        )(_ray_task).options(name="zoo")
        lines = Queue(actor_options={"num_cpus": 0})
        return _gather(ray, [work.remote(task, os.getcwd(), lines) for _ in range(jobs)], stop, lines, reporter)
    finally:
        if ours:
            ray.shutdown()


def _gather(ray: Any, waiting: list[Any], stop: Stopper, lines: Any, reporter: Reporter) -> list[str]:
    """Wait for tasks, and pass on what they put into the queue; if this is interrupted, they are cancelled."""
    failures, cancelled = [], False
    try:
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
            for told in lines.get_nowait_batch(lines.qsize()):
                _pass_on(told, reporter)
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
    except BaseException:
        for reference in waiting:
            ray.cancel(reference)
        raise
    return failures


def _ray_task(task: dict[str, Any], folder: str, lines: Any) -> None:
    os.chdir(folder)  # runs, data and storage have to be on a file system that all nodes share
    run(task, lambda: 0, Sender(lines.put))


if __name__ == "__main__":
    main()
