"""Every fault at every request of publish and pull: what is tried, and how it ended."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hub_server.faults import Fault
from hub_server.server import HubServer
from hub_server.store import git_oid
from hub_server.worker import Done, Worker

REPO, USER, SEED_FILE = "me/digits", "me", "note.txt"

PUBLISH = ("info", "create", "validate-yaml", "preupload", "lfs-batch", "lfs-put", "lfs-verify", "commit", "tag")
PULL = ("info", "resolve-head", "resolve-get", "cdn-get")
XET_PUBLISH = ("xet-write-token", "xet-dedup", "xorb-grant", "xorb-put", "shard-put", "commit")
XET_PULL = ("resolve-head", "xet-read-token", "reconstruction", "xorb-get")

ONCE = (
    ("500 once", Fault("", "500", times=1)),
    ("503 once", Fault("", "503", times=1)),
    ("429 once, wait 3600 s", Fault("", "429", times=1, retry_after="3600")),
    ("dropped once", Fault("", "drop", times=1)),
    ("answer lost once", Fault("", "lost", times=1)),
    ("wrong bit once", Fault("", "flip", times=1)),
    ("cut short once", Fault("", "truncate", times=1)),
    ("main moves", Fault("", "moved", times=1)),
)
REFUSED = (
    ("401 bad token", Fault("", "401:Invalid credentials in Authorization header")),
    ("403", Fault("", "403:Forbidden")),
    ("403 gated", Fault("", "403:GatedRepo")),
    ("404", Fault("", "404:RepoNotFound")),
    ("412", Fault("", "412")),
)
ALWAYS = (
    ("500 always", Fault("", "500")),
    ("429 always, wait 3600 s", Fault("", "429", retry_after="3600")),
    ("dropped always", Fault("", "drop")),
    ("answer lost always", Fault("", "lost")),
    ("wrong bit always", Fault("", "flip")),
    ("cut short always", Fault("", "truncate")),
    ("no answer", Fault("", "stall")),
    ("a byte a second", Fault("", "drip")),
)
FAULTS = (*ONCE, *REFUSED, *ALWAYS)

CODES = {
    0: "done",
    1: "error",
    2: "wrong input",
    3: "damaged",
    10: "refused",
    11: "no connection",
    12: "bad token",
    13: "no right",
    14: "not there",
    15: "gated",
    16: "conflict",
}


class Case(NamedTuple):
    """One fault at one request of one command."""

    command: str
    mode: str
    request: str
    fault: str

    @property
    def row(self) -> str:
        """The first columns of the table."""
        return f"{self.command} ({self.mode}), {self.request}"


class Outcome(NamedTuple):
    """How a case ended: `word` for the table, and anything that must not be."""

    word: str
    seconds: float
    met: int
    wrong: list[str]
    output: str


def cases(faults: tuple[tuple[str, Fault], ...] = FAULTS) -> Iterator[Case]:
    """All cases, those that can never be left out."""
    for mode, publish, pull in (("LFS", PUBLISH, PULL), ("Xet", XET_PUBLISH, XET_PULL)):
        for command, requests in (("publish", publish), ("pull", pull)):
            for request in requests:
                for name, fault in faults:
                    if fault.action == "moved" and (command != "publish" or request in ("create", "lfs-put")):
                        continue  # nobody can commit there and then
                    yield Case(command, mode, request, name)


class Bench:
    """A Hub and a process, made for one mode, in which cases run one after another."""

    def __init__(self, folder: Path, package: Path, canary: str, *, mode: str) -> None:
        self.folder, self.package, self.canary, self.mode = folder, package, canary, mode
        self.hub = HubServer(xet=mode == "Xet").__enter__()
        self.hub.store.users[canary] = (USER, "write")
        self.worker = Worker(self.hub, folder, token=canary, xet=mode == "Xet")
        self.ready = False

    def close(self) -> None:
        """End both."""
        self.worker.__exit__()
        self.hub.__exit__()

    def run(self, case: Case) -> Outcome:
        """Run one case and look for everything that must not be."""
        return self.meet(case, dict(FAULTS)[case.fault])

    def meet(self, case: Case, fault: Fault) -> Outcome:
        """Run a case with a fault of one's own in place of the one it names."""
        fault = replace(fault, kind=case.request)
        outcome = self._publish(case, fault) if case.command == "publish" else self._pull(case, fault)
        outcome.wrong.extend(self._leaks(outcome))
        return outcome

    def _arm(self, fault: Fault) -> None:
        self.hub.log.clear()
        self.hub.faults[:] = [fault]

    def _clear(self) -> None:
        self.hub.faults.clear()
        self.hub.store.repos.clear()
        self.hub.store.objects.clear()
        self.hub.store.xet.clear()
        self.hub.cas.xorbs.clear()
        self.hub.cas.files.clear()
        self.worker.forget()
        self.ready = False

    def _publish(self, case: Case, fault: Fault) -> Outcome:
        self._clear()
        absent_before = case.request == "create"
        if not absent_before:
            self.hub.store.put(REPO, {SEED_FILE: b"of its owner"})
        before = None if absent_before else self.hub.store.repos[REPO].head().files
        self._arm(fault)
        done = self.worker("publish", self.package, REPO)
        self.hub.faults.clear()
        wrong = self._half_published(before, done)
        return Outcome(word(done), done.seconds, fault.met, wrong, done.out + done.err)

    def _half_published(self, before: Any, done: Done) -> list[str]:
        repo = self.hub.store.repos.get(REPO)
        files = repo.head().files if repo else None
        if done.code == 0 or (files and "SHA256SUMS" in files):
            return [] if repo and files and self._is_whole(files) else ["a half or wrong package is published"]
        after_files = {n: f.oid for n, f in (files or {}).items() if n != SEED_FILE}
        before_files = {n: f.oid for n, f in (before or {}).items() if n != SEED_FILE}
        if repo is not None and before is None:
            return ["an empty repository is left"]
        return [] if after_files == before_files else ["the repository is not as it was"]

    def _is_whole(self, files: Any) -> bool:
        for path in self.package.iterdir():
            if path.name not in files:
                return False
            file = files[path.name]
            if file.sha256 and path.name != "README.md" and file.sha256 != digest(path):
                return False
        return True

    def _pull(self, case: Case, fault: Fault) -> Outcome:
        if not self.ready or case.request == "xet-read-token":  # the token of a commit is kept in memory
            self._clear()
            assert self.worker("publish", self.package, REPO).code == 0
            self.ready = True
        self.worker.forget()
        self._arm(fault)
        done = self.worker("pull", REPO)
        self.hub.faults.clear()
        wrong = self._wrong_files()
        if done.code == 0 and not self._all_there():
            wrong.append("it says done, and a file is missing")
        if self.worker("pull", REPO).code != 0:
            wrong.append("a second pull, without the fault, fails")
        return Outcome(word(done), done.seconds, fault.met, wrong, done.out + done.err)

    def _wrong_files(self) -> list[str]:
        blobs = self.worker.home / "hub" / "models--me--digits" / "blobs"
        wrong = []
        for blob in blobs.iterdir() if blobs.is_dir() else ():
            if blob.suffix == ".incomplete":
                continue  # of a download that was given up: under this name nothing is ever read
            data = blob.read_bytes()
            if blob.name not in (hashlib.sha256(data).hexdigest(), git_oid(data)):
                wrong.append(f"a wrong file is left: {blob.name[:20]}")
        return wrong

    def _all_there(self) -> bool:
        (snapshot,) = (self.worker.home / "hub" / "models--me--digits" / "snapshots").iterdir()
        return {p.name for p in snapshot.iterdir()} >= {p.name for p in self.package.iterdir()}

    def _leaks(self, outcome: Outcome) -> list[str]:
        wrong = [] if self.canary not in outcome.output else ["the token is printed"]
        if "Traceback" in outcome.output or "unexpected" in outcome.output.split("error:")[-1][:12]:
            wrong.append(f"an error that is none of ours: {outcome.output[-300:]}")
        bodies = [r for r in self.hub.log if self.canary.encode() in r.body or self.canary in r.path]
        wrong += [f"the token is in the body of {r.kind}" for r in bodies]
        for path in (p for p in self.folder.rglob("*") if p.is_file() and p.stat().st_size < 1 << 22):
            if self.canary.encode() in path.read_bytes():
                wrong.append(f"the token is in {path.name}")
        return wrong


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def word(done: Done) -> str:
    """The outcome as the table has it."""
    return CODES.get(done.code, f"exit {done.code}")


# ---- the table --------------------------------------------------------------------------------

START, END = "<!-- faults -->", "<!-- end of faults -->"


def table(outcomes: dict[Case, Outcome], earlier: dict[tuple[str, str], str]) -> str:
    """The Markdown table: requests down, faults across; `earlier`: the cells of an earlier table, for other cases."""
    names = [name for name, _ in FAULTS]
    cells = earlier | {(c.row, c.fault): o.word if o.met else "·" for c, o in outcomes.items()}
    lines = [f"| request | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for row in dict.fromkeys(case.row for case in cases()):
        lines.append(f"| {row} | {' | '.join(cells.get((row, name), '–') for name in names)} |")
    return "\n".join(lines)


def read_table(text: str) -> dict[tuple[str, str], str]:
    """(row, fault) to the outcome, from the page."""
    part = text.split(START)[1].split(END)[0]
    if "|" not in part:
        return {}
    rows = [re.split(r"\s*\|\s*", line.strip().strip("|").strip()) for line in part.splitlines() if "|" in line]
    head = rows[0][1:]
    return {(row[0], name): cell for row in rows[2:] for name, cell in zip(head, row[1:], strict=True)}
