"""Worker processes that decode image files, started when the first batch is asked for."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, cast

import msgspec

from zoo.base.text import plural
from zoo.data.files.decode import Rule, without_warnings
from zoo.data.files.worker import COMMAND, Answer, Part, Setup, decode_part, deliver, receive, send, slot_bytes, slots
from zoo.data.types import Images
from zoo.errors import DataError, InputError

PART_BYTES = 2 << 20
"""About how much a worker decodes before it answers: small against a batch, large against a message."""

MOST = 16
"""Workers that are taken unasked, at most: beyond, the disk is what waits."""


class Pool:
    """Decodes parts of batches, each in whichever worker is free.

    A thread for each worker hands it a part, waits, and copies or scales the pixels; neither needs the
    interpreter's lock for long. A worker ends with the process that started it, however that one ends.

    Attributes:
        workers: how many; 0 decodes in this process, when asked. part: how many images a part has.
    """

    def __init__(self, workers: int, rule: Rule, size: tuple[int, int]) -> None:
        """Prepare; no process is started yet.

        Args:
            rule: brings images to their size. size: (height, width) of the results.
        Raises:
            InputError: fewer than 0 workers, or any on a system that cannot share memory with them.
        """
        if workers < 0:
            raise InputError(
                f"{plural(workers, 'worker is', 'workers are')} not possible; give 0 (decode in the process) or more"
            )
        if workers and os.name == "nt":
            raise InputError(f"{plural(workers, 'worker')}: worker processes need Linux or macOS; give --workers 0")
        self.workers, self.rule, self.size = workers, rule, size
        self.part = max(4, min(64, PART_BYTES // (size[0] * size[1] * 3)))
        self._own = threading.local()
        self._all: list[_Worker] = []
        self._threads: ThreadPoolExecutor | None = None
        weakref.finalize(self, _close, self._all)

    def submit(self, part: Part, out: Images) -> Future[None]:
        """Decode a part into `out`, uint8 (n, H, W, 3), n at most `part`.

        The future's exception is a DataError: a file that cannot be used, or a worker that died.
        """
        if not self.workers:
            done: Future[None] = Future()
            try:
                with without_warnings():
                    memory = slots(bytearray(len(out) * slot_bytes(self.size)), len(out), self.size)
                    deliver(memory, decode_part(part, self.rule, self.size, memory), out)
                done.set_result(None)
            except DataError as error:
                done.set_exception(error)
            return done
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="zoo-data")
        return self._threads.submit(self._decode, part, out)

    def processes(self) -> list[int]:
        """Process ids of the workers that were started."""
        return [worker.process.pid for worker in self._all]

    def close(self) -> None:
        """End the workers; a later `submit` starts new ones."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        _close(self._all)
        self._all.clear()
        self._threads, self._own = None, threading.local()

    def _decode(self, part: Part, out: Images) -> None:
        worker = getattr(self._own, "worker", None)
        if worker is None:
            worker = self._own.worker = _Worker(self.part, self.rule, self.size)
            self._all.append(worker)
        worker.decode(part, out)


class _Worker:
    """One process, and the memory that it shares with this one."""

    def __init__(self, images: int, rule: Rule, size: tuple[int, int]) -> None:
        with _memory(images * slot_bytes(size)) as file:
            self.pixels: Images = slots(mmap.mmap(file.fileno(), 0), images, size)
            flags = ["-I"] if sys.flags.isolated else []
            self.process = subprocess.Popen(
                [sys.executable, *flags, "-c", COMMAND, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(file.fileno(),),
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            setup = Setup(file.fileno(), images, size, rule)
            self._ask(msgspec.msgpack.encode(setup), "while it started")

    def decode(self, part: Part, out: Images) -> None:
        """Let the process decode, then copy or scale what it decoded."""
        about = f"while it decoded {os.fsdecode(part.paths[0])}"
        about += f" or one of the {plural(len(part.paths) - 1, 'image')} after it" if len(part.paths) > 1 else ""
        answer = msgspec.msgpack.decode(self._ask(msgspec.msgpack.encode(part), about), type=Answer)
        if answer.wrong:
            raise DataError(answer.wrong)
        deliver(self.pixels, answer.sizes, out)

    def end(self) -> None:
        """Let the process end."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ask(self, content: bytes, about: str) -> bytes:
        answer = None
        with contextlib.suppress(OSError, ValueError):
            send(cast(BinaryIO, self.process.stdin), content)
            answer = receive(cast(BinaryIO, self.process.stdout))
        if answer is None:
            raise DataError(self._died(about))
        return answer

    def _died(self, about: str) -> str:
        try:
            code = self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return (
            f"data worker {self.process.pid} ended {how} {about}; if memory ran out, give fewer --workers; "
            "the run goes on from its last checkpoint with --resume"
        )


def _memory(size: int) -> BinaryIO:
    """A file of `size` bytes that has no name and, on Linux, no disk: /dev/shm may be tiny in a container."""
    if hasattr(os, "memfd_create"):
        file: BinaryIO = os.fdopen(os.memfd_create("zoo-data"), "rb+")
    else:
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    file.truncate(size)
    return file


def _close(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()


def default_workers(device: str) -> int:
    """Workers for the cores that this process may use, shared among the processes of one machine.

    A GPU leaves the cores to them; a CPU trains on its cores, and decoding takes far less than training.
    """
    if os.name == "nt":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    return max(1, min(MOST, share // 4 if device == "cpu" else share - 1))
