"""What the test Hub keeps: repositories with immutable commits, LFS objects, users and their rights."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any


def git_oid(data: bytes) -> str:
    """git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class File:
    """One file of a commit: its bytes, or the LFS object that holds them."""

    size: int
    oid: str
    data: bytes | None = None
    sha256: str | None = None

    @classmethod
    def regular(cls, data: bytes) -> File:
        return cls(len(data), git_oid(data), data)

    @classmethod
    def lfs(cls, sha256: str, size: int) -> File:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return cls(size, git_oid(pointer.encode()), None, sha256)


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    message: str
    files: dict[str, File]


@dataclass
class Repo:
    id: str
    private: bool = False
    gated: bool = False
    downloads: int = 0
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: int = 0

    def add(self, ref: str, files: dict[str, File], message: str) -> Commit:
        parent = self.refs.get(ref)
        # Like a commit's date: the client keeps what it learns of a commit, so no two may share a name.
        seed = f"{self.id}{parent}{message}{sorted((p, f.oid) for p, f in files.items())}{time.time_ns()}"
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), parent, message, files)
        self.commits[commit.oid] = commit
        self.refs[ref] = commit.oid
        return commit

    def resolve(self, revision: str) -> Commit | None:
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid = self.refs.get(name) or self.tags.get(name) or name
        if oid not in self.commits and len(oid) >= 7:
            oid = next((c for c in self.commits if c.startswith(oid)), oid)
        return self.commits.get(oid)

    def head(self, ref: str = "main") -> Commit:
        return self.commits[self.refs[ref]]


@dataclass
class Store:
    """All state; guarded by one lock, for tests look into it from another thread."""

    users: dict[str, tuple[str, str]] = field(default_factory=dict)  # token to (name, "read" or "write")
    repos: dict[str, Repo] = field(default_factory=dict)
    collections: dict[str, dict[str, Any]] = field(default_factory=dict)  # by slug
    objects: dict[str, bytes] = field(default_factory=dict)
    xet: dict[str, str] = field(default_factory=dict)  # sha256 to the Xet hash of the same bytes
    lock: Any = field(default_factory=threading.RLock)

    def create(self, repo_id: str, *, private: bool = False) -> Repo:
        repo = Repo(repo_id, private)
        repo.add("main", {".gitattributes": File.regular(b"*.safetensors filter=lfs\n")}, "initial commit")
        self.repos[repo_id] = repo
        return repo

    def put(self, repo_id: str, files: dict[str, bytes], message: str = "files", ref: str = "main") -> Commit:
        """Commit files as if somebody had pushed them."""
        repo = self.repos.get(repo_id) or self.create(repo_id)
        entries = dict(repo.head(ref).files)
        for path, data in files.items():
            entries[path] = self.file(path, data)
        return repo.add(ref, entries, message)

    def file(self, path: str, data: bytes) -> File:
        if not is_lfs(path, len(data)):
            return File.regular(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        return File.lfs(sha256, len(data))

    def content(self, file: File) -> bytes:
        return file.data if file.data is not None else self.objects[file.sha256 or ""]


def is_lfs(path: str, size: int) -> bool:
    """The Hub's rule, roughly: weights and pictures, and whatever is large."""
    return path.endswith((".safetensors", ".png", ".bin", ".parquet")) or size > 10 << 20
