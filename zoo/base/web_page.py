"""Pages that stand alone: templates, and the hashes by which a Content-Security-Policy allows their own code alone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping


def filled(template: str, values: Mapping[str, str]) -> str:
    """Put values in the place of {{name}}, in one pass: what a value holds is not looked at again.

    Args:
        values: what replaces the names, as HTML.
    """
    parts = template.split("{{")
    return parts[0] + "".join(
        values[name] + rest for name, _, rest in (part.partition("}}") for part in parts[1:])
    )


def allowed(code: str) -> str:
    """The source expression of a script or style as it stands in the page (CSP level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
