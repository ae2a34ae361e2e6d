"""Publishing a package: one commit, or none."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.base.files import sha256_of
from zoo.base.headline import headline
from zoo.base.tables import Table
from zoo.catalogue.registry import Registry, load_registry
from zoo.errors import HubConflictError, HubConnectionError, HubError, HubLoginError, InputError, PackageError, ZooError
from zoo.hub.download import Manifest, ask, fetch_file
from zoo.hub.entry import stated_licence
from zoo.hub.hub_hash import Digest, git_name
from zoo.hub.pack import copy_with_repo
from zoo.hub.pack import package as make_package
from zoo.hub.package import Package, check_finite
from zoo.hub.publication import Planned, Published
from zoo.hub.ref import COMMIT, Ref
from zoo.hub.session import Session, explain, hub_api, is_transient, retrying, status_of, talking, within
from zoo.hub.signature import Sign
from zoo.hub.storage import refuse_other_type
from zoo.hub.sums import ALL, CARD, FOR_PEOPLE, ONNX, SIGNATURE, SUMS, complete, edited, read_sums
from zoo.runs.folder import read_result, read_weights
from zoo.runs.record import RECORD, WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo

MAX_ATTEMPTS, MAX_SECONDS = 3, 40.0
"""How often a commit is tried, and after how many seconds it is not tried again."""
REFUSALS = (400, 401, 403, 404, 413, 422)
"""Responses that say that the commit was not made; after any other, we look at the repository."""


class Plan(NamedTuple):
    """What will be sent: the package, its files with their sizes in bytes, the tag, the commit's title.

    Attributes:
        edited: prose and pictures that were edited after the package was made; they are sent as they are.
    """

    package: Package
    files: tuple[tuple[str, int], ...]
    tag: str
    title: str
    edited: tuple[str, ...] = ()


def prepare(
    source: Path,
    ref: Ref,
    temporary: Path,
    *,
    registry: Registry | None = None,
    sign: Sign | None = None,
    **options: Any,
) -> Plan:
    """Prepare what will be sent: make a package from a run, or copy and check a package.

    Args:
        source: a run folder or a package. temporary: an empty folder for the files.
        registry: the catalogue; loaded if not given. sign: signs the package; see `zoo.hub.signature`.
        options: for a run, as in `zoo.hub.pack.package`.
    Raises:
        PackageError: symbolic links, damage, a leak, weights that are not finite or do not fit, or a signature of
            other files.
        InputError: neither a run nor a package, or a package that lacks what `options` ask for.
        RunError, DataError: as `zoo.hub.pack.package`.
    """
    registry = registry or load_registry()
    edits: list[str] = []
    if (source / SUMS).exists():
        _refuse_links(source)
        package = copy_with_repo(source, temporary / "sent", ref.repo, registry)
        refuse_other_type(source, package.config.stored or "fp32", options.get("precision"))
        _refuse_other_licence(source, options.get("licence"))
        edits = edited(source, read_sums(source / SUMS))
        if options.get("onnx") and ONNX not in package.hashes:
            raise InputError(f"{source}: is a package without {ONNX}; make it again with `zoo package RUN --onnx`")
        check_finite(source / WEIGHTS, read_weights(package.folder))
        if not sign:
            _refuse_outdated_signature(source, package.folder)
    elif (source / RECORD).is_file():
        _refuse_links(source)
        package = make_package(source, temporary / "sent", repo=ref.repo, registry=registry, **options)
    else:
        raise InputError(f"{source}: is neither a run folder nor a package")
    if sign:
        sign(package.folder)
    return _plan(package)._replace(edited=tuple(edits))


def _refuse_other_licence(source: Path, asked: str | None) -> None:
    """Refuse another licence for a package that is made already.

    Raises:
        InputError: says what makes another package.
    """
    stated = stated_licence(source)
    if asked not in (None, stated):
        raise InputError(
            f"--licence {asked}: {source} is a package already, with {stated or 'no'} as its licence; make "
            f"another package of it: zoo package {quote(str(source))} --output DIR --licence {asked}"
        )


def _refuse_outdated_signature(source: Path, sent: Path) -> None:
    """Refuse to send the signature of a package whose card is another one now.

    Raises:
        PackageError: says what to do.
    """
    if (sent / SIGNATURE).is_file() and sha256_of(source / SUMS) != sha256_of(sent / SUMS):
        raise PackageError(
            f"{source / SIGNATURE}: does not sign the package as it is sent (its card was edited, or names this "
            f"repository only now); sign it again with --sign, or delete {SIGNATURE}"
        )


def _plan(package: Package) -> Plan:
    folder, record, short = package.folder, package.record, package.sums_sha256[:8]
    test = read_result(folder)["test"]
    figure = headline(test)
    score = figure.of(test)
    spec = re.sub(r"[^a-z0-9]", "-", record.data.spec.partition("?")[0].lower()).strip("-")  # as revisions are named
    tag = f"{spec[-40:].strip('-') or 'data'}-{record.protocol}-{score * 100:.2f}-s{record.seed}-{short}"
    title = f"{record.model} on {record.data.spec}: test {figure.name} {score:.2%} [{short}]"
    files = tuple((name, (folder / name).stat().st_size) for name in complete(folder))
    return Plan(package, files, tag, title)


def shown(plan: Plan, ref: Ref) -> Planned:
    """What a plan would send, without its temporary files."""
    files = Table([{"name": name, "bytes": size} for name, size in plan.files], ("name", "bytes"))
    card = plan.package.folder / CARD  # a package need not have one
    text = card.read_text("utf-8") if card.is_file() else ""
    return Planned(ref.repo, plan.tag, plan.title, files, text, ref.revision, plan.edited)


def check_token() -> None:
    """Refuse to publish without a token.

    Raises:
        HubLoginError: there is none.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise HubLoginError("publishing needs a Hub token; run `hf auth login`, or set HF_TOKEN")


def publish(
    plan: Plan, ref: Ref, *, private: bool = False, create_pr: bool = False, replace_edits: bool = False
) -> Published:
    """Send a plan as one commit, check that it arrived, and tag it.

    Args:
        replace_edits: replace the card or a picture in the repository although somebody edited it there.
    Raises:
        HubError: or one of its subclasses. The repository is then as it was before: one that was created
        for this commit is deleted, as far as the Hub can be reached.
    """
    check_token()
    api = hub_api()
    with talking(ref.repo) as session:
        absent = not create_pr and _is_absent(api, ref)
        try:
            if not create_pr:
                _ensure_repo(api, ref, private, session, absent)
            head = ask(Ref(ref.repo, ref.revision))
            if not (create_pr or replace_edits):
                _refuse_edits(plan, ref, head, session)
            # Uploads may use Xet's client, which has no time limit: only a separate thread can be abandoned.
            commit, url = within(session, lambda: _commit(api, plan, ref, create_pr, session, head))
        except BaseException as error:  # a signal as well: nothing may be left of a publication that failed
            if absent and not isinstance(error, HubConflictError):
                _remove(api, ref)
            raise
        if create_pr:
            return Published(ref.repo, commit, "", url)
        try:
            retrying(lambda: api.create_tag(ref.repo, tag=plan.tag, revision=commit, exist_ok=True))
        except Exception as error:
            kind = type(error) if isinstance(error, HubError) else type(explain(error, ref.repo))
            raise kind(
                f"{ref.repo}: was published as commit {commit[:12]}, but the tag {plan.tag} could not be set; "
                "publish again to set it (no file is sent twice)"
            ) from error
    return Published(ref.repo, commit, plan.tag, url)


def _refuse_links(folder: Path) -> None:
    for name in ALL:
        path = folder / name
        if path.is_symlink() or (path.parent != folder and path.parent.is_symlink()):
            raise PackageError(f"{folder / name}: is a symbolic link; only plain files are sent")


def _is_absent(api: HfApi, ref: Ref) -> bool:
    """Whether there is no such repository, as far as the Hub says."""
    from huggingface_hub.errors import GatedRepoError

    try:
        _head(api, ref)
    except Exception as error:
        # The Hub answers 401 for a missing repository and for a refused token; creating it tells which.
        if status_of(error) not in (401, 404) or isinstance(error, GatedRepoError):
            raise
        return True
    return False


def _ensure_repo(api: HfApi, ref: Ref, private: bool, session: Session, absent: bool) -> None:
    """Create the repository if it is absent, and the branch if it does not exist."""
    if absent:
        try:
            retrying(lambda: api.create_repo(ref.repo, private=private, exist_ok=True))
        except Exception as error:
            session.progress()  # the failed request must not end the next one
            if not (is_transient(error) or isinstance(error, HubConnectionError)) or not _exists(api, ref):
                raise
    if ref.revision and ref.revision != "main":
        branch = ref.revision
        retrying(lambda: api.create_branch(ref.repo, branch=branch, exist_ok=True))


def _refuse_edits(plan: Plan, ref: Ref, head: Manifest, session: Session) -> None:
    """Refuse to replace a card or a picture that is not what a package put there.

    Raises:
        HubConflictError: names the files, and how to go on.
    """
    replaced = [
        name
        for name, size in plan.files
        if name in FOR_PEOPLE and name in head.files and not _is_same(plan, name, size, head.files[name])
    ]
    if not replaced:
        return
    listed: dict[str, str] = {}
    if SUMS in head.files:
        with contextlib.suppress(PackageError):  # not a list of ours: nothing there was made by us
            listed = read_sums(fetch_file(SUMS, head, session))
    theirs = [name for name in replaced if _is_edited(name, head, listed, session)]
    if theirs:
        raise HubConflictError(
            f"{ref.repo}: somebody edited {' and '.join(theirs)} there, and publishing would replace the edit; "
            "see the difference in a pull request (--create-pr), or replace it (--replace-edits)"
        )


def _is_edited(name: str, head: Manifest, listed: Mapping[str, str], session: Session) -> bool:
    """Whether a file in a commit is somebody's work, and not what the package there was made with."""
    digest = head.files[name].sha256 or sha256_of(fetch_file(name, head, session))
    if digest == listed.get(name):
        return False
    if name != CARD or name in listed:
        return True
    text = fetch_file(name, head, session).read_text("utf-8", errors="replace")
    return bool(re.sub(r"\A---\n.*?\n---\s*", "", text, flags=re.DOTALL).strip())  # more than a licence


def _head(api: HfApi, ref: Ref) -> ModelInfo:
    """What the Hub says of the head of a repository's default branch."""
    return retrying(lambda: api.model_info(ref.repo, timeout=10))


def _exists(api: HfApi, ref: Ref) -> bool:
    """Whether a repository was created although every response to the request was lost."""
    try:
        _head(api, ref)
    except Exception:
        return False
    return True


def _remove(api: HfApi, ref: Ref) -> None:
    """Delete the empty repository that was created for a commit that failed."""
    try:
        head = _head(api, ref)
        if {s.rfilename for s in head.siblings or []} <= {".gitattributes"}:
            retrying(lambda: api.delete_repo(ref.repo, missing_ok=True))
    except Exception:
        return  # the user sees the error of the commit, which matters more


def _commit(api: HfApi, plan: Plan, ref: Ref, create_pr: bool, session: Session, parent: Manifest) -> tuple[str, str]:
    """Commit on top of `parent`; if the response is lost, look at the head to see whether the commit was made."""
    start = time.monotonic()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            response = api.create_commit(
                ref.repo,
                list(_operations(plan, parent)),
                commit_message=plan.title,
                revision=ref.revision,
                parent_commit=parent.commit,
                create_pr=create_pr,
            )
            if create_pr:
                return str(response.oid), str(response.pr_url or response.commit_url)
            commit = _check_arrived(plan, _manifest_of(ref, response.oid), ref)
            return commit, f"{api.endpoint}/{ref.repo}/commit/{commit}"
        except Exception as error:
            status = status_of(error)
            is_final = isinstance(error, ZooError) and not isinstance(error, HubConnectionError)
            if create_pr or is_final or status in REFUSALS:
                raise
            session.progress()  # the failed request must not end the next one
            head = ask(Ref(ref.repo, ref.revision))
            if _same(plan, head):
                return head.commit, f"{api.endpoint}/{ref.repo}/commit/{head.commit}"
            if head.commit != parent.commit:
                raise HubConflictError(
                    f"{ref.repo}: somebody else made commit {head.commit[:12]} in the meantime; "
                    "look at it, then publish again"
                ) from error
            if attempt == MAX_ATTEMPTS or status in (409, 412) or time.monotonic() - start > MAX_SECONDS:
                raise
    raise AssertionError("unreachable")


def _manifest_of(ref: Ref, commit: str) -> Manifest:
    """The manifest of the commit that a response names, or of the head if the name is damaged in transit."""
    try:
        return ask(Ref(ref.repo, commit))
    except Exception as error:
        if status_of(error) != 404:
            raise
        return ask(Ref(ref.repo, ref.revision))


def _operations(plan: Plan, parent: Manifest) -> Iterator[CommitOperationAdd | CommitOperationDelete]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    for name, _ in plan.files:
        yield CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(plan.package.folder / name))
    for name in _outdated(plan, parent):
        yield CommitOperationDelete(path_in_repo=name, is_folder=False)


def _outdated(plan: Plan, manifest: Manifest) -> list[str]:
    """Files of an earlier package in a commit that the plan's package does not have: its signature, for example."""
    sent = {name for name, _ in plan.files}
    return [name for name in manifest.files if name not in sent and name not in FOR_PEOPLE]


def _same(plan: Plan, manifest: Manifest) -> bool:
    """Whether the package in a commit has exactly the plan's files."""
    if _outdated(plan, manifest):
        return False
    return all(name in manifest.files and _is_same(plan, name, size, manifest.files[name]) for name, size in plan.files)


def _is_same(plan: Plan, name: str, size: int, digest: Digest) -> bool:
    """Whether a file in a commit is exactly the plan's."""
    if digest.size != size:
        return False
    if digest.sha256:
        own = {**plan.package.hashes, SUMS: plan.package.sums_sha256}
        return digest.sha256 == (own[name] if name in own else sha256_of(plan.package.folder / name))
    return digest.git == git_name(plan.package.folder / name)


def _check_arrived(plan: Plan, manifest: Manifest, ref: Ref) -> str:
    """The commit, after its files were compared with the plan's."""
    if not _same(plan, manifest) or not COMMIT.fullmatch(manifest.commit):
        raise HubError(
            f"{ref.repo}: the files of commit {manifest.commit[:12]} are not the ones that were sent; do not use it"
        )
    return manifest.commit
