"""All that `zoo doctor` looks at, in its order; one that fails is a finding, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from zoo.cli.doctor import folders, hub, libraries, machine, parts
from zoo.cli.doctor.finding import Area, Finding

Look = Callable[[], Iterable[Finding]]


def examine(root: Path = Path("runs"), *, patience: float = hub.PATIENCE) -> list[Finding]:
    """Look at everything.

    Args:
        root: the folder of runs. patience: seconds that the Hub may take to answer.
    Returns:
        The findings, area by area.
    """
    probe = machine.Probe()  # torch takes seconds to import: meanwhile the rest is looked at
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
        found = [finding for area, look in looks for finding in _guarded(area, look)]
        found[1:1] = _guarded("versions", probe.versions)
        return sorted([*found, *_guarded("devices", probe.devices)], key=lambda f: ORDER.index(f.area))
    finally:
        probe.stop()


ORDER: tuple[Area, ...] = ("versions", "devices", "settings", "folders", "plugins", "data", "hub", "runs")


def _guarded(area: Area, look: Look) -> Iterator[Finding]:
    """What a look finds; where it breaks itself, that is the finding."""
    try:
        yield from list(look())
    except Exception as error:
        what = f"could not be looked at: {type(error).__name__}: {error}"
        yield Finding(area, area, "warning", what, "report it with the output of zoo doctor --json")
