"""Small pictures of images, as they stand in a page."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.types import Images

MAX_SIDE = 96
PNG_BYTES = 1500


def data_uri(image: Images) -> str:
    """A small PNG or JPEG of an image, uint8 (3, H, W), as a data URI; its longer side is at most 96."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    if (image == image[:1]).all():
        picture = picture.convert("L")
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    kind, data = "png", _encoded(picture, "PNG", optimize=True)
    if len(data) > PNG_BYTES:
        kind, data = "jpeg", _encoded(picture, "JPEG", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
