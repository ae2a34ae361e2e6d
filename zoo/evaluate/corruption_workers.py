"""Processes that share the corruption of images.

Those of `multiprocessing` would run the script of whoever calls `zoo.evaluate` again, unless all of it stands below
`if __name__ == "__main__":`. They could not be forked either: torch's threads and CUDA live in the calling process.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

from zoo.data.files.worker import receive, send
from zoo.data.types import Images

COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from zoo.evaluate.corruptions import serve; serve()"

Job = tuple[Images, str, int, int, int]
"""The arguments of `zoo.evaluate.corruptions.corrupt`."""


class Workers:
    """Some processes, each behind a thread that hands it a job and waits; they end with this process."""

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="zoo-corrupt")
        self._own = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []

    def map(self, jobs: Iterable[Job]) -> Iterator[Images]:
        """The corrupted images of each job, in their order.

        Raises:
            EOFError: a process died. Else what the library raised.
        """
        return self._threads.map(self._ask, jobs)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.kill()
        self._threads.shutdown()
        for process in self._all:
            with contextlib.suppress(OSError):  # what was not sent yet
                process.communicate()

    def _ask(self, job: Job) -> Images:
        process = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = _start()
            self._all.append(process)
        answer = None
        with contextlib.suppress(OSError, ValueError):
            send(cast(BinaryIO, process.stdin), pickle.dumps(job))
            answer = receive(cast(BinaryIO, process.stdout))
        if answer is None:
            raise EOFError
        done: Images | Exception = pickle.loads(answer)
        if isinstance(done, Exception):
            raise done
        return done


def _start() -> subprocess.Popen[bytes]:
    flags = ["-I"] if sys.flags.isolated else []
    command = [sys.executable, *flags, "-c", COMMAND, *sys.path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
