"""Images as arrays: sources, the decoded cache, resident batches, augmentation and checks.

`zoo.data.batches.resident` and `zoo.data.augment.pipeline` need torch; nothing that is imported here does.
"""

from zoo.data.checks import Finding, check
from zoo.data.load import find, load
from zoo.data.sources.base import Show, silent
from zoo.data.split import ImageData, Split, limit, stratified, validation_split

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
