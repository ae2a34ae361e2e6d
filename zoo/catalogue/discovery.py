"""Discovery: every distribution with entry points of the group `zoo`, each plugin looked at on its own.

Ours are imported here. A stranger's is imported in a process of its own (where the system can fork), so
that it can neither end, hang or change the process that lists, nor write to its terminal. What must be
known before that import stands in metadata: the contract's version that a plugin needs is the entry
point of its name in the group `zoo.api`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from typing import Any

import msgspec

from zoo.base.install import upgrade_line
from zoo.catalogue.isolation import inspect
from zoo.catalogue.plugins import GROUP, OURS, Found, PluginRecord, Selection, leave_out, load, record
from zoo.plugin.hooks import API_VERSION

API_GROUP = "zoo.api"


def discover(chosen: Selection) -> tuple[PluginRecord, ...]:
    """Look at every entry point of the group, ours first, then by name."""
    entries = sorted(installed(), key=lambda f: (f.distribution != OURS, f.name, f.distribution, f.value))
    records = {i: _refused(f, entries, chosen) for i, f in enumerate(entries)}
    strangers = [i for i, f in enumerate(entries) if records[i] is None and f.distribution != OURS]
    looked = inspect([entries[i] for i in strangers])
    records |= dict(zip(strangers, looked, strict=True))
    return tuple(records[i] or load(f) for i, f in enumerate(entries))


def _refused(one: Found, everything: Sequence[Found], chosen: Selection) -> PluginRecord | None:
    """The record of a plugin that is not to be imported; None where it is."""
    if one.distribution == OURS:
        return None
    refusal = chosen.refusal(one.name, one.distribution)
    if refusal:
        return record(one, status="disabled", reason=refusal)
    reason, fix = _objection(one, everything)
    return record(one, status="failed", reason=reason, fix=fix or leave_out(one)) if reason else None


def _objection(one: Found, everything: Sequence[Found]) -> tuple[str, str]:
    """Why a plugin cannot be imported, and what to do; ("", "") where it can."""
    who = f"{one.distribution} {one.version}"
    if one.problem:
        return one.problem, f"reinstall it: pip install --force-reinstall {one.distribution}"
    if any(o.distribution == OURS and o.name == one.name for o in everything):
        reason = f"its entry point {one.name!r} ({who}) has the name of a built-in plugin"
        return reason, f"its author must rename it; {leave_out(one)}"
    rivals = {f"{o.distribution} {o.version}" for o in everything if o.package == one.package}
    if len(rivals) > 1:
        shared = " and ".join(sorted(rivals))
        return f"the package {one.package} belongs to both {shared}: one overwrote the other", (
            "uninstall both, then install one of them"
        )
    return _api_objection(one.api)


def _api_objection(api: str) -> tuple[str, str]:
    if not api:
        return "", ""
    match = re.fullmatch(r"v?([0-9]{1,6})", api)
    if match is None:
        return f"declares {api!r} in the group {API_GROUP}; expected v{API_VERSION}", ""
    if int(match[1]) > API_VERSION:
        reason = f"needs version {match[1]} of the plugin contract, this hybrid-zoo has {API_VERSION}"
        return reason, f"upgrade: {upgrade_line()}"
    return "", ""


# ---- installed distributions ------------------------------------------------------------------


def installed() -> list[Found]:
    """Every entry point of the group, of the first of each distribution on `sys.path`."""
    by_distribution: dict[str, list[Found]] = {}
    places: dict[str, list[tuple[str, str]]] = {}
    for distribution in distributions():
        entries = list(_entries(distribution))
        if not entries:
            continue
        key = re.sub(r"[-_.]+", "-", entries[0].distribution).lower()
        place = (entries[0].version, str(_folder(distribution)))
        if place not in places.setdefault(key, []):
            places[key].append(place)
            by_distribution.setdefault(key, entries)
    return [_with_doubles(entry, places[key]) for key, entries in by_distribution.items() for entry in entries]


def _with_doubles(entry: Found, places: list[tuple[str, str]]) -> Found:
    if len(places) == 1 or entry.distribution == OURS:
        return entry
    shown = " and ".join(f"{version} in {os.path.dirname(folder)}" for version, folder in places)
    warning = f"is installed more than once: {shown}; {entry.version} is used; uninstall the other"
    return msgspec.structs.replace(entry, warnings=(warning,))


def _entries(distribution: Distribution) -> Iterator[Found]:
    """The entry points of one distribution; one whose metadata is damaged is named if it may be a plugin.

    The metadata of a distribution that offers no plugin are not read: there may be hundreds.
    """
    try:
        entries = list(distribution.entry_points)
    except Exception as error:
        name, version = _named(distribution)
        if name.lower().startswith("zoo"):
            problem = f"its entry_points.txt cannot be read: {type(error).__name__}"
            entry = name.lower().removeprefix("zoo-")
            yield Found(name=entry, value="", distribution=name, version=version, problem=problem)
        return
    apis = {e.name: e.value for e in entries if e.group == API_GROUP}
    plugins = Counter((e.name, e.value) for e in entries if e.group == GROUP)
    if not plugins:
        return
    name, version = _named(distribution)
    source = installed_from(distribution) if name != OURS else ""
    for entry, value in plugins:
        problem = "" if re.fullmatch(r"[\w.]+\s*(:\s*[\w.]+)?", value) else f"{value!r} is not a module"
        yield Found(
            name=entry,
            value=value,
            distribution=name,
            version=version,
            api=apis.get(entry, ""),
            source=source,
            problem=problem,
        )


def _named(distribution: Distribution) -> tuple[str, str]:
    """Name and version, from the metadata or, where those are damaged, from the folder's name."""
    folder = os.path.basename(str(_folder(distribution))).removesuffix(".dist-info").removesuffix(".egg-info")
    name, _, version = folder.partition("-")
    try:
        metadata = distribution.metadata
        return metadata["Name"] or name.replace("_", "-"), metadata["Version"] or version or "0"
    except Exception:
        return name.replace("_", "-"), version or "0"


def _folder(distribution: Distribution) -> Any:
    return getattr(distribution, "_path", "")


def installed_from(distribution: Distribution) -> str:
    """Where a distribution came from, by its direct_url.json; "" where it came from an index.

    A folder's or a file's path stays out: run records are published, and paths name people.

    Returns:
        "git+https://host/owner/name@COMMIT", "git@COMMIT" (of a local repository), "editable folder",
        "folder", or the URL of an archive.
    Source:
        PEP 610; the packaging specification "Recording the Direct URL Origin".
    """
    try:
        direct = msgspec.json.decode(distribution.read_text("direct_url.json") or "null")
        if not isinstance(direct, dict):
            return ""
        url, vcs = str(direct.get("url", "")), direct.get("vcs_info")
        if isinstance(vcs, dict):
            commit = f"@{str(vcs.get('commit_id', ''))[:40]}".rstrip("@")
            return f"{vcs.get('vcs', 'vcs')}{_public(url)}{commit}"
        if "dir_info" in direct:
            return "editable folder" if (direct["dir_info"] or {}).get("editable") else "folder"
        return _public(url).lstrip("+")
    except (OSError, ValueError, AttributeError, TypeError):
        return ""


def _public(url: str) -> str:
    """ "+URL" without user and password; "" for a file's."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return ""
    return f"+{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
