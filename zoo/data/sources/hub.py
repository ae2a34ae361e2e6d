"""`hf:OWNER/NAME[@REVISION]`: a dataset of the Hugging Face Hub, through its parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.base.text import first_line
from zoo.data.sources.parquet import TEST_NAMES, ParquetSource, pick_splits
from zoo.data.sources.source import Opened, Request
from zoo.errors import DataError, InputError

CONVERTED = "refs/convert/parquet"
"""Where the Hub keeps parquet files that it made of a dataset in another format."""


@dataclass(frozen=True)
class HubSource:
    """Parquet files of a Hub dataset at one commit.

    Attributes:
        sha: the commit, so that a cache entry belongs to it for ever.
        files: all parquet files there, as paths in the repository.
        local: the downloaded snapshot, where the Hub could not be reached.
    """

    repo: str
    sha: str
    files: tuple[str, ...]
    cache: str | None
    options: dict[str, Any]
    local: Path | None = None

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
        return _online(repo, revision, cache, request) or _offline(repo, revision, cache, request)

    def identity(self) -> dict[str, Any]:
        """Repository, commit and options."""
        return {"scheme": "hf", "repo": self.repo, "sha": self.sha, "options": self.options}

    def open(self) -> Opened:
        """Download the files of both splits and read them."""
        train, test = pick_splits(
            self.files, self.options.get("train"), self.options.get("test"), f"hf:{self.repo}"
        )
        paths = [str(self._fetched(name)) for name in (*train, *test)]
        options = self.options | {"train": None, "test": None}
        chosen = ParquetSource(
            tuple(map(Path, paths[: len(train)])),
            tuple(map(Path, paths[len(train) :])),
            options.get("image"),
            options.get("label"),
        )
        return chosen.open()

    def _fetched(self, name: str) -> Path:
        if self.local is not None:
            return self.local / name
        import huggingface_hub

        try:
            path = huggingface_hub.hf_hub_download(
                self.repo, name, repo_type="dataset", revision=self.sha, cache_dir=self.cache
            )
        except Exception as error:  # the client raises its own, its transport's and the system's
            raise DataError(_unreachable(self.repo, self.cache, error)) from error
        return Path(path)


def _chosen(files: list[str], options: dict[str, Any], repo: str) -> tuple[str, ...]:
    """Parquet files; of one configuration (their folder) where there are several."""
    wanted = options.get("config")
    parquet_files = [
        f for f in files if f.endswith(".parquet") and (not wanted or f.startswith(f"{wanted}/"))
    ]
    folders = sorted({f.split("/")[0] for f in parquet_files if "/" in f})
    if not wanted and len(folders) > 1 and not {"train", *TEST_NAMES} & set(folders):
        raise InputError(
            f"hf:{repo} has several configurations: {', '.join(folders)}; choose by ?config=NAME"
        )
    return tuple(parquet_files)


def _online(repo: str, revision: str, cache: str | None, request: Request) -> HubSource | None:
    import huggingface_hub as hub
    from huggingface_hub import errors

    api = hub.HfApi()
    try:
        for candidate in (revision or None, None if revision else CONVERTED):
            info = api.dataset_info(repo, revision=candidate)
            files = _chosen([s.rfilename for s in info.siblings or []], request.options, repo)
            if files:
                return HubSource(repo, str(info.sha), files, cache, request.options)
            if revision:
                break
    except errors.GatedRepoError:
        raise InputError(f"hf:{repo} is gated; accept its terms on the Hub, then `hf auth login`") from None
    except errors.RevisionNotFoundError:
        if revision:
            raise InputError(f"hf:{repo} has no revision {revision!r}") from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"no dataset {repo!r} on the Hub (or it is private: `hf auth login`)") from None
    except InputError:
        raise
    except Exception:  # no network, in any of the client's forms
        return None
    raise InputError(f"hf:{repo} holds no parquet files; it cannot be read")


def _offline(repo: str, revision: str, cache: str | None, request: Request) -> HubSource:
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
            )
        )
        parquet_files = [p.relative_to(folder).as_posix() for p in folder.rglob("*.parquet")]
    except Exception as error:  # as above
        raise DataError(_unreachable(repo, cache, error)) from error
    files = _chosen(parquet_files, request.options, repo)
    if not files:
        raise DataError(_unreachable(repo, cache, FileNotFoundError("no parquet files downloaded")))
    return HubSource(repo, folder.name, files, cache, request.options, folder)


def _unreachable(repo: str, cache: str | None, error: Exception) -> str:
    from huggingface_hub import constants

    place = cache or constants.HF_HUB_CACHE
    reason = first_line(error, 160)
    return (
        f"hf:{repo} is not in {place} and cannot be downloaded ({reason}); "
        "connect to the network, or use `--dataset digits`, which needs none"
    )
