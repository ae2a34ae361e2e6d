"""Pages that stand alone: the hashes by which a Content-Security-Policy allows their own code alone."""

from __future__ import annotations

import base64
import hashlib


def allowed(code: str) -> str:
    """The source expression of a script or style as it stands in the page (CSP level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
