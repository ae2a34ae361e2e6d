"""Images as arrays: sources, the decoded cache, resident batches, augmentation and checks.

`zoo.data.resident` and `zoo.data.augment` need torch; nothing that is imported here does.
"""

from zoo.data.arrays import ImageData, Split, limit, stratified, validation_split
from zoo.data.checks import Finding, check
from zoo.data.load import find, load
from zoo.data.rows import Show, silent

__all__ = [
    "Finding",
    "ImageData",
    "Show",
    "Split",
    "check",
    "find",
    "limit",
    "load",
    "silent",
    "stratified",
    "validation_split",
]
