"""Image corruptions at five severities, by the library imagecorruptions; needs numpy and no torch.

The library draws from numpy's global generator and, for two corruptions, from a seed that it is given. Both
are set for each image, so that how many processes share the work changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.base.install import install_line
from zoo.data.files.worker import receive, send
from zoo.data.seeds import mix_seed
from zoo.errors import DataError, InputError
from zoo.evaluate.corruption_workers import Workers

GROUPS = (
    ("noise", ("gaussian_noise", "shot_noise", "impulse_noise")),
    ("blur", ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur")),
    ("weather", ("snow", "frost", "fog", "brightness")),
    ("digital", ("contrast", "elastic_transform", "pixelate", "jpeg_compression")),
    ("extra", ("speckle_noise", "gaussian_blur", "spatter", "saturate")),
)
"""Hendrycks and Dietterich 2019: 15 corruptions in four groups, and four more to develop by."""

COMMON = tuple(name for group, names in GROUPS if group != "extra" for name in names)
KNOWN = tuple(name for _, names in GROUPS for name in names)
SEEDED = frozenset({"impulse_noise", "glass_blur"})
"""These do not draw from numpy's global generator; they take a seed."""

SMALLEST = 32
"""The library takes no smaller side."""

SCALE_FREE = frozenset({"pixelate", "jpeg_compression"})
"""Relative to the image's size, or to blocks of 8 pixels: their functions work on any size as it is."""

PART = 32
Images = NDArray[np.uint8]


def library() -> ModuleType:
    """The library, imported: that takes seconds.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    try:
        import imagecorruptions
    except ImportError as error:
        raise InputError(
            f"robustness needs the library imagecorruptions-imaug: {install_line('robustness')} ({error})"
        ) from None
    return imagecorruptions


def corrupt(images: Images, name: str, severity: int, seed: int, first: int = 0) -> Images:
    """Corrupt some images.

    An image with a side below 32 is enlarged by a whole factor before, each pixel repeated, and the middle
    pixel of each block is taken after: noise is then as strong as elsewhere, and blurs reach less far.

    Args:
        images: uint8 (n, 3, H, W). name: one of `KNOWN`. severity: 1..5, as for photographs of 224 pixels.
        seed: the result is a function of the image, its row, name, severity and seed. first: row of the first.
    Returns:
        uint8 (n, 3, H, W).
    Source:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations", ICLR 2019; for any image size: Michaelis et al., "Benchmarking Robustness in
        Object Detection", 2019.
    """
    out, before = np.empty_like(images), np.random.get_state()
    try:
        # the library prints what it works around, and divides 0 by 0 where `spatter` hits nothing
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), np.errstate(invalid="ignore"):
            for row, image in enumerate(images):
                image_seed = mix_seed(seed, KNOWN.index(name), severity, first + row) & 0xFFFFFFFF
                np.random.seed(image_seed)
                done = _one(image.transpose(1, 2, 0), name, severity, image_seed)
                out[row] = done.transpose(2, 0, 1)
    finally:
        np.random.set_state(before)
    return out


def _one(image: Images, name: str, severity: int, seed: int) -> Images:
    """One image, (H, W, 3); numpy's global generator is seeded."""
    ours = library()
    if name in SCALE_FREE:
        return np.asarray(getattr(ours.corruptions, name)(Image.fromarray(image), severity), np.uint8)
    factor = -(-SMALLEST // min(image.shape[:2]))
    large = image.repeat(factor, 0).repeat(factor, 1)
    more = {"seed": seed} if name in SEEDED else {}
    done: Images = ours.corrupt(large, corruption_name=name, severity=severity, **more)
    return done[factor // 2 :: factor, factor // 2 :: factor]


class Corruptor:
    """Corrupts all images of a set, in this process or shared among several that it starts."""

    def __init__(self, images: Images, seed: int, workers: int) -> None:
        """Take the images, uint8 (N, 3, H, W); `workers`: processes, 0 for none but this one."""
        self.images, self.seed = images, seed
        self.workers = Workers(workers) if workers else None

    def __call__(self, name: str, severity: int) -> Images:
        """All images, corrupted.

        Raises:
            DataError: a process died.
        """
        parts = range(0, len(self.images), PART)
        jobs = [(self.images[i : i + PART], name, severity, self.seed, i) for i in parts]
        if self.workers is None:
            return np.concatenate([corrupt(*job) for job in jobs])
        try:
            return np.concatenate(list(self.workers.map(jobs)))
        except EOFError:
            raise DataError(
                f"a process that corrupted images by {name} died, most likely out of memory; "
                "give fewer --workers (0: none)"
            ) from None

    def close(self) -> None:
        """End the processes."""
        if self.workers is not None:
            self.workers.close()


def choose(words: Sequence[str]) -> tuple[str, ...]:
    """Names of corruptions from names and groups; none: the 15 common ones.

    Raises:
        InputError: an unknown one; lists the known.
    """
    groups = {**dict(GROUPS), "common": COMMON, "all": KNOWN}
    chosen: dict[str, None] = {}
    for word in words or ("common",):
        if word not in groups and word not in KNOWN:
            raise InputError(f"no corruption named {word!r}; groups: {', '.join(groups)}; names: {', '.join(KNOWN)}")
        chosen |= dict.fromkeys(groups.get(word, (word,)))
    return tuple(chosen)


def pairs(names: Sequence[str], severities: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Each corruption at each severity."""
    return ((name, severity) for name in names for severity in severities)


def serve() -> None:
    """Answer the jobs of `Workers`, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that measures; it ends this one
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    library()
    with contextlib.suppress(KeyError, AttributeError):
        sys.modules["cv2"].setNumThreads(1)  # there are several workers
    while (content := receive(asked)) is not None:
        try:
            answer: Images | Exception = corrupt(*pickle.loads(content))
        except Exception as error:
            answer = error
        send(answers, pickle.dumps(answer))
