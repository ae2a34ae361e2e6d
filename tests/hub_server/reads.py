"""How often a file is read: each `open` of this process, and each time that all tensors are loaded from it.

In tests/: `python -m hub_server.reads REFERENCE` verifies a package of the Hub and prints the counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from zoo.runs.record import WEIGHTS


class Reads:
    """What was read, by path: an audit hook sees Python's own `open`, not that of the safetensors library."""

    def __init__(self) -> None:
        self.opened: list[Path] = []
        self.loaded: list[Path] = []
        self.active = True
        sys.addaudithook(self._event)  # for good: a hook cannot be taken away

    def _event(self, event: str, details: tuple[Any, ...]) -> None:
        if self.active and event == "open" and isinstance(details[0], str) and "r" in str(details[1]):
            self.opened.append(Path(details[0]))

    def weights_below(self, folder: Path) -> tuple[int, int]:
        """How often a weights file in `folder` was opened, and how often its tensors were loaded."""
        opened, loaded = (
            sum(1 for path in paths if path.name == WEIGHTS and path.is_relative_to(folder))
            for paths in (self.opened, self.loaded)
        )
        return opened, loaded


@contextmanager
def reads() -> Iterator[Reads]:
    """Count the reads of this process inside the block."""
    counted, load_file = Reads(), safetensors.torch.load_file

    def counting(path: Any, *args: Any, **options: Any) -> Any:
        counted.loaded.append(Path(path))
        return load_file(path, *args, **options)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(safetensors.torch, "load_file", counting)
            yield counted
    finally:
        counted.active = False


def main() -> None:
    """Verify a package of the Hub, and print how often its weights were opened and loaded."""
    from zoo.hub.verify import verify

    with reads() as counted:
        checks = verify(sys.argv[1])
    assert all(check.holds for check in checks), checks
    print(json.dumps(counted.weights_below(Path("/"))))


if __name__ == "__main__":
    main()
