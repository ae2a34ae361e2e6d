"""Images that are nearly the same: found by a perceptual hash and bands of its bits, then compared.

The hash is the one known as pHash: the signs of the 64 lowest frequencies of a small grey image against their median
(C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1). Two images are
compared only if at least one of the four bands of their hashes is equal, so that the work grows with the number of
images and not with its square; two hashes that differ in at most three bits always share a band.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from zoo.data.types import Images

Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]

LEAST_SIDE = 24
"""Pixels of the shorter side below which images are not compared: so small, different things look the same."""

SIDE = 32
"""Pixels of the sides that images are averaged to before they are compared."""

FREQUENCIES = 8
BANDS = 4
NEIGHBOURS = 64
"""With how many others of its band, in the order of their hashes, an image is compared."""

FARTHEST = 10
"""Bits of 64 in which the hashes of two images that are compared differ at most."""

FEW = 1000
"""Pairs that are compared in any case; of more, a tenth of the number of images."""

LEAST_CORRELATION = 0.93
"""Of the grey values of two images that count as nearly the same.

Measured on CIFAR-10 (60,000 images): 381 pairs, all of one label, which random pairs would have in a tenth.
"""

DEVIATIONS = 5.5
"""How far above that of random pairs of the set a correlation must be (Fisher's z): scanned digits are all alike."""

RANDOM_PAIRS = 1024

AT_ONCE = 256


def perceptual_hashes(images: Images) -> Hashes:
    """The hash of each image.

    Args:
        images: uint8 (N, 3, H, W).
    Returns:
        uint64 (N,); a bit for each of the 8x8 lowest frequencies.
    """
    height, width = images.shape[2:]
    down, across = _frequencies(height), _frequencies(width)
    lowest = (down @ _grey(images) @ across.T).reshape(len(images), -1)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    hashes: Hashes = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return hashes


def nearly_equal_pairs(hashes: Hashes, rows: Pairs, read: Callable[[Pairs], Images]) -> Pairs:
    """Find the images that look nearly the same.

    Args:
        hashes: uint64 (N,), of all images. rows: int64 (M,), those that are compared, without blank ones.
        read: the images of some rows, uint8 (n, 3, H, W).
    Returns:
        int64 (P, 2), the smaller row first, sorted.
    """
    pairs = rows[_candidates(hashes[rows])]
    if not len(pairs):
        return pairs
    pairs_correlate = _correlations(pairs, read)
    return pairs[pairs_correlate >= _needed(rows, read)]


def _needed(rows: Pairs, read: Callable[[Pairs], Images]) -> float:
    """The correlation from which two images are nearly the same, by how alike random ones of the set are."""
    drawn = np.random.default_rng(0).choice(rows, (min(RANDOM_PAIRS, 4 * len(rows)), 2))
    drawn = drawn[drawn[:, 0] != drawn[:, 1]]
    usual = np.arctanh(np.clip(_correlations(drawn, read), -0.999, 0.999)) if len(drawn) else np.zeros(1)
    middle = np.median(usual)  # and the spread around it: a few equal pairs among the random ones do not change them
    spread = 1.4826 * np.median(np.abs(usual - middle))
    return float(np.tanh(max(np.arctanh(LEAST_CORRELATION), middle + DEVIATIONS * spread)))


def _candidates(hashes: Hashes) -> Pairs:
    """Pairs of places whose hashes are near: the nearest ones alone, where very many are (as of aligned images)."""
    most = max(FEW, len(hashes) // 10)
    pairs = _sharing_a_band(hashes)
    far = _distances(hashes[pairs[:, 0]], hashes[pairs[:, 1]])
    counts = np.bincount(far, minlength=FARTHEST + 1).cumsum()
    limit = max((bits for bits in range(FARTHEST + 1) if counts[bits] <= most), default=0)
    return pairs[far <= limit]


def _sharing_a_band(hashes: Hashes) -> Pairs:
    """Pairs of places at most `FARTHEST` bits apart with an equal band: the lower place first, sorted."""
    count = len(hashes)
    found = [np.empty(0, np.int64)]
    for band in range(BANDS):
        keys = (hashes >> np.uint64(band * 64 // BANDS)) & np.uint64(2 ** (64 // BANDS) - 1)
        order = np.lexsort((hashes, keys))
        sorted_keys, sorted_hashes = keys[order], hashes[order]
        active = np.arange(count)
        for step in range(1, NEIGHBOURS + 1):
            active = active[active + step < count]
            active = active[sorted_keys[active] == sorted_keys[active + step]]
            near = active[_distances(sorted_hashes[active], sorted_hashes[active + step]) <= FARTHEST]
            one, other = order[near], order[near + step]
            found.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(1, count)), axis=1)


def _distances(one: Hashes, other: Hashes) -> Pairs:
    """In how many bits hashes differ, int64 (N,)."""
    differing = (one ^ other).view(np.uint8).reshape(len(one), 8)
    return _ones()[differing].sum(axis=1, dtype=np.int64)


def _correlations(pairs: Pairs, read: Callable[[Pairs], Images]) -> NDArray[np.float32]:
    """Of the grey values of the two images of each pair, -1..1, float32 (P,)."""
    parts = [pairs[i : i + AT_ONCE] for i in range(0, len(pairs), AT_ONCE)]
    sides = [[_standardised(read(part[:, side])) for side in (0, 1)] for part in parts]
    return np.concatenate([np.einsum("np,np->n", *both) for both in sides])


def _standardised(images: Images) -> NDArray[np.float32]:
    """Small grey images as rows of mean 0 and length 1."""
    height, width = images.shape[2:]
    small = _averaging(min(SIDE, height), height) @ _grey(images) @ _averaging(min(SIDE, width), width).T
    rows = small.reshape(len(images), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    standardised: NDArray[np.float32] = (rows / np.maximum(lengths, 1e-6)).astype(np.float32)
    return standardised


def _grey(images: Images) -> NDArray[np.float32]:
    """The luma of ITU-R BT.601, 0..255, float32 (N, H, W)."""
    red, green, blue = (images[:, channel].astype(np.float32) for channel in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


@cache
def _frequencies(side: int) -> NDArray[np.float32]:
    """Takes the values along a side to the lowest frequencies of 32 averages of it: float32 (8, side)."""
    from scipy.fft import dct

    lowest = dct(np.eye(SIDE), axis=0)[:FREQUENCIES]
    return (lowest @ _averaging(SIDE, side)).astype(np.float32)


@cache
def _averaging(count: int, side: int) -> NDArray[np.float32]:
    """Averages the values along a side into `count` equal stretches: float32 (count, side)."""
    ends = np.linspace(0, side, count + 1)
    places = np.arange(side)
    shares = np.clip(np.minimum(ends[1:, None], places + 1) - np.maximum(ends[:-1, None], places), 0, None)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


@cache
def _ones() -> NDArray[np.uint8]:
    """How many bits of each byte are set, uint8 (256,)."""
    return np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
