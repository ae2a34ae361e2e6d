"""What a training writes and locks, on file systems that lack something."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from zoo.base.files import WriteError, write_text
from zoo.errors import BusyError, RunError
from zoo.runs.lock import HELD, RunLock, is_held


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without flock, such as Lustre's or gcsfuse's."""
    fcntl = pytest.importorskip("fcntl")

    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@pytest.mark.usefixtures("no_locks")
def test_where_there_are_no_locks_a_file_stands_for_one_if_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_LOCKS", "files")
    with RunLock(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(BusyError, match=f"by process {os.getpid()} on .* delete .*{HELD}"), RunLock(tmp_path):
            pass
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    assert not (tmp_path / HELD).exists()
    owner = {"pid": ended_process(), "host": socket.gethostname(), "since": 0}
    (tmp_path / HELD).write_text(json.dumps(owner))
    assert not is_held(tmp_path)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / HELD).read_text())["pid"] == os.getpid()
    (tmp_path / HELD).write_text(json.dumps(owner | {"host": "elsewhere"}))
    with pytest.raises(BusyError, match="on elsewhere"), RunLock(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("no_locks")
def test_a_dead_owner_of_a_lock_that_cannot_be_tried_is_not_said_to_train(tmp_path: Path) -> None:
    owner = {"pid": ended_process(), "host": socket.gethostname(), "since": 0}
    (tmp_path / "lock").write_text(json.dumps(owner))
    assert not is_held(tmp_path)
    (tmp_path / "lock").write_text(json.dumps(owner | {"pid": os.getpid()}))
    assert is_held(tmp_path)


def test_a_lock_held_by_a_file_holds_where_there_are_locks_too(tmp_path: Path) -> None:
    """Of two hosts that share a folder, one may have locks there and the other none."""
    (tmp_path / HELD).write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": 0}))
    assert is_held(tmp_path)
    with pytest.raises(BusyError, match="process 1 on elsewhere"), RunLock(tmp_path):
        pass


@pytest.mark.parametrize(
    ("code", "said"), [(errno.EPERM, "Operation not permitted"), (errno.ENOLCK, "No locks available")]
)
def test_a_lock_that_cannot_be_had_is_named_and_nobody_is_blamed(
    code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def flock(handle: int, operation: int) -> None:
        raise OSError(code, said)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(WriteError, match=f"lock: cannot be locked: {said}; use a folder"), RunLock(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="folders are not opened there")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_folder_that_cannot_be_synced_is_passed_over_and_a_broken_disk_is_not(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFS and some of FUSE refuse to sync folders, though the file is written and has its name."""
    sync = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(WriteError) if code == errno.EIO else nullcontext():
        write_text(tmp_path / "result.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_one_folder_has_one_trainer_and_a_dead_owner_is_taken_over(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib; from zoo.runs.lock import RunLock\n"
        f"lock = RunLock(pathlib.Path({str(tmp_path)!r})); lock.__enter__(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"is being trained by process {owner.pid} on "), RunLock(tmp_path):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        with RunLock(tmp_path):
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_lock_works_by_what_windows_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither fcntl nor os.pread and os.pwrite; its locks, of a byte, are those of msvcrt."""
    fcntl = pytest.importorskip("fcntl", reason="stands in for Windows where it is not Windows")

    def locking(handle: int, mode: int, count: int) -> None:
        assert (mode, count, os.lseek(handle, 0, os.SEEK_CUR)) == (2, 1, 0)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    for name in ("pread", "pwrite"):
        monkeypatch.delattr(os, name)
    with RunLock(tmp_path):
        assert is_held(tmp_path)
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        with pytest.raises(BusyError, match=f"by process {os.getpid()} on "), RunLock(tmp_path):
            pass
    assert not is_held(tmp_path)
