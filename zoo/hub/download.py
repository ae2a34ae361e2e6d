"""Fetching a package: the files of one commit, each with the hash that the Hub names before any is parsed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from zoo.base.files import write_bytes
from zoo.base.paths import cache_dir
from zoo.base.structs import Struct
from zoo.base.version import __version__
from zoo.catalogue.registry import Registry, load_registry
from zoo.errors import HubConnectionError, HubError, PackageError, ZooError
from zoo.hub.hub_hash import Digest, matches
from zoo.hub.package import Package, most_weights_bytes, open_package, read_config, read_package
from zoo.hub.ref import COMMIT, Ref, is_ref, parse_ref
from zoo.hub.session import LIBRARY, Session, hub_api, is_offline, is_transient, retrying, talking, within
from zoo.hub.sums import CONFIG, NAMES, NEEDED, SUMS, check_sums, limit_of
from zoo.runs.record import WEIGHTS
from zoo.runs.which import folder_of_run

if TYPE_CHECKING:
    from zoo.evaluate.classifier import Classifier


class Manifest(Struct, frozen=True, kw_only=True):
    """What the Hub states about one commit."""

    repo: str
    commit: str
    files: dict[str, Digest]


class Fetched(NamedTuple):
    """A package in the cache that was checked."""

    ref: Ref
    commit: str
    package: Package

    @property
    def folder(self) -> Path:
        """The folder of its files in the cache."""
        return self.package.folder

    @property
    def pinned(self) -> str:
        """The reference that always names exactly these files."""
        return f"hf://{self.ref.repo}@{self.commit}"


def local_folder(run: str | Path, *, registry: Registry | None = None) -> Path:
    """The folder of a RUN, as `zoo.runs.which` finds it, or the download of `hf://OWNER/NAME[@REVISION]`.

    A package is checked first.

    Args:
        registry: the catalogue; loaded if not given and needed.
    """
    if isinstance(run, str) and is_ref(run):
        return fetch(parse_ref(run), registry=registry).folder
    folder = folder_of_run(run)
    if (folder / SUMS).is_file():
        open_package(folder, registry=registry or load_registry())
    return folder


def load(run: str | Path) -> Classifier:
    """The trained model of a run folder, of a package, or of `hf://OWNER/NAME[@REVISION]`.

    Args:
        run: one of these, the name of a run below runs/, or "last" for the newest one there.
    Returns:
        A classifier on the CPU: `predict` takes images, a call takes the floats that its torch module takes
        (`module`), and `to` brings it to another device.
    Raises:
        InputError: no such run. RunError: damaged, from a newer version, or weights that do not fit.
        PackageError, HubError: a package that is damaged, or cannot be had.
    Warns:
        OtherVersionWarning: a plugin that the run was made with has another version here.
    """
    from zoo.evaluate.classifier import open_classifier

    registry = load_registry()
    return open_classifier(local_folder(run, registry=registry), registry)


def fetch(ref: Ref, *, everything: bool = False, registry: Registry | None = None) -> Fetched:
    """Fetch a package into the Hub's cache, and check it to the header of its weights.

    The revision is resolved once; all files come from that commit. A damaged file in the cache is
    fetched again, once. With `HF_HUB_OFFLINE` (or for a commit that is in the cache) no request is made.

    Args:
        everything: also the card, the pictures and the metrics. registry: the catalogue; loaded if not given.
    Raises:
        HubError: or one of its subclasses. PackageError: the files do not have the hashes that the Hub names,
        or are not a package that can be used. MissingPluginError: it needs a plugin that is not installed.
    """
    registry = registry or load_registry()
    with talking(str(ref)) as session:
        manifest = _manifest(ref)
        try:
            package = _fetch_files(ref, manifest, session, everything, registry)
        except PackageError:
            _forget_manifest(ref, manifest)
            raise
    return Fetched(ref, manifest.commit, package)


def _fetch_files(ref: Ref, manifest: Manifest, session: Session, everything: bool, registry: Registry) -> Package:
    """Fetch the files of a commit, hash each and check the package."""
    names = [n for n in (SUMS, *NAMES) if n in manifest.files and (everything or n in (SUMS, *NEEDED))]
    for name in (SUMS, *NEEDED):
        if name not in manifest.files:
            raise PackageError(f"{ref}: is not a package of hybrid-zoo, because it has no {name}")
    _check_sizes(ref, manifest, names)
    folder, known = Path(), {}
    for name in sorted(names, key=lambda n: manifest.files[n].size):
        if name == WEIGHTS:  # usually the largest and last, and its largest possible size is known by then
            _check_weights_size(ref, manifest, fetch_file(CONFIG, manifest, session).parent, registry)
        folder = fetch_file(name, manifest, session).parent
        if digest := manifest.files[name].sha256:
            known[name] = digest  # fetch_file has just compared it
    # The Hub's list of files may be damaged in transit as well: no file that SHA256SUMS lists may be missing.
    return read_package(folder, check_sums(folder, partial=not everything, known=known), registry)


# ---- one commit -------------------------------------------------------------------------------


def _manifest(ref: Ref) -> Manifest:
    offline = is_offline()
    cached = _cached(ref)
    if cached is not None and (offline or COMMIT.fullmatch(ref.revision or "")):
        return cached
    if offline:
        raise HubConnectionError(
            f"{ref} is not in the cache, and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE to fetch it"
        )
    try:
        manifest = ask(ref)
    except Exception as error:
        if cached is not None and is_transient(error):
            raise HubConnectionError(
                f"{ref}: the Hub cannot be reached; set HF_HUB_OFFLINE=1 to use what was fetched before"
            ) from error
        raise
    _cache(ref, manifest)
    return manifest


def ask(ref: Ref) -> Manifest:
    """Ask the Hub for a revision's commit, and for the size and hash of each of its files."""
    api = hub_api()
    info = retrying(lambda: api.model_info(ref.repo, revision=ref.revision, files_metadata=True, timeout=10))
    if not COMMIT.fullmatch(str(info.sha)):
        raise HubError(f"{ref}: the Hub's response names no commit")
    files = {}
    for sibling in info.siblings or []:
        if sibling.rfilename in (SUMS, *NAMES):
            files[sibling.rfilename] = _digest(ref, sibling)
    return Manifest(repo=ref.repo, commit=str(info.sha), files=files)


def _digest(ref: Ref, sibling: Any) -> Digest:
    size, lfs = sibling.size, sibling.lfs
    sha256 = lfs.sha256 if lfs is not None else None
    if not isinstance(size, int) or size < 0 or not (sha256 or sibling.blob_id):
        raise HubError(f"{ref}: the Hub's response lacks the size or the hash of {sibling.rfilename}")
    return Digest(size=lfs.size if lfs is not None else size, sha256=sha256, git=None if sha256 else sibling.blob_id)


def _place(repo: str, revision: str | None) -> Path:
    """The file in which the manifest of a revision is cached."""
    digest = hashlib.sha256((revision or "").encode()).hexdigest()[:32]
    name = revision if COMMIT.fullmatch(revision or "") else f"ref-{digest}"
    return cache_dir() / "hub" / repo.replace("/", "--") / f"{name}.json"


def _cached(ref: Ref) -> Manifest | None:
    """The manifest of a revision from the cache, if it is there and undamaged."""
    try:
        manifest = msgspec.json.decode(_place(ref.repo, ref.revision).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return manifest if manifest.repo == ref.repo and COMMIT.fullmatch(manifest.commit) else None


def _cache(ref: Ref, manifest: Manifest) -> None:
    for revision in (manifest.commit, ref.revision):
        with contextlib.suppress(ZooError, OSError):  # a cache that cannot be written only costs time
            write_bytes(_place(ref.repo, revision), msgspec.json.encode(manifest))


def _forget_manifest(ref: Ref, manifest: Manifest) -> None:
    """Delete the cached manifest of a package that was refused: the manifest may be what is damaged."""
    if is_offline():
        return
    for revision in (manifest.commit, ref.revision):
        with contextlib.suppress(OSError):
            _place(ref.repo, revision).unlink()


def _check_sizes(ref: Ref, manifest: Manifest, names: Iterable[str]) -> None:
    for name in names:
        if manifest.files[name].size > limit_of(name):
            raise PackageError(
                f"{ref}: {name} has {manifest.files[name].size:,} bytes; at most {limit_of(name):,} are allowed"
            )


def _check_weights_size(ref: Ref, manifest: Manifest, folder: Path, registry: Registry) -> None:
    """Before weights are downloaded, check that they are not larger than the model in config.json can be."""
    most = most_weights_bytes(read_config(folder / CONFIG), registry, folder)
    if (size := manifest.files[WEIGHTS].size) > most:
        raise PackageError(f"{ref}: {WEIGHTS} has {size:,} bytes; its model takes at most {most:,}")


# ---- one file ---------------------------------------------------------------------------------


def fetch_file(name: str, manifest: Manifest, session: Session) -> Path:
    """One file from the cache or the Hub, with the right hash; a damaged one is fetched again, once."""
    digest, ref = manifest.files[name], f"hf://{manifest.repo}@{manifest.commit[:12]}"
    path = _download(name, manifest, session, force=False)
    if matches(path, digest):
        return path
    if is_offline():
        raise PackageError(
            f"{ref}: {name} is damaged in the cache, and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE to fetch it again"
        )
    print(f"{ref}: {name} does not have the hash that the Hub names; fetching it again", file=sys.stderr)
    _delete(path)
    path = _download(name, manifest, session, force=True)
    if not matches(path, digest):
        _delete(path)
        raise PackageError(
            f"{ref}: {name} was damaged in transit twice: it does not have the hash that the Hub names; it was deleted"
        )
    return path


def _download(name: str, manifest: Manifest, session: Session, *, force: bool) -> Path:
    from huggingface_hub import hf_hub_download

    offline = is_offline()

    def call() -> str:
        path = hf_hub_download(
            manifest.repo,
            name,
            revision=manifest.commit,
            force_download=force,
            local_files_only=offline,
            library_name=LIBRARY,
            library_version=__version__,
            tqdm_class=session.bar(),
        )
        return str(path)

    try:
        return Path(within(session, lambda: retrying(call)))
    except Exception as error:
        if offline and not isinstance(error, ZooError):
            raise HubConnectionError(
                f"hf://{manifest.repo}: {name} is not in the cache, and HF_HUB_OFFLINE is set; "
                "unset HF_HUB_OFFLINE to fetch it"
            ) from error
        raise


def _delete(path: Path) -> None:
    """Delete a damaged file from the cache, with every link that leads to it."""
    for _ in range(8):  # the link in a snapshot, the blob, and what several repositories may share
        with contextlib.suppress(OSError):
            target = path.parent / os.readlink(path) if path.is_symlink() else None
            path.unlink()
            if target is not None:
                path = target
                continue
        return
