"""Training with several processes: starting them, joining them, and printing each message once."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NoReturn

import click

from zoo.base import children, cpus
from zoo.base.text import plural
from zoo.cli.shared import spare_words
from zoo.cli.shared.signals import StopRequests
from zoo.errors import DeviceError, InputError, RunError

if TYPE_CHECKING:
    from zoo.train.processes.world import World

WORDS = "zoo.cli.words"
TOGETHER = "ZOO_PROCESSES_DIR"
"""Folder in which the processes of `--gpus` write their process ids, and a failed one marks that it reported it."""

LAUNCHER = "launcher"
"""The file in that folder that holds the launcher's process id."""

WATCH_SECONDS = 0.5
"""How often a process of `--gpus` checks that its launcher is still running."""

PATIENCE = 2.0
"""Seconds in which a repeated signal is taken for the launcher's copy of the first one."""

GONE = "another process of this run died without an error message (killed, or out of memory)"


class Command(spare_words.Command):
    """A command that can start itself again in several processes: it remembers its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the arguments, and parse them."""
        ctx.meta[WORDS] = list(args)
        return super().parse_args(ctx, args)


def options(command: Any) -> Any:
    """The options of a command that trains with several processes."""
    gpus = click.option(
        "--gpus",
        type=click.IntRange(min=1),
        metavar="N",
        help="Train with N processes, one GPU each; with --device cpu, N processes on the CPU.",
    )
    shard = click.option(
        "--shard",
        is_flag=True,
        help="Divide the model among the processes (FSDP2), for models that do not fit on one GPU.",
    )
    return gpus(shard(command))


def wanted(gpus: int) -> bool:
    """Whether this process has to start the others, and is not itself one of them."""
    return gpus > 1 and children.started_together() == 1


def start(gpus: int, device: str, model: str | None) -> int:
    """Run this command in N processes through torch's elastic launcher, and return the exit code.

    Raises:
        DeviceError: this machine has fewer than N GPUs. UnknownNameError: no such model.
    """
    if model is not None:
        from zoo.catalogue.registry import find_model

        find_model(model)
    check_devices(gpus, device)
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    debug = "--debug" in sys.argv
    for name in logging.root.manager.loggerDict if not debug else ():  # each failure is reported once, by us
        if name.startswith("torch.distributed."):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpus.usable() // gpus)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=gpus,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=uuid.uuid4().hex,
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
    )
    context = click.get_current_context()
    ours = [f"--{name}" for name in ("quiet", "verbose") if context.find_root().params.get(name)]
    words = [*children.flags(), "-m", "zoo", *ours, "train", *context.meta[WORDS], *(["--debug"] if debug else [])]
    with tempfile.TemporaryDirectory(prefix="zoo-gpus-") as name:
        folder = Path(name)
        os.environ[TOGETHER] = name
        if search := children.python_path():
            os.environ["PYTHONPATH"] = search
        (folder / LAUNCHER).write_text(str(os.getpid()))
        _pass_on_saves(folder)
        try:
            elastic_launch(config, sys.executable)(*words)
        except SignalException as stopped:
            for path in folder.glob("*.pid"):  # a second signal came while they were stopping
                _signal(path, signal.SIGKILL)
            return 128 + int(stopped.sigval)
        except ChildFailedError as failed:
            return _report(failed, (folder / "reported").exists(), gpus)
    return 0


def check_devices(gpus: int, device: str) -> None:
    """Refuse more GPUs than this machine has.

    Raises:
        DeviceError: says how many it has.
    """
    if device == "cpu":
        return
    import torch

    from zoo.train.processes.world import own_device

    available = torch.cuda.device_count()
    if device != "auto":
        own_device(torch.device(device), 0) if available or device != "cuda" else None
    if available == 0:
        raise DeviceError(
            f"--gpus {gpus}: torch finds no usable GPU on this machine; add --device cpu to train with "
            f"{plural(gpus, 'process')} on the CPU"
        )
    if available < gpus:
        raise DeviceError(f"--gpus {gpus}: this machine has {available} GPUs; give --gpus {available} or fewer")


@contextlib.contextmanager
def joined(gpus: int | None, device: str, shard: bool, stop: StopRequests) -> Iterator[World]:
    """Join the other processes if this is one of several, and end together with them in any case.

    Raises:
        InputError: `gpus` differs from the number of processes, or `shard` is set with one process.
    """
    size = children.started_together()
    if gpus is not None and gpus != size:
        raise InputError(f"--gpus {gpus}: torchrun started {plural(size, 'process')}; leave out --gpus under torchrun")
    if gpus is not None and size == 1:
        check_devices(gpus, device)
    if size == 1:
        if shard:
            raise InputError("--shard needs several processes: add --gpus N with N above 1, or start zoo with torchrun")
        from zoo.train.processes.world import World

        yield World()
        return
    from zoo.train.processes.world import join

    stop.patience = PATIENCE
    # torch warns about the strides of 1x1 kernels, which differ without any effect.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    world = join(device, sharded=shard)
    with present(world), _heard(world):
        try:
            yield world
            world.leave()
        except SystemExit:  # stopped, all at the same step
            world.leave()
            raise
        except BaseException as error:
            _end(world, error)


def _pass_on_saves(folder: Path) -> None:
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: _signal(folder / "0.pid", signal.SIGUSR1))


def _signal(path: Path, number: signal.Signals) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(path.read_text()), number)


def _report(failed: Any, reported: bool, gpus: int) -> int:
    """The exit code for failed processes; prints the reason if none of them could."""
    rank, first = failed.get_first_failure()
    if reported or first.exitcode > 0:
        positive = [f.exitcode for f in failed.failures.values() if f.exitcode > 0]
        return max(first.exitcode, 0) or (positive[0] if positive else 1)
    from zoo.cli.shared.messages import say_error

    say_error(f"process {rank} of {gpus} was killed by {signal.Signals(-first.exitcode).name}")
    return 1


@contextlib.contextmanager
def present(world: World) -> Iterator[None]:
    """Keep this process's id in a file for its launcher, until this one ends; stop it when the launcher ends."""
    folder = os.environ.get(TOGETHER)
    if not folder:
        yield
        return
    path = Path(folder) / f"{world.rank}.pid"
    path.write_text(str(os.getpid()))
    launcher = int((Path(folder) / LAUNCHER).read_text())
    threading.Thread(target=_stop_with, args=(launcher,), daemon=True).start()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if os.getppid() != launcher:  # the launcher cannot remove it any more
            shutil.rmtree(folder, ignore_errors=True)


def _stop_with(launcher: int) -> None:
    """Ask this process to stop, as SIGTERM does, once its launcher was killed."""
    while os.getppid() == launcher:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _heard(world: World) -> Iterator[None]:
    """Silence every process but rank 0."""
    if world.first:
        yield
        return
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _end(world: World, error: BaseException) -> NoReturn:
    """Print what went wrong, unless another process has, and exit at once without cleaning up."""
    import traceback

    from zoo.cli.shared.messages import explained, say_error
    from zoo.train.processes.world import lost

    for number in {signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        signal.signal(number, signal.SIG_IGN)  # the launcher stops all processes when one ends
    shown = error  # what is reported
    if lost(error):
        folder = world.folder
        shown = RunError(f"{GONE}; to resume: zoo train --resume {quote(str(folder))}" if folder else GONE)
    code, message = explained(shown)
    # The process that caused this may be about to report it.
    if not (lost(error) and world.somebody_reported(3.0)) and world.claim():
        with contextlib.redirect_stderr(sys.__stderr__):
            if "--debug" in sys.argv:
                traceback.print_exception(error)
            say_error(message)
        if folder_ := os.environ.get(TOGETHER):
            (Path(folder_) / "reported").touch()
        sys.__stderr__.flush() if sys.__stderr__ else None
    if world.hosts:
        time.sleep(1.0)  # the store ends with this process: let the others read first that the error was reported
    os._exit(code)
