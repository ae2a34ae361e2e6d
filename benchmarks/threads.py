"""The number of threads that `zoo train` chooses, beside the best fixed one, in four situations.

    python benchmarks/threads.py --json results/threads.json
    python benchmarks/threads.py --smoke                # does the script run?

`quiet`; `one busy neighbour`: a process that only counts, on one of the CPUs that the training may use; `a quota of
one CPU`: a process is stopped for the rest of each tenth of a second in which it has used up its share, as the kernel
does it with a control group, whose quota the process is told; `few of many`: half of the CPUs usable, and torch told
of eight times as many. Each line is a process that trains steps of one batch: first with each fixed number of
threads, then with the chosen one, by turns. The share is that of the chosen number's images per second in those of
the best fixed one; the goal is 0.9.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from common import facts, lines, say, write

SITUATIONS = ("quiet", "one busy neighbour", "a quota of one CPU", "few of many")
PERIOD = 0.1
GOAL = 0.9
COUNTING = "while True: pass"


def child(chosen: argparse.Namespace) -> None:
    """Train steps for some seconds, and print the threads and the images per second."""
    import torch

    from zoo.base import cpus
    from zoo.train.plan import resolve
    from zoo.train.run_options import Request
    from zoo.train.speed.threads import beside_others, step_timer

    if chosen.quota:
        cpus.quota = lambda root=cpus.ROOT: chosen.quota  # what a control group would say
    neighbours = cpus.Neighbours()
    torch.set_num_threads(chosen.threads or chosen.torchs)
    settings = (f"recipe.batch_size={chosen.batch_size}",)
    plan = resolve(Request(model=chosen.model, dataset="digits", device="cpu", precision="fp32", settings=settings))
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    else:
        plan, _ = beside_others(plan, neighbours.busy())
    number = torch.get_num_threads()
    timer, until, took = step_timer(plan), time.monotonic() + chosen.seconds, []
    while not took or time.monotonic() < until:
        took.append(timer(number))
    rate = chosen.batch_size / statistics.mean(took)
    print(json.dumps({"threads": number, "recorded": plan.record.environment["threads"], "rate": rate}))


def measured(chosen: argparse.Namespace, situation: str, threads: int) -> dict[str, Any]:
    """One process in a situation; 0 threads: the number that `zoo train` chooses."""
    cpus = sorted(os.sched_getaffinity(0))
    few = cpus[: max(1, len(cpus) // 2)] if situation == "few of many" else cpus
    torchs = 8 * len(few) if situation == "few of many" else len(cpus)
    words = [sys.executable, __file__, "--child", "--model", chosen.model, "--seconds", str(chosen.seconds)]
    words += ["--batch-size", str(chosen.batch_size), "--threads", str(threads), "--torchs", str(torchs)]
    names = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    words += ["--quota", "1"] if situation == "a quota of one CPU" else []
    with beside(situation, cpus[0]):
        start = partial(os.sched_setaffinity, 0, few)
        run = subprocess.Popen(words, env=names, stdout=subprocess.PIPE, text=True, preexec_fn=start)
        if situation == "a quota of one CPU":
            threading.Thread(target=stop_and_go, args=(run,), daemon=True).start()
        try:
            said, _ = run.communicate(timeout=300 + 20 * chosen.seconds)
        finally:
            run.kill()  # after its end it does nothing
    if run.returncode:
        raise SystemExit(f"{situation}, {threads} threads: exit code {run.returncode}")
    row: dict[str, Any] = json.loads(said)
    return row


@contextmanager
def beside(situation: str, cpu: int) -> Iterator[None]:
    """The busy neighbour, where the situation has one."""
    if situation != "one busy neighbour":
        yield
        return
    with subprocess.Popen([sys.executable, "-c", COUNTING]) as other:
        os.sched_setaffinity(other.pid, {cpu})
        try:
            yield
        finally:
            other.kill()


def stop_and_go(run: subprocess.Popen[str]) -> None:
    """Stop a process for the rest of each period in which it has used up one CPU's time."""
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        while run.poll() is None:
            began, used = time.monotonic(), _used(run.pid)
            while (left := PERIOD - (time.monotonic() - began)) > 0:
                if (_used(run.pid) - used) / ticks >= PERIOD:
                    run.send_signal(signal.SIGSTOP)
                    time.sleep(left)
                    run.send_signal(signal.SIGCONT)
                    break
                time.sleep(PERIOD / 50)
    except OSError:
        return  # it ended


def _used(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def parse() -> argparse.Namespace:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="cnn-baseline")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--situations", nargs="+", choices=SITUATIONS, default=SITUATIONS)
    options.add_argument("--seconds", type=float, default=5.0, help="of each process")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--smoke", action="store_true", help="one short round: does the script run?")
    options.add_argument("--json", type=Path)
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    options.add_argument("--quota", type=float, help=argparse.SUPPRESS)
    options.add_argument("--torchs", type=int, default=1, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.seconds, chosen.rounds, chosen.batch_size = 0.1, 1, 8
    return chosen


def main() -> None:
    """Measure each situation, and print one table."""
    chosen = parse()
    if chosen.child:
        child(chosen)
        return
    rows: list[dict[str, Any]] = []
    fixed = range(1, len(os.sched_getaffinity(0)) + 1)
    for situation in chosen.situations:
        rounds = [[measured(chosen, situation, n) for n in (*fixed, 0)] for _ in range(chosen.rounds)]
        rates = {n: statistics.median([one[i]["rate"] for one in rounds]) for i, n in enumerate(fixed)}
        own = [one[-1] for one in rounds]
        best = max(rates, key=lambda n: rates[n])
        share = statistics.median([one[-1]["rate"] / max(row["rate"] for row in one[:-1]) for one in rounds])
        numbers = [one["threads"] for one in own]
        rows.append({"situation": situation, "chosen": numbers, "best_fixed": best, "share": share, "rounds": rounds})
        say(f"{situation}: {numbers} threads beside {best}, share {share:.2f}")
        write(chosen.json, {"model": chosen.model, "goal": GOAL, "machine": facts(), "rows": rows})
    cells = [[r["situation"], " ".join(map(str, r["chosen"])), r["best_fixed"], f"{r['share']:.2f}"] for r in rows]
    print("\n".join(lines(("situation", "chosen threads", "best fixed", "share of its rate"), cells, left=1)))


if __name__ == "__main__":
    main()
