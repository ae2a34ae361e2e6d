"""Fetching a package: the files of one commit, each with the hash that the Hub names before any is parsed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from zoo.base.files import write_bytes
from zoo.base.paths import cache_dir
from zoo.base.reporter import callers
from zoo.base.structs import Struct
from zoo.base.version import __version__
from zoo.catalogue.registry import Registry, load_registry
from zoo.data.files.formats import ENDINGS
from zoo.errors import HubConnectionError, HubError, HubNotFoundError, InputError, PackageError, ZooError, ZooWarning
from zoo.hub.hub_hash import Digest, matches
from zoo.hub.package import Package, most_weights_bytes, open_package, read_config, read_package
from zoo.hub.ref import COMMIT, SCHEME, Ref, is_ref, parse_ref, with_revision
from zoo.hub.session import LIBRARY, Session, hub_api, is_offline, is_transient, retrying, talking, within
from zoo.hub.sums import ALL, CARD, CONFIG, FOR_PEOPLE, NEEDED, ONNX, SUMS, check_sums, limit_of
from zoo.runs.record import WEIGHTS
from zoo.runs.which import RUNS, folder_of_run, known, reference_of, unknown


class Manifest(Struct, frozen=True, kw_only=True):
    """What the Hub states about one commit."""

    repo: str
    commit: str
    files: dict[str, Digest]


class Fetched(NamedTuple):
    """A package in the cache that was checked.

    Attributes:
        edited: prose and pictures that were edited after the package was made, also those that were not fetched.
    """

    ref: Ref
    commit: str
    package: Package
    edited: tuple[str, ...]

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

    A package is checked first; weights of the catalogue (NAME@DATASET) are one.

    Args:
        registry: the catalogue; loaded if not given and needed.
    """
    if isinstance(run, str) and (reference := run if is_ref(run) else reference_of(run)):
        if is_ref(reference):
            return fetched_folder(parse_ref(reference), registry=registry)
        run = Path(reference)
    folder = folder_of_run(run)
    if (folder / SUMS).is_file():
        say_edits(folder, open_package(folder, registry=registry or load_registry()).edited)
    return folder


def fetched_folder(ref: Ref, *, registry: Registry | None = None) -> Path:
    """The folder of a package of the Hub that is about to be used; a warning says what was edited there."""
    fetched = fetch(ref, registry=registry)
    say_edits(ref, fetched.edited)
    return fetched.folder


def say_edits(where: Ref | Path, edited: Iterable[str]) -> None:
    """Warn, in one line, that prose or pictures of a package are not those that it was made with."""
    if names := list(edited):
        verb = "was" if len(names) == 1 else "were"
        line = f"{where}: {' and '.join(names)} {verb} edited after the package was made"
        warnings.warn(f"{line}; weights, config and results are unchanged", ZooWarning, stacklevel=callers())


def folder_to_load(run: str | Path, revision: str | None = None, *, registry: Registry) -> Path:
    """As `local_folder`, and OWNER/NAME without `hf://`, where the word means nothing on this machine.

    Args:
        revision: a branch, a tag or a commit of a repository on the Hub.
    Raises:
        InputError: no such run, and no name that a repository can have; or a revision of a folder.
        PackageError, HubError: a package that is damaged, or cannot be had; says that there is no such run either.
    """
    word = str(run)
    if isinstance(run, str) and is_ref(word):
        return fetched_folder(with_revision(word, revision, "revision"), registry=registry)
    if known(run) is not None or (isinstance(run, str) and reference_of(word)):
        return local_only(run, revision, registry)
    if not isinstance(run, str) or is_of_this_machine(word, registry):
        raise unknown(word)
    try:
        return fetched_folder(with_revision(word, revision, "revision"), registry=registry)
    except (HubNotFoundError, HubConnectionError) as error:
        raise type(error)(f"{error}; and {unknown(word)}") from error


def local_only(run: str | Path, revision: str | None, registry: Registry) -> Path:
    """A run or a package on this machine, which has no revisions.

    Raises:
        InputError: no such run, or a revision was given. PackageError: a damaged package.
    """
    if revision:
        raise InputError(
            f"{run}: is on this machine or in the catalogue, which has no revisions; write hf://OWNER/NAME"
        )
    return local_folder(run, registry=registry)


def elsewhere(word: str, *, weights: bool = False) -> str:
    """What a word that is no run means: itself, hf://OWNER/NAME for a package on the Hub, or "".

    Args:
        weights: whether the weights of a library, "timm/NAME" and the like, are meant by it.
    """
    registry = load_registry()
    if weights and registry.offers_weights(word):
        return word
    return "" if is_of_this_machine(word, registry) else f"{SCHEME}{word}"


def is_of_this_machine(word: str, registry: Registry) -> bool:
    """Whether a word that is no run cannot mean a repository: a path, an image, or a model of the catalogue."""
    try:
        repo = parse_ref(word).repo
    except InputError:
        return True
    if repo.partition("/")[0] == str(RUNS) or os.path.exists(word) or Path(word).suffix.lower() in ENDINGS:
        return True
    if registry.left_out(repo, only_its_own=True):
        return True
    try:
        registry.model(repo)
    except ZooError:
        return False
    return True


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
        if not everything:
            _fetch_card(manifest, session)
    return Fetched(ref, manifest.commit, package, tuple(_edited(package, manifest)))


def _fetch_files(ref: Ref, manifest: Manifest, session: Session, everything: bool, registry: Registry) -> Package:
    """Fetch the files of a commit, hash each and check the package."""
    names = [n for n in ALL if n in manifest.files and (everything or n in (SUMS, *NEEDED))]
    for name in (SUMS, *NEEDED):
        if name not in manifest.files:
            raise PackageError(f"{ref}: is not a package of hybrid-zoo, because it has no {name}")
    _check_sizes(ref, manifest, names)
    folder, known = Path(), {}
    for name in sorted(names, key=lambda n: manifest.files[n].size):
        if name in (WEIGHTS, ONNX):  # usually the largest and last, and their largest possible size is known by then
            _check_weights_size(ref, name, manifest, fetch_file(CONFIG, manifest, session).parent, registry)
        folder = fetch_file(name, manifest, session).parents[name.count("/")]
        if digest := manifest.files[name].sha256:
            known[name] = digest  # fetch_file has just compared it
    # The Hub's list of files may be damaged in transit as well: no file that SHA256SUMS lists may be missing.
    return read_package(folder, check_sums(folder, partial=not everything, known=known), registry)


def _fetch_card(manifest: Manifest, session: Session) -> None:
    """Fetch the card, so that an edit of it is seen; what was fetched by an earlier version may lack it offline."""
    if CARD in manifest.files and manifest.files[CARD].size <= limit_of(CARD):
        with contextlib.suppress(*([HubConnectionError] if is_offline() else [])):
            fetch_file(CARD, manifest, session)


def _edited(package: Package, manifest: Manifest) -> list[str]:
    """Files for people that are not those of the package: by their hash here, or by the one that the Hub names."""
    here = package.edited
    away = [name for name in FOR_PEOPLE if name in manifest.files and not (package.folder / name).is_file()]
    digests = {name: manifest.files[name].sha256 for name in away}
    return here + [name for name, sha256 in digests.items() if sha256 and sha256 != package.hashes.get(name)]


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
        if sibling.rfilename in ALL:
            files[sibling.rfilename] = digest_of(ref, sibling)
    return Manifest(repo=ref.repo, commit=str(info.sha), files=files)


def digest_of(ref: Ref, sibling: Any) -> Digest:
    """What the Hub's list of files states about one of them.

    Raises:
        HubError: its size or its hash is missing.
    """
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


def _check_weights_size(ref: Ref, name: str, manifest: Manifest, folder: Path, registry: Registry) -> None:
    """Before weights are downloaded, check that they are not larger than the model in config.json can be."""
    most = most_weights_bytes(read_config(folder / CONFIG), registry, folder)
    if (size := manifest.files[name].size) > most:
        raise PackageError(f"{ref}: {name} has {size:,} bytes; its model takes at most {most:,}")


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
    again = f"{ref}: {name} does not have the hash that the Hub names; fetching it again"
    warnings.warn(again, ZooWarning, stacklevel=callers())
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
