"""Publishing a package: one commit, or none."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.catalogue.registry import Registry, load_registry
from zoo.errors import (
    HubConflictError,
    HubConnectionError,
    HubError,
    HubLoginError,
    InputError,
    PackageError,
    ZooError,
)
from zoo.hub.fetch import Manifest, ask
from zoo.hub.pack import copy_with_repo
from zoo.hub.pack import package as make_package
from zoo.hub.package import Package, check_finite
from zoo.hub.ref import COMMIT, Ref
from zoo.hub.session import Session, explain, hub_api, is_transient, retrying, status_of, talking, within
from zoo.hub.sums import NAMES, SUMS, present
from zoo.runs.folder import read_result, read_weights
from zoo.runs.record import RECORD, WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo

MAX_ATTEMPTS, MAX_SECONDS = 3, 40.0
"""How often a commit is tried, and after how long it is not tried once more."""
REFUSALS = (400, 401, 403, 404, 413, 422)
"""Answers that say the commit was not made; after any other, only looking tells."""


class Plan(NamedTuple):
    """What will be sent: the package, its files with their sizes in bytes, the tag, the commit's title."""

    package: Package
    files: tuple[tuple[str, int], ...]
    tag: str
    title: str


class Published(NamedTuple):
    """What was published: `tag` is "" for a pull request, which also has a `url`."""

    repo: str
    commit: str
    tag: str
    url: str


def prepare(
    source: Path, ref: Ref, temporary: Path, *, registry: Registry | None = None, **options: Any
) -> Plan:
    """Make (from a run) or check (a package) what is to be sent.

    Args:
        source: a run folder or a package. temporary: an empty folder for the files.
        registry: the catalogue; read if not given. options: of `zoo.hub.pack.package`, for a run.
    Raises:
        PackageError: symbolic links, weights that are not finite or do not fit, damage, a leak.
        RunError, DataError: as `zoo.hub.pack.package`.
    """
    registry = registry or load_registry()
    if (source / SUMS).exists():
        _refuse_links(source)
        package = copy_with_repo(source, temporary / "sent", ref.repo, registry)
        check_finite(source / WEIGHTS, read_weights(package.folder))
    elif (source / RECORD).is_file():
        _refuse_links(source)
        package = make_package(source, temporary / "sent", repo=ref.repo, registry=registry, **options)
    else:
        raise InputError(f"{source}: neither a run folder nor a package")
    return _plan(package)


def _plan(package: Package) -> Plan:
    folder, record, short = package.folder, package.record, package.sums_sha256[:8]
    top1 = float(read_result(folder)["test"]["top1"])
    spec = "".join(c if c.isalnum() else "-" for c in record.data.spec.partition("?")[0]).strip("-").lower()
    tag = f"{spec[-40:].strip('-')}-{record.protocol}-{top1 * 100:.2f}-s{record.seed}-{short}"
    title = f"{record.model} on {record.data.spec}: test top-1 {top1:.2%} [{short}]"
    files = tuple((name, (folder / name).stat().st_size) for name in (*present(folder), SUMS))
    return Plan(package, files, tag, title)


def publish(plan: Plan, ref: Ref, *, private: bool = False, create_pr: bool = False) -> Published:
    """Send a plan as one commit, tag it, and look that it arrived.

    Raises:
        HubError: one of its kinds. After any of them the repository is as it was: a repository that
        was made for this is removed again, as far as the Hub can be reached.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise HubLoginError("no Hub token here; `hf auth login`, or set HF_TOKEN")
    api = hub_api()
    with talking(ref.repo) as session:
        made = False if create_pr else _ensure_repo(api, ref, private, session)
        try:
            # Uploads may pass through Xet's own client, which only a thread of its own can be freed from.
            commit, url = within(session, lambda: _commit(api, plan, ref, create_pr, session))
        except BaseException as error:
            if made and not isinstance(error, HubConflictError):
                _remove(api, ref)
            raise
        if create_pr:
            return Published(ref.repo, commit, "", url)
        try:
            retrying(lambda: api.create_tag(ref.repo, tag=plan.tag, revision=commit, exist_ok=True))
        except Exception as error:
            kind = type(error) if isinstance(error, HubError) else type(explain(error, ref.repo))
            raise kind(
                f"{ref.repo}: published as commit {commit[:12]}, but its tag {plan.tag} could not be set; "
                "publish again to set it (nothing is sent twice)"
            ) from error
    return Published(ref.repo, commit, plan.tag, url)


def _refuse_links(folder: Path) -> None:
    for name in (*NAMES, SUMS):
        if (folder / name).is_symlink():
            raise PackageError(f"{folder / name}: is a symbolic link; only plain files are sent")


def _ensure_repo(api: HfApi, ref: Ref, private: bool, session: Session) -> bool:
    """Make the repository (and the branch) where it is not there yet; whether the repository was made."""
    from huggingface_hub.errors import GatedRepoError

    absent = False
    try:
        _head(api, ref)
    except Exception as error:
        # 401 is the answer for an absent repository too, and for a refused token: creating tells them apart.
        absent = status_of(error) in (401, 404) and not isinstance(error, GatedRepoError)
        if not absent:
            raise
    if absent:
        try:
            retrying(lambda: api.create_repo(ref.repo, private=private, exist_ok=True))
        except Exception as error:
            session.progress()  # looking is another request, whatever became of this one
            if not (is_transient(error) or isinstance(error, HubConnectionError)) or not _is_there(api, ref):
                raise
    try:
        if ref.revision and ref.revision != "main":
            retrying(lambda: api.create_branch(ref.repo, branch=ref.revision, exist_ok=True))
    except BaseException:
        if absent:
            _remove(api, ref)
        raise
    return absent


def _head(api: HfApi, ref: Ref) -> ModelInfo:
    """What the Hub says of the head of a repository's default branch."""
    return retrying(lambda: api.model_info(ref.repo, timeout=10))


def _is_there(api: HfApi, ref: Ref) -> bool:
    """Whether a repository was made although every answer to that got lost."""
    try:
        _head(api, ref)
    except Exception:
        return False
    return True


def _remove(api: HfApi, ref: Ref) -> None:
    """Take away the empty repository that was made for a commit that did not come."""
    try:
        head = _head(api, ref)
        if {s.rfilename for s in head.siblings or []} <= {".gitattributes"}:
            retrying(lambda: api.delete_repo(ref.repo, missing_ok=True))
    except Exception:
        return  # the error that led here is the one to show


def _commit(api: HfApi, plan: Plan, ref: Ref, create_pr: bool, session: Session) -> tuple[str, str]:
    """Commit on top of the head; where the answer is lost, look whether it came."""
    parent, start = ask(Ref(ref.repo, ref.revision)).commit, time.monotonic()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            made = api.create_commit(
                ref.repo,
                list(_operations(plan)),
                commit_message=plan.title,
                revision=ref.revision,
                parent_commit=parent,
                create_pr=create_pr,
            )
            if create_pr:
                return str(made.oid), str(made.pr_url or made.commit_url)
            commit = _arrived(plan, _made(ref, made.oid), ref)
            return commit, f"{api.endpoint}/{ref.repo}/commit/{commit}"
        except Exception as error:
            status = status_of(error)
            ours = isinstance(error, ZooError) and not isinstance(error, HubConnectionError)
            if create_pr or ours or status in REFUSALS:
                raise
            session.progress()  # looking is another request, whatever became of this one
            head = ask(Ref(ref.repo, ref.revision))
            if _same(plan, head):
                return head.commit, f"{api.endpoint}/{ref.repo}/commit/{head.commit}"
            if head.commit != parent:
                raise HubConflictError(
                    f"{ref.repo}: somebody else committed {head.commit[:12]} meanwhile; look at it, then publish again"
                ) from error
            if attempt == MAX_ATTEMPTS or status in (409, 412) or time.monotonic() - start > MAX_SECONDS:
                raise
    raise AssertionError("unreachable")


def _made(ref: Ref, commit: str) -> Manifest:
    """The commit that an answer names; the head where no such commit is there, as the answer may be damaged."""
    try:
        return ask(Ref(ref.repo, commit))
    except Exception as error:
        if status_of(error) != 404:
            raise
        return ask(Ref(ref.repo, ref.revision))


def _operations(plan: Plan) -> Iterator[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd

    for name, _ in plan.files:
        yield CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(plan.package.folder / name))


def _same(plan: Plan, manifest: Manifest) -> bool:
    """Whether a commit's files of our names are exactly the plan's."""
    hashes = {**plan.package.hashes, SUMS: plan.package.sums_sha256}
    for name, size in plan.files:
        digest = manifest.files.get(name)
        if digest is None or digest.size != size:
            return False
        if digest.sha256:
            if digest.sha256 != hashes[name]:
                return False
        elif digest.git != _git_name(plan.package.folder / name):
            return False
    return True


def _git_name(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _arrived(plan: Plan, manifest: Manifest, ref: Ref) -> str:
    if not _same(plan, manifest) or not COMMIT.fullmatch(manifest.commit):
        raise HubError(
            f"{ref.repo}: commit {manifest.commit[:12]} does not hold what was sent; do not use it"
        )
    return manifest.commit
