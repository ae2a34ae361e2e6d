"""All checks of `zoo doctor`, in order. A check that fails itself becomes a finding; the others continue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from zoo.cli.doctor import folders, hub, libraries, machine, parts
from zoo.cli.doctor.finding import Area, Finding

Look = Callable[[], Iterable[Finding]]


def examine(root: Path = Path("runs"), *, patience: float = hub.PATIENCE) -> list[Finding]:
    """Run all checks.

    Args:
        root: the folder of runs. patience: seconds to wait for an answer from the Hub.
    Returns:
        The findings, area by area.
    """
    probe = machine.Probe()  # torch takes seconds to import: the other checks run meanwhile
    try:
        looks: list[tuple[Area, Look]] = [
            ("versions", libraries.look),
            ("settings", libraries.settings),
            ("folders", folders.look),
            ("plugins", parts.plugins),
            ("data", parts.data),
            ("hub", partial(hub.look, patience=patience)),
            ("runs", partial(parts.runs, root)),
        ]
        findings = [finding for area, look in looks for finding in _guarded(area, look)]
        findings[1:1] = _guarded("versions", probe.versions)
        return sorted([*findings, *_guarded("devices", probe.devices)], key=lambda f: ORDER.index(f.area))
    finally:
        probe.stop()


ORDER: tuple[Area, ...] = ("versions", "devices", "settings", "folders", "plugins", "data", "hub", "runs")


def _guarded(area: Area, look: Look) -> Iterator[Finding]:
    """The findings of a check; if the check fails, its failure is the finding."""
    try:
        yield from list(look())
    except Exception as error:
        what = f"this check failed: {type(error).__name__}: {error}"
        yield Finding(area, area, "warning", what, "please report it with the output of zoo doctor --json")
