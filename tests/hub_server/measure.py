"""Run every case and write the table into docs/hub.md.

In tests/: `python -m hub_server.measure PACKAGE [WORKERS [ROWS]]`; ROWS: a regex; only rows that match.
"""

from __future__ import annotations

import re
import secrets
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hub_server.cases import END, START, Bench, Case, Outcome, cases, read_table, table

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "hub.md"


def measure(package: Path, workers: int, chosen: list[Case] | None = None) -> dict[Case, Outcome]:
    """Run cases on several Hubs at once: most of the time is waiting."""
    todo = chosen if chosen is not None else list(cases())
    results: dict[Case, Outcome] = {}
    lots = []
    for mode in ("LFS", "Xet"):
        mine = [case for case in todo if case.mode == mode]
        share = max(1, round(workers * len(mine) / max(1, len(todo))))
        lots += [(mode, mine[i::share]) for i in range(share) if mine[i::share]]

    def work(mode: str, lot: list[Case]) -> None:
        left = sorted(lot, key=lambda c: c.command)
        while left:  # a process that hangs is ended, and another one goes on
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(Path(folder), package, f"hf_{secrets.token_hex(17)}", mode=mode)
                try:
                    while left:
                        case = left.pop(0)
                        results[case] = bench.run(case)
                        show(case, results[case], len(results), len(todo))
                except (AssertionError, OSError) as error:
                    results[case] = Outcome("hangs", 180.0, 1, [str(error)[:300]], "")
                    show(case, results[case], len(results), len(todo))
                finally:
                    bench.close()

    with ThreadPoolExecutor(len(lots)) as pool:
        for future in [pool.submit(work, *lot) for lot in lots]:
            future.result()
    return {case: results[case] for case in todo}


def show(case: Case, outcome: Outcome, done: int, count: int) -> None:
    """One line for each case, on stderr."""
    wrong = f"  WRONG: {outcome.wrong}" if outcome.wrong else ""
    seen = outcome.word if outcome.met else "·"
    line = f"{done}/{count}  {case.row}: {case.fault}: {seen}, {outcome.seconds:.0f} s{wrong}"
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and write."""
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    wanted = sys.argv[3] if len(sys.argv) > 3 else ""
    outcomes = measure(Path(sys.argv[1]), workers, [case for case in cases() if re.search(wanted, case.row)])
    text = PAGE.read_text("utf-8")
    head, tail = text.split(START)[0], text.split(END)[1]
    whole = table(outcomes, read_table(text) if wanted else {})
    PAGE.write_text(f"{head}{START}\n\n{whole}\n\n{END}{tail}", "utf-8")


if __name__ == "__main__":
    main()
