"""Processes that start others, and what stops them; nothing here trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.base import children
from zoo.cli.shared.messages import explained
from zoo.cli.shared.signals import StopRequests
from zoo.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
ALIEN = 'raise SystemExit("my own file was run")'

# ---- what they import -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random", "logging", "queue", "types", "zoo", "click"])
def test_a_python_file_of_the_current_folder_is_not_run_by_a_child(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text(ALIEN)
    done = subprocess.run(
        [*children.python("zoo"), "--version"], cwd=tmp_path, env=children.environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "hybrid-zoo"), done.stderr


def test_no_process_is_started_in_another_way() -> None:
    """`python -m` puts the current folder before all libraries."""
    known = {"children.py", "launch.py"}  # the latter gives the words to torch's launcher, with the same flags
    found = {p.name for p in (ROOT / "zoo").rglob("*.py") if '"-m"' in p.read_text("utf-8")}
    assert found == known
    assert "*children.flags()," in (ROOT / "zoo/cli/shared/launch.py").read_text("utf-8")


def test_a_checkout_that_only_the_current_folder_leads_to_is_found_by_its_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [path for path in sys.path if os.path.realpath(path) != str(ROOT)]
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setattr(sys, "path", [str(ROOT), *others])
    assert children.python_path() == f"mine{os.pathsep}{ROOT}"
    monkeypatch.setattr(sys, "path", [str(ROOT), *others, str(ROOT)])  # an editable installation
    assert children.python_path() == "mine"


# ---- what asks them to stop -------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no terminals that hang up")
def test_a_terminal_that_is_closed_asks_to_stop_however_often_it_is_said() -> None:
    with StopRequests() as stop:
        stop.answer_between_steps()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop() == signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as stop:  # under nohup
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_leaves_asks_to_stop_and_what_is_written_goes_nowhere(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, name, stream)
        with StopRequests() as stop:
            with pytest.raises(BrokenPipeError):
                print("before there is anything to stop", file=getattr(sys, name), flush=True)
            stop.answer_between_steps()
            assert stop() == 0
            print("one", file=getattr(sys, name), flush=True)
            assert stop() == 13
            print("two", file=getattr(sys, name), flush=True)
            if hasattr(signal, "SIGHUP"):  # a terminal that is closed is noticed in both ways
                os.kill(os.getpid(), signal.SIGHUP)
                assert stop() == signal.SIGHUP
        assert getattr(sys, name) is stream


@pytest.mark.skipif(os.name == "nt", reason="there a process does not know that its parent ended")
def test_a_process_of_a_killed_launcher_stops(tmp_path: Path) -> None:
    child = (
        "import time\n"
        "from types import SimpleNamespace\n"
        "from zoo.cli.shared import launch\n"
        "from zoo.cli.shared.signals import StopRequests\n"
        "with StopRequests() as stop, launch.present(SimpleNamespace(rank=0)):\n"
        "    stop.answer_between_steps()\n"
        "    print('ready', flush=True)\n"
        "    while not stop():\n"
        "        time.sleep(0.02)\n"
        "print('stopped by', stop(), flush=True)\n"
    )
    launcher = (
        "import os, pathlib, subprocess, sys\n"
        "pathlib.Path(os.environ['ZOO_PROCESSES_DIR'], 'launcher').write_text(str(os.getpid()))\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}]).wait()\n"
    )
    folder = tmp_path / "together"
    folder.mkdir()
    environment = {**os.environ, "ZOO_PROCESSES_DIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-c", launcher], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.readline() == f"stopped by {int(signal.SIGTERM)}\n"
    assert not folder.exists()


# ---- how many there are -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "", "RANK": ""}, 1),
        ({"WORLD_SIZE": "4"}, 1),
        ({"WORLD_SIZE": "1", "RANK": "0"}, 1),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}, 2),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "RANK=0 and WORLD_SIZE=two"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 and WORLD_SIZE=2"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "29500"}, "but MASTER_ADDR is not set; unset"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "but MASTER_ADDR and MASTER_PORT are not set; unset"),
    ],
)
def test_what_says_how_many_train_together_is_read_with_care(
    given: dict[str, str], size: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if isinstance(size, int):
        assert children.started_together() == size
        return
    with pytest.raises(InputError, match=size):
        children.started_together()


# ---- how commands end -------------------------------------------------------------------------------


def test_lack_of_memory_while_a_library_is_loaded_is_no_bug_of_ours() -> None:
    for error in (
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError("libcudart.so: cannot map zero-fill pages"),
        MemoryError(),
    ):
        code, message = explained(error)
        assert (code, message.startswith("not enough memory")) == (1, True)
    assert explained(ImportError("No module named 'nothing'"))[0] == 70


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_a_stream_that_was_closed_is_an_empty_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.cli import main

    monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit) as ended:
        main(["runs", "nothing-of-this-name"])
    assert ended.value.code == 2
    stream = getattr(sys, name)
    assert stream.read() == "" if name == "stdin" else stream.write("x") == 1
    stream.close()
