"""Memory that does not suffice: one line that says what to lower, and what else was asked for goes on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from zoo.errors import DeviceError
from zoo.runs.record import OUT_OF_MEMORY
from zoo.train.out_of_memory import refusing_too_much
from zoo.train.plan import resolve
from zoo.train.run_options import Request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold to RLIMIT_AS")

BYTES = 6 << 30
"""Of address space: torch takes the half of it before it has done anything."""

STUDY = """
[studies.widths]
summary = "a hidden layer that trains in no such memory, and a narrow one"
model = "cnn-baseline"
dataset = "digits"
each = { "build.dense" = [[8000000], [8]] }
"""
SMALL = ("--limit-train", "64", "--epochs", "1", "--device", "cpu")


def zoo_with_little_memory(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    with open_with_little_memory(*words, cwd=cwd) as process:
        out, error = process.communicate(timeout=200)
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def open_with_little_memory(*words: str, cwd: Path) -> subprocess.Popen[str]:
    import resource

    return subprocess.Popen(
        [sys.executable, "-m", "zoo", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES)),
    )


def address_space(pid: int) -> int:
    """The bytes of address space of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmSize:\s*(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


KEEPING = """\
from zoo.base.heap import keep_heap, trim_heap

def resident():
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmRSS"))

print(keep_heap())
block = bytearray(b"1") * (300 << 20)
full = resident()
del block
kept = resident()
print(trim_heap())
print(full - kept > 200, full - resident() > 200)
"""
"""Prints whether memory is kept, whether the rest of it was returned, and whether a block of 300 MB was, twice."""


@pytest.mark.parametrize("limit", [-1, 4 << 30])
def test_freed_memory_is_kept_until_it_is_trimmed_or_at_once_returned_where_a_limit_stands(limit: int) -> None:
    import resource

    done = subprocess.run(
        [sys.executable, "-c", KEEPING],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)) if limit > 0 else None,
    )
    kept, _, before, after = done.stdout.split()
    assert (kept, before, after) == (("True", "False", "True") if limit < 0 else ("False", "True", "True"))


def test_what_onednn_says_counts_as_out_of_memory_only_after_memory_did_not_suffice() -> None:
    plan = resolve(Request(model="cnn-baseline", dataset="digits", device="cpu"))
    with pytest.raises(RuntimeError, match="primitive"), refusing_too_much(plan):
        raise RuntimeError("could not create a primitive")
    record = msgspec.structs.replace(plan.record, environment={**plan.record.environment, OUT_OF_MEMORY: "in step 1"})
    with (
        pytest.raises(DeviceError, match="out of memory on cpu with batches of"),
        refusing_too_much(replace(plan, record=record)),
    ):
        raise RuntimeError("could not create a primitive")


@pytest.mark.slow
def test_a_run_says_what_to_lower(tmp_path: Path) -> None:
    words = ["--dataset", "digits", "--device", "cpu", "--batch-size", "1293", "--image-size", "64"]
    done = zoo_with_little_memory("train", "hybrid-alt-1", *words, "--max-steps", "1", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    line = r"^error: out of memory on cpu with batches of 1293 .*lower --batch-size"
    assert re.search(line, done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_row_of_a_table_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "registry.toml").write_text(STUDY)
    words = ["--budget", "small", "--limit-test", "32", *SMALL]
    done = zoo_with_little_memory("reproduce", "widths", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    (failed,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert "dense=[8000000]" in failed
    assert "out of memory on cpu with batches of" in failed
    rows = json.loads((tmp_path / "results" / "widths.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["", "dense=[8]"]


@pytest.mark.slow
def test_a_trial_of_a_sweep_fails_alone(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="needs Optuna: pip install -e '.[sweep]'")
    words = ["--dataset", "digits", "--output", "found", "--grid", "build.dense=[8000000],[8]"]
    lines, sizes = [], {}
    with open_with_little_memory("sweep", "cnn-baseline", *words, *SMALL, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if ": begins; " in line:
                sizes[line.partition(":")[0]] = address_space(process.pid)
    assert process.returncode == 0, "".join(lines)
    assert sizes["trial-0001"] - sizes["trial-0000"] < 1 << 30, "the failed trial has kept its memory"
    found = json.loads((tmp_path / "found" / "sweep.json").read_text())["trials"]
    states = {str(t["changes"]["build.dense"]): (t["state"], t["error"]) for t in found}
    assert states["[8]"] == ("complete", "")
    assert states["[8000000]"][0] == "failed"
    assert "out of memory on cpu with batches of" in states["[8000000]"][1]
