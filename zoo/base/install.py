"""The command that installs or upgrades a distribution from where it came: an index, a folder or a repository.

What is only needed for such a message is imported then: every command imports this module.

Source:
    PEP 610; the packaging specification "Recording the Direct URL Origin".
"""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Any

OURS = "hybrid-zoo"


def install_line(*extras: str, of: str = OURS) -> str:
    """The `pip install` command for extras of a distribution that works where the distribution came from.

    Args:
        extras: names of extras; without any, the distribution itself. of: the distribution.
    """
    named = f"{of}[{','.join(extras)}]" if extras else of
    direct = _direct_url(of)
    url = str(direct.get("url", ""))
    if not url:
        return f"pip install {quote(named)}"
    folder = _local(url)
    if folder is not None and not folder.exists():
        return f"pip install {' '.join(map(quote, _libraries(of, extras))) or quote(named)}"
    if folder is not None and "dir_info" in direct:
        place = "." if folder.resolve() == Path.cwd() else str(folder)
        chosen = f"{place}[{','.join(extras)}]" if extras else place
        return f"pip install {'-e ' if _is_editable(direct) else ''}{quote(chosen)}"
    return f"pip install {quote(f'{named} @ {_with_revision(direct, url)}')}"


def upgrade_line(of: str = OURS) -> str:
    """The command that brings a newer version of a distribution from where it came from."""
    direct = _direct_url(of)
    folder = _local(str(direct.get("url", "")))
    if folder is not None:
        pulled = f"git -C {quote(str(folder))} pull && " if (folder / ".git").exists() else ""
        return pulled + install_line(of=of)
    return install_line(of=of).replace("pip install", "pip install -U", 1)


def _direct_url(of: str) -> dict[str, Any]:
    """What pip recorded of a distribution's origin; nothing where it came from an index, or is not installed."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        direct = json.loads(distribution(of).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, OSError, ValueError):
        return {}
    return direct if isinstance(direct, dict) else {}


def _local(url: str) -> Path | None:
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _is_editable(direct: dict[str, Any]) -> bool:
    info = direct.get("dir_info")
    return isinstance(info, dict) and bool(info.get("editable"))


def _with_revision(direct: dict[str, Any], url: str) -> str:
    """The address without user and password; of a repository, with the branch or tag that was asked for."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    vcs = direct.get("vcs_info")
    if not isinstance(vcs, dict):
        return plain
    revision = vcs.get("requested_revision")
    return f"{vcs.get('vcs', 'git')}+{plain}" + (f"@{revision}" if revision else "")


def _libraries(of: str, extras: tuple[str, ...]) -> list[str]:
    """The libraries of extras, which can be installed where the distribution's own source is gone."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import InvalidRequirement, Requirement

    try:
        needs = [Requirement(line) for line in requires(of) or ()]
    except (PackageNotFoundError, InvalidRequirement):
        return []
    marked = [need for need in needs if need.marker is not None and not need.marker.evaluate({"extra": ""})]
    mine = [need for need in marked if any(need.marker.evaluate({"extra": extra}) for extra in extras)]  # type: ignore[union-attr]
    return [f"{need.name}{need.specifier}" for need in mine if need.name != of]
