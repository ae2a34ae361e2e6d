"""Several processes train as one does: the same losses, the same counts, one voice, and one end."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kill_harness
import pytest
import torch
from torch import nn

from zoo.data.augment.mix import mixup
from zoo.errors import InputError
from zoo.runs.folder import read_metrics, read_result, read_weights
from zoo.runs.record import CHECKPOINTS, METRICS, configuration, read_record
from zoo.train import checkpoint
from zoo.train.processes.world import World, blocks

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
    pytest.mark.timeout(600),
]

REGISTRY = """
[models.together]
summary = "batch norm, convolutions and attention, without dropout"
family = "test"
recipe = "together"
dataset = "digits"
[models.together.build]
use = "hybrid.classifier"
body = { use = "hybrid.alternate", repeat = 1, of = [
  { use = "cnn.residual", widths = [4, 4] },
  { use = "vit.image", depth = 1, heads = 1, head_width = 8, mlp = 16, dropout = 0.0 },
] }

[recipes.together]
epochs = 2
batch_size = 45
accumulate = 2
optimizer = "adamw"
lr = 5e-3
eps = 1e-3
weight_decay = 0.01
schedule = "cosine"
ema = 0.8
label_smoothing = 0.1
clip_grad_norm = 1.0
precision = "fp32"
augment = [{ op = "flip", alternate = true }, { op = "crop", padding = 1 }, { op = "cutmix", p = 0.5 },
  { op = "mixup", alpha = 0.4 }]
"""
STEPS = 8  # of the two epochs over 180 images

SCRIPT = '''
import json, os, shutil, socket, sys
from pathlib import Path

home = Path(sys.argv[1])
os.environ |= {"ZOO_CONFIG_DIR": str(home), "ZOO_CACHE_DIR": str(home / "cache")}
import matplotlib.backends.backend_agg, matplotlib.figure
import torch._dynamo, torch.distributed.fsdp, torch.distributed.tensor, torch.optim.swa_utils
from zoo.cli import main
from zoo.train import loop
from zoo.train.plan import Request, resolve

resolve(Request(model="together"))  # imports all that the processes need

def at_step(number, rank, do):
    """Do something in one process, before a step."""
    def prepare(own):
        take = loop.Trainer._step
        def stepping(self, *more):
            if own == rank and self.at.total == number:
                do()
            take(self, *more)
        loop.Trainer._step = stepping
    return prepare

def fail(error):
    raise error

def launch(name, size, words, prepare=lambda rank: None, log=None):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log, pids = log or name, []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            try:
                for channel, stream in ((1, "out"), (2, "err")):
                    handle = os.open(home / f"{log}.{rank}.{stream}", os.O_WRONLY | os.O_CREAT)
                    os.dup2(handle, channel)
                if size > 1:
                    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
                                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                prepare(rank)
                main(words)
            except SystemExit as done:
                sys.stdout.flush()
                os._exit(int(done.code or 0))
            finally:
                os._exit(99)
        pids.append(pid)
    codes[log] = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]

codes = {}
START = ["train", "together", "--recipe", "together", "--limit-train", "200", "--limit-test", "101", "--device", "cpu",
         "--checkpoint-seconds", "0"]

def start(name, size, *words, prepare=lambda rank: None):
    launch(name, size, [*START, "--output", str(home / name), *words], prepare)

def resume(name, size, *words):
    words = ["train", "--resume", str(home / name), "--checkpoint-seconds", "0", *words]
    launch(name, size, words, log=f"{name}-resumed")
'''


@dataclass(frozen=True)
class Done:
    """What a script of launches left: run folders, logs, and the exit codes of each process."""

    home: Path
    codes: dict[str, list[int]]

    def rows(self, name: str) -> list[dict[str, Any]]:
        return read_metrics(self.home / name)

    def result(self, name: str) -> dict[str, Any]:
        return read_result(self.home / name)

    def said(self, name: str, rank: int) -> str:
        return (self.home / f"{name}.{rank}.err").read_text()

    def errors(self, name: str) -> list[str]:
        return [
            line
            for rank in range(len(self.codes[name]))
            for line in self.said(name, rank).splitlines()
            if "error:" in line or "Traceback" in line
        ]


def launched(home: Path, script: str) -> Done:
    (home / "registry.toml").write_text(REGISTRY)
    text = SCRIPT + script + "\nprint(json.dumps(codes))\n"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", text, str(home)], capture_output=True, text=True, timeout=580, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Done(home, json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The same run by one, two and three processes, and by two with divided parameters."""
    script = """
for size in (1, 2, 3):
    start(f"world{size}", size)
start("sharded", 2, "--shard", "--checkpoint-steps", "3")
uneven = [word for key in ('class_weights={ "3" = 6.0, "8" = 0.2 }', "sampler=sqrt", "loss=focal", "select=macro-f1")
          for word in ("--set", f"recipe.{key}")]
for size in (1, 3):
    start(f"uneven{size}", size, *uneven)
for size in (1, 3):
    taught = ["--teacher", str(home / "world1"), "--set", "distill.kind=features", "--set", "distill.weight=0.8"]
    start(f"taught{size}", size, *taught)
shutil.copytree(home / "sharded", home / "half")
(home / "half" / "result.json").unlink()
for path in (home / "half" / "checkpoints").glob("00000008-*"):
    path.unlink()
resume("half", 1)
"""
    return launched(tmp_path_factory.mktemp("whole"), script)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Runs that ended too early, and went on with other numbers of processes."""
    script = """
import signal
own = lambda number: lambda: os.kill(os.getpid(), number)
start("killed", 2, "--checkpoint-steps", "3", prepare=at_step(5, 1, own(signal.SIGKILL)))
resume("killed", 3)
start("stopped", 3, prepare=at_step(3, 2, own(signal.SIGINT)))
resume("stopped", 2, "--shard")
start("memory", 2, prepare=at_step(2, 1, lambda: fail(MemoryError())))
start("infinite", 2, "--lr", "1e30", "--set", "recipe.optimizer=sgd", "--set", "recipe.clip_grad_norm=0")
start("wrong", 2, "--set", "recipe.lrr=1")
start("small", 3, "--batch-size", "4")
start("matrices", 2, "--shard", "--set", "recipe.optimizer=muon")
"""
    return launched(tmp_path_factory.mktemp("broken"), script)


def close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two rows or results agree: counts to the last one, losses but for the order of sums."""
    counts = ("epoch", "step", "train_top1", "val_top1", "correct", "count", "top1", "top5")
    counts += ("balanced_accuracy", "macro_f1", "val_balanced_accuracy", "val_macro_f1")
    losses = ("lr", "loss", "train_loss", "val_loss")
    return all(one[k] == other[k] for k in counts if k in one) and all(
        math.isclose(one[k], other[k], rel_tol=2e-5) for k in losses if k in one
    )


@pytest.mark.parametrize("name", ["world2", "world3", "sharded"])
def test_several_processes_have_the_losses_and_counts_of_one(name: str, whole: Done) -> None:
    assert whole.codes[name] == [0] * len(whole.codes[name])
    one, several = whole.rows("world1"), whole.rows(name)
    assert len(one) == len(several) == 2
    assert all(close(a, b) for a, b in zip(one, several, strict=True)), (one, several)
    for split in ("test", "validation"):
        assert close(whole.result("world1")[split], whole.result(name)[split])
    assert whole.result(name)["test"]["count"] == 101
    assert whole.result(name)["train"]["steps"] == STEPS
    assert whole.result(name)["train"]["images"] == whole.result("world1")["train"]["images"]


@pytest.mark.parametrize("name", ["world2", "world3", "sharded"])
def test_the_weights_are_whole_in_the_same_format_and_the_same_but_for_rounding(name: str, whole: Done) -> None:
    one, several = (read_weights(whole.home / n) for n in ("world1", name))
    assert one.keys() == several.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(several[key], tensor, rtol=1e-3, atol=1e-4)
    states = [checkpoint.newest(whole.home / n / CHECKPOINTS) for n in ("world1", name)]
    first, second = (found.state for found in states if found is not None)
    assert _outline(first) == _outline(second)


def test_several_processes_weigh_classes_over_the_whole_batch_as_one_does(whole: Done) -> None:
    one, several = whole.rows("uneven1"), whole.rows("uneven3")
    assert all(close(a, b) for a, b in zip(one, several, strict=True)), (one, several)
    assert close(whole.result("uneven1")["test"], whole.result("uneven3")["test"])
    assert one[0]["train_loss"] != pytest.approx(whole.rows("world1")[0]["train_loss"], rel=0.05)


@pytest.mark.slow
def test_several_processes_that_stream_shards_train_as_one_does(tmp_path: Path) -> None:
    parquet, tars, *_ = kill_harness.shards(tmp_path)
    script = f"""
for name, spec in {{"parquet": {parquet[1]!r}, "tars": {tars[1]!r}}}.items():
    for size in (1, 2):
        start(f"{{name}}{{size}}", size, "--dataset", spec, "--workers", "0")
"""
    done = launched(tmp_path, script)
    for name in ("parquet", "tars"):
        one, several = done.rows(f"{name}1"), done.rows(f"{name}2")
        assert len(one) == 2
        assert all(close(a, b) for a, b in zip(one, several, strict=True)), (one, several)
        assert close(done.result(f"{name}1")["test"], done.result(f"{name}2")["test"])


def test_several_processes_learn_from_a_teacher_as_one_does(whole: Done) -> None:
    one, several = whole.rows("taught1"), whole.rows("taught3")
    assert all(close(a, b) for a, b in zip(one, several, strict=True)), (one, several)
    assert close(whole.result("taught1")["test"], whole.result("taught3")["test"])
    states = [checkpoint.newest(whole.home / f"taught{size}" / CHECKPOINTS) for size in (1, 3)]
    ours, theirs = (state.state["projection"]["weight"] for state in states if state is not None)
    assert torch.allclose(ours, theirs, atol=1e-3)


def _outline(value: Any) -> Any:
    """Keys and shapes of a checkpoint's state, without what differs between any two runs."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {k: _outline(v) for k, v in value.items() if k not in ("fused", "foreach")}
    return [_outline(v) for v in value] if isinstance(value, list | tuple) else type(value)


def test_rank_0_alone_speaks_and_the_record_says_how_many_trained(whole: Done) -> None:
    for name, size in (("world1", 1), ("world2", 2), ("world3", 3), ("sharded", 2)):
        assert read_record(whole.home / name).environment["processes"] == str(size)
        assert (whole.home / f"{name}.0.out").read_text() == f"{whole.home / name}\n"
        for rank in range(1, size):
            assert (whole.home / f"{name}.{rank}.out").read_text() == ""
            assert whole.said(name, rank) == ""
        assert len(re.findall("^epoch", whole.said(name, 0), re.MULTILINE)) == 2
        assert "Warning" not in whole.said(name, 0)
    assert read_record(whole.home / "sharded").environment["sharded"] == "yes"
    records = {configuration(read_record(whole.home / n)) for n in ("world1", "world2", "sharded")}
    assert len(records) == 1  # so that `--resume auto` finds them, whatever the number of processes


@pytest.mark.parametrize("name", ["half", *(pytest.param(n, marks=pytest.mark.slow) for n in ("killed", "stopped"))])
def test_a_run_goes_on_with_another_number_of_processes_as_if_nothing_had_been(
    name: str, whole: Done, request: pytest.FixtureRequest
) -> None:
    """From 2 to 3 processes, from 3 to 2 with divided parameters, and from those to one."""
    done = whole if name == "half" else request.getfixturevalue("broken")
    assert set(done.codes[f"{name}-resumed"]) == {0}, done.said(f"{name}-resumed", 0)
    assert re.search(r"warning: processes is now \d and was \d", done.said(f"{name}-resumed", 0))
    one, resumed = whole.rows("world1"), done.rows(name)
    assert all(close(a, b) for a, b in zip(one, resumed, strict=True)), (one, resumed)
    assert close(whole.result("world1")["test"], done.result(name)["test"])


@pytest.mark.slow
def test_a_process_that_is_killed_ends_all_with_one_message(broken: Done) -> None:
    assert broken.codes["killed"] == [1, -signal.SIGKILL]
    (said,) = broken.errors("killed")
    assert said.startswith("error: another process of this run died without an error message")
    assert said.endswith(f"to resume: zoo train --resume {broken.home / 'killed'}")


@pytest.mark.slow
def test_a_signal_to_any_process_stops_all_at_the_same_step(broken: Done) -> None:
    assert broken.codes["stopped"] == [130] * 3
    assert "to resume: zoo train --resume" in broken.said("stopped", 0)
    assert broken.errors("stopped") == []
    assert [broken.said("stopped", rank) for rank in (1, 2)] == ["", ""]
    named = [p.name[:8] for p in (broken.home / "stopped" / CHECKPOINTS).glob("0*")]
    assert sorted(named) == ["00000005", f"{STEPS:08d}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("memory", 1, "out of memory on cpu with batches of 45"),
        ("infinite", 1, r"not finite in step \d+ \(lr .*lower --lr"),
        ("wrong", 2, "unknown field `lrr`"),
        ("small", 2, "a batch of 4 images in 2 micro-batches is too small for 3 processes"),
        ("matrices", 2, "optimizer 'muon' needs whole parameters"),
    ],
)
def test_one_failure_is_one_message_whoever_fails(name: str, code: int, said: str, broken: Done) -> None:
    (line,) = broken.errors(name)
    assert re.search(said, line)
    assert code in broken.codes[name]
    assert 0 not in broken.codes[name]
    assert 70 not in broken.codes[name]


# ---- the parts, without processes -----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_are_disjoint_leave_nothing_out_and_mirror_themselves(size: int) -> None:
    for batch in range(2 * size - 1, 40):
        rows = torch.arange(batch)
        shares = [World(rank, size).share(batch)(rows) for rank in range(size)]
        assert torch.cat(shares).sort().values.equal(rows)
        assert all(len(share) for share in shares)
        assert all(share.add(share.flip(0)).eq(batch - 1).all() for share in shares)
        parts = [World(rank, size).bounds(batch) for rank in range(size)]
        assert [row for begin, end in parts for row in range(begin, end)] == rows.tolist()


def test_a_checkpoint_is_asked_for_once_until_the_answer_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes a step late, and only then the time to save begins anew."""

    class Sent:
        def wait(self) -> None:
            """It has arrived."""

    monkeypatch.setattr("torch.distributed.all_reduce", lambda *_, **__: Sent())
    world, saved, due = World(0, 2), [], True
    for step in range(6):
        if world.agree(-1 if due else 0) == -1:
            saved.append(step)
            due = False
    assert saved == [1]


def test_a_share_of_a_mixed_batch_is_what_one_process_mixes() -> None:
    images, targets = torch.rand(11, 3, 4, 4), torch.rand(11, 5)
    mixed, shares = mixup(images, targets, torch.tensor(0.3))
    for rank in range(3):
        mine = World(rank, 3).share(11)
        own, own_shares = mixup(mine(images), mine(targets), torch.tensor(0.3))
        assert own.equal(mine(mixed))
        assert own_shares.equal(mine(shares))


def test_batches_too_small_to_divide_are_refused_with_a_size_that_is_not() -> None:
    with pytest.raises(InputError, match="give --batch-size 8 or more"):
        World(0, 4).check(6, 1)
    World(0, 4).check(8, 1)
    World(0, 1).check(1, 1)


def test_blocks_are_members_of_sequences_inner_ones_first_unless_parameters_are_shared() -> None:
    inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    model = nn.Sequential(inner, nn.Linear(8, 8), nn.LayerNorm(1))
    assert blocks(model) == [model[1], inner[0], inner]
    model[1].weight = inner[0].weight
    assert blocks(model) == []


# ---- the launcher ---------------------------------------------------------------------------------


def words(folder: Path, *more: str) -> list[str]:
    return [
        *("train", "together", "--recipe", "together", "--limit-train", "200", "--limit-test", "101"),
        *("--device", "cpu", "--output", str(folder), *more),
    ]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "registry.toml").write_text(REGISTRY)
    return {**os.environ, "ZOO_CONFIG_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}


def started(command: list[str], settings: dict[str, str]) -> subprocess.Popen[str]:
    full = [sys.executable, "-m", *command]
    return subprocess.Popen(full, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rank_of(launcher: subprocess.Popen[str], rank: int) -> Any:
    import psutil

    children = psutil.Process(launcher.pid).children(recursive=True)
    return next(child for child in children if child.environ().get("RANK") == str(rank))


def wait_for(found: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()


@pytest.mark.slow
def test_torchrun_and_gpus_start_the_processes_which_end_together(
    tmp_path: Path, settings: dict[str, str], ended: list[subprocess.Popen[str]]
) -> None:
    folder, torchrun = tmp_path / "run", ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    more = ("--epochs", "9999", "--checkpoint-seconds", "0")
    ended.append(process := started([*torchrun, "-m", "zoo", *words(folder, *more)], settings))
    wait_for(lambda: (folder / METRICS).exists() and read_metrics(folder), process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert said.count("stopped:") == 1, said
    (kept,) = folder.glob("checkpoints/0*")

    again = ("train", "--resume", str(folder), "--gpus", "2", "--checkpoint-steps", "20")
    ended.append(process := started(["zoo", *again], settings))
    wait_for(lambda: not kept.exists(), process)  # two newer ones took its place
    rank_of(process, 1).kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert f"to resume: zoo train --resume {folder}" in line
    assert "Traceback" not in said
    assert "elastic" not in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--gpus", "2"], "finds no usable GPU on this machine; add --device cpu to train with 2 processes"),
        (["--gpus", "2", "--device", "cuda:1"], "--device cuda"),
        (["--gpus", "2", "--device", "mps"], "'mps' works with one process only"),
        (["--shard", "--device", "cpu"], "--shard needs several processes: add --gpus N"),
    ],
)
def test_what_cannot_be_started_is_one_clear_line(
    more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from zoo.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["train", "hybrid-alt-1", "--dataset", "digits", *more])
    assert ended.value.code in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
