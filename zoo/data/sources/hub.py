"""`hf:OWNER/NAME[@REVISION]`: a dataset of the Hugging Face Hub, through its parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from zoo.base.hub_settings import endpoint_note, of_this_machine
from zoo.base.quiet_imports import without_advice
from zoo.base.text import first_line
from zoo.base.version import __version__
from zoo.data.findings import Finding
from zoo.data.shards.remote import RemoteFile
from zoo.data.shards.shuffle import refuse_unstreamed
from zoo.data.sources.parquet import ParquetSource
from zoo.data.sources.parquet_columns import Place
from zoo.data.sources.parquet_files import Chosen, choose_files, unread_splits
from zoo.data.sources.parquet_shards import ParquetShards
from zoo.data.sources.source import Opened, Request, Source
from zoo.errors import AbsentDataError, DataError, InputError

US: Mapping[str, str] = MappingProxyType({"library_name": "hybrid-zoo", "library_version": __version__})
"""Our name in the user agent of every request."""

CONVERTED = "refs/convert/parquet"
"""Where the Hub keeps parquet files that it made of a dataset in another format."""


@dataclass(frozen=True)
class HubSource:
    """Parquet files of a Hub dataset at one commit.

    Attributes:
        sha: the commit, so that a cache entry belongs to it for ever.
        files: the parquet files of both splits, as paths in the repository.
        local: the downloaded snapshot, where the Hub could not be reached.
        seed, whole: as of `zoo.data.sources.parquet.ParquetSource`. sizes: bytes of the files, where the Hub said them.
    """

    repo: str
    sha: str
    files: Chosen
    cache: str | None
    options: dict[str, Any]
    local: Path | None = None
    seed: int = 0
    whole: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def make(cls, request: Request) -> HubSource:
        """Look the dataset up; without a network, use what was downloaded before.

        Raises:
            InputError: no such dataset or revision, or it has no parquet files.
            DataError: the Hub cannot be reached and nothing is there.
        """
        repo, _, revision = request.rest.partition("@")
        if repo.count("/") != 1 or not all(repo.split("/")):
            raise InputError(f"hf:{request.rest}: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
        cache = str(request.data_dir / "hub") if request.given else None
        try:
            made = _online(repo, revision, cache, request)
        except (InputError, DataError):
            raise
        except Exception as error:  # no network, in any of the client's forms
            made = _offline(repo, revision, cache, request, error)
        return replace(made, seed=request.seed, whole=request.whole)

    def identity(self) -> dict[str, Any]:
        """Repository, commit and options."""
        identity = {"scheme": "hf", "repo": self.repo, "sha": self.sha, "options": self.options}
        identity |= {"validation": held} if (held := self.files.validation) else {}
        return identity if self.files.test else identity | {"seed": "whole" if self.whole else self.seed}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the splits, a line each."""
        return self._parquet(self.files).notes

    def findings(self) -> tuple[Finding, ...]:
        """Splits of the repository that are not read."""
        return unread_splits(self.files.unread)

    def open(self) -> Opened:
        """Download the files of all splits and read them."""
        files = self.files
        parts = (files.train, files.validation, files.test)
        train, held, test = (tuple(str(self._fetched(name)) for name in part) for part in parts)
        return self._parquet(files._replace(train=train, validation=held, test=test)).open()

    def shards(self, request: Request) -> ParquetShards:
        """The source whose files stay on the Hub, for `?stream`."""
        with without_advice():
            import huggingface_hub as hub

        headers = hub.utils.build_hf_headers(**US)

        def at(name: str) -> Place:
            if self.local is not None:
                return self.local / name
            url = hub.hf_hub_url(self.repo, name, repo_type="dataset", revision=self.sha)
            file = RemoteFile(url, f"hf:{self.repo}/{name}", headers=headers, keeps=True)
            return replace(file, size=self.sizes.get(name, 0)) if self.sizes.get(name) else file.looked_at()

        return ParquetShards.of(replace(self._parquet(self.files), at=lru_cache(None)(at)), request, "hf")

    def _parquet(self, files: Chosen) -> ParquetSource:
        """The source of downloaded files."""
        return ParquetSource.of(files, self.options, self.seed, self.whole, f"hf:{self.repo}")

    def _fetched(self, name: str) -> Path:
        if self.local is not None:
            return self.local / name
        with without_advice():
            import huggingface_hub

        try:
            path = huggingface_hub.hf_hub_download(
                self.repo, name, repo_type="dataset", revision=self.sha, cache_dir=self.cache, **US
            )
        except Exception as error:  # the client raises its own, its transport's and the system's
            raise AbsentDataError(*_unreachable(self.repo, self.cache, error)) from error
        return Path(path)


def hub(request: Request) -> Source:
    """The source for `hf:OWNER/NAME`; with `?stream` its files stay on the Hub.

    Raises:
        InputError, DataError: as `HubSource.make` and `ParquetShards.of`.
    """
    refuse_unstreamed(request.options, f"hf:{request.rest}")
    made = HubSource.make(request)
    return made.shards(request) if request.options.get("stream") else made


def _chosen(files: list[str], request: Request, repo: str) -> Chosen | None:
    """The parquet files of both splits; None where there is no parquet file at all.

    Raises:
        InputError, DataError: as `zoo.data.sources.parquet_files.choose_files`.
    """
    parquet_files = [file for file in files if file.endswith(".parquet")]
    if not parquet_files:
        return None
    return choose_files(parquet_files, request.options, f"hf:{repo}", whole=request.whole, earlier=request.earlier)


def _online(repo: str, revision: str, cache: str | None, request: Request) -> HubSource:
    import huggingface_hub as hub
    from huggingface_hub import errors

    api = hub.HfApi(**US)
    try:
        for candidate in (revision or None, None if revision else CONVERTED):
            info = api.dataset_info(repo, revision=candidate, files_metadata=bool(request.options.get("stream")))
            files = _chosen([s.rfilename for s in info.siblings or []], request, repo)
            if files:
                sizes = {s.rfilename: s.size for s in info.siblings or [] if s.size}
                return HubSource(repo, str(info.sha), files, cache, request.options, sizes=sizes)
            if revision:
                break
    except errors.GatedRepoError:
        raise InputError(f"hf:{repo} is gated; accept its terms on the Hub, then `hf auth login`") from None
    except errors.RevisionNotFoundError:
        if revision:
            raise InputError(f"hf:{repo} has no revision {revision!r}") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"no dataset {repo!r} on the Hub (or it is private: `hf auth login`)") from None
    raise InputError(f"hf:{repo} holds no parquet files; it cannot be read")


def _offline(repo: str, revision: str, cache: str | None, request: Request, unreachable: Exception) -> HubSource:
    """What was downloaded before, where the Hub is `unreachable`."""
    import huggingface_hub as hub

    try:
        folder = Path(
            hub.snapshot_download(
                repo,
                repo_type="dataset",
                revision=revision or None,
                cache_dir=cache,
                local_files_only=True,
                allow_patterns=["*.parquet"],
                **US,
            )
        )
        parquet_files = [p.relative_to(folder).as_posix() for p in folder.rglob("*.parquet")]
    except Exception:  # there is no such download
        raise AbsentDataError(*_unreachable(repo, cache, unreachable)) from unreachable
    files = _chosen(parquet_files, request, repo)
    if not files:
        raise AbsentDataError(*_unreachable(repo, cache, unreachable)) from unreachable
    if not files.test and not request.whole:  # the others may be missing here only
        verb = "was" if len(files.splits) == 1 else "were"
        lone = FileNotFoundError(f"of its splits only {', '.join(files.splits)} {verb} downloaded before")
        raise AbsentDataError(*_unreachable(repo, cache, lone))
    return HubSource(repo, folder.name, files, cache, request.options, folder)


def _unreachable(repo: str, cache: str | None, error: Exception) -> tuple[str, str]:
    """What is wrong, and what to do instead."""
    from huggingface_hub import constants

    place = cache or constants.HF_HUB_CACHE
    if problem := of_this_machine(error, f"hf:{repo}"):
        return str(problem), ""
    reason = f"{first_line(error, 160)}{endpoint_note()}"
    return (
        f"hf:{repo} is not in {place} and cannot be downloaded ({reason}); connect to the network",
        "use `--dataset digits`, which needs none",
    )
