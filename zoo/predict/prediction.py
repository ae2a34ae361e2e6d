"""What is said of an image: its classes, and what led to the first one. Light to import: nothing here needs torch."""

from __future__ import annotations

import base64
import html
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from zoo.base.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zoo.evaluate.classifier import Score

Method = Literal["auto", "hires-cam", "grad-cam", "layer-integrated-gradients", "integrated-gradients", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)

THUMBNAIL = 96
"""Pixels of the longer side of an image in a notebook."""

NO_LABEL = "no class reaches its threshold"

BAR = 160
"""Pixels of a bar that stands for a probability of 1."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Where in an image a model saw the class that it named.

    Attributes:
        image: the name of the image, as of its `Prediction`.
        label: the class that is explained: the most probable one.
        method: how, such as "hires-cam". layer: the module whose output was looked at; "" for the image itself.
        saliency: float32 (H, W) at the model's size, from 0 to 1: how much each pixel spoke for the class.
        overlay: the bytes of a PNG: what the model saw, with the saliency over it.
        picture: where that PNG was written; None if it was not.
    """

    image: str
    label: str
    method: str
    layer: str
    saliency: NDArray[np.float32]
    overlay: bytes
    picture: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """What `zoo predict --explain --json` prints of it."""
        path = None if self.picture is None else str(self.picture)
        return {"picture": path, "class": self.label, "method": self.method, "layer": self.layer}

    def __repr__(self) -> str:
        """The image, the class and the method."""
        where = f", {self.picture}" if self.picture else ""
        on = f" at {self.layer}" if self.layer else ""
        return printable(f"Explanation({self.image}: {self.label}, {self.method}{on}{where})")

    def _repr_html_(self) -> str:
        """The picture with its caption."""
        on = f" at {self.layer}" if self.layer else ""
        words = html.escape(f"{self.image}: {self.label} ({self.method}{on})")
        return f"<figure>{_shown(self.overlay, words)}<figcaption>{words}</figcaption></figure>"


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The classes of one image.

    Attributes:
        image: its name: the path of a file; "images[2]" for the third thing that was given, where it has no path.
        classes: (name, probability) of the most probable classes, the most probable one first.
        probabilities: float32 (K,) of all classes, in the order of the model's logits; they sum to 1 where an image has
            one class.
        explanation: what led the model to its first class, where that was asked for.
        labels: of a model for images with several labels, the classes that reach their thresholds, the most probable
            one first; there may be none. None where an image has one class.
    """

    image: str
    classes: tuple[Score, ...]
    probabilities: NDArray[np.float32]
    explanation: Explanation | None = None
    labels: tuple[Score, ...] | None = None

    @property
    def top1(self) -> str:
        """The most probable class."""
        return self.classes[0].name

    @property
    def probability(self) -> float:
        """How probable it is, 0..1."""
        return self.classes[0].probability

    @property
    def words(self) -> str:
        """The classes, or the labels where an image may have several, with their probabilities: "cat 98.1%"."""
        shown = self.classes if self.labels is None else self.labels
        return ", ".join(f"{name} {p:.1%}" for name, p in shown) or NO_LABEL

    @property
    def picture(self) -> Path | None:
        """Where the picture that explains it was written; None if there is none."""
        return None if self.explanation is None else self.explanation.picture

    def as_dict(self) -> dict[str, Any]:
        """What `zoo predict --json` prints of it, on a line."""
        row: dict[str, Any] = {"image": self.image}
        if self.labels is not None:
            row["labels"] = [{"name": name, "probability": p} for name, p in self.labels]
        row["classes"] = [{"name": name, "probability": p} for name, p in self.classes]
        return row | ({} if self.explanation is None else {"explained": self.explanation.as_dict()})

    def __repr__(self) -> str:
        """The image and its classes."""
        return printable(f"Prediction({self.image}: {self.words})")

    def _repr_html_(self) -> str:
        """Bars, beside the image where its file can be read or the picture that explains it."""
        picture = _thumbnail(Path(self.image)) if self.explanation is None else self.explanation.overlay
        bar = "display: inline-block; height: 0.8em; background: #0072B2; width:"
        rows = "".join(
            f'<tr><td style="text-align: left">{html.escape(name)}</td><td style="text-align: right">{p:.1%}</td>'
            f'<td style="text-align: left"><span style="{bar} {max(0.0, min(p, 1.0)) * BAR:.0f}px"></span></td></tr>'
            for name, p in self.classes
        )
        caption = html.escape(self.image if self.labels is None else f"{self.image}: {self.words}")
        return (
            f"<div>{_shown(picture, caption) if picture else ''}<table><caption>{caption}</caption>{rows}</table></div>"
        )


def _shown(png: bytes, words: str) -> str:
    """A picture inside of a page; `words` are escaped already."""
    return f'<img alt="{words}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _thumbnail(path: Path) -> bytes:
    """A small PNG of an image file, upright; nothing where it cannot be read (any more)."""
    from PIL import Image, ImageOps

    with suppress(Exception), Image.open(path) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        small = ImageOps.exif_transpose(image)
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        data = BytesIO()
        small.convert("RGB").save(data, "PNG")
        return data.getvalue()
    return b""
