"""The genuine client of this very process, led to a test Hub: it read its environment when it was imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from hub_server.server import HubServer


@contextmanager
def led_here(hub: HubServer, home: Path, token: str) -> Iterator[None]:
    """Let this process talk to `hub` with a token, and keep what it fetches below `home`."""
    values = {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "AGENT_HARNESSES_PATH": str(home / "harnesses.json"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hub.env(home, token).items():
            patch.setenv(name, value)
        for name, value in values.items():
            patch.setattr(constants, name, value)
        close_session()
        yield
        close_session()
