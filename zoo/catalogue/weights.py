"""Which trained weights a word means: `NAME@DATASET`, or a model's name alone for the first of its weights.

They are entries of the catalogue (`zoo.catalogue.spec.TrainedWeights`). Nothing here imports torch, and nothing is
read or fetched: a word becomes the folder or the reference of a package.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from zoo.base.reporter import callers
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import WHEEL, TrainedWeights
from zoo.errors import InputError, SpecError, ZooWarning

AT = "@"
WEIGHTS = "model.safetensors"


class FoundWeights(NamedTuple):
    """Weights of a model of the catalogue.

    Attributes:
        reference: their package, as every call takes it: the path of a folder, or hf://OWNER/NAME@COMMIT.
    """

    model: str
    entry: TrainedWeights
    reference: str

    @property
    def name(self) -> str:
        """NAME@DATASET."""
        return f"{self.model}{AT}{self.entry.dataset}"


def find_weights_of(word: str, registry: Registry) -> FoundWeights | None:
    """The weights that a word means; None where it is no name of weights.

    Args:
        word: NAME@DATASET, or the NAME of a model that has weights.
    Raises:
        InputError: the model has no weights for this dataset, which says for which it has; or two plugins claim it.
        SpecError: they should lie beside the registry file, and do not.
    """
    name, at, dataset = word.partition(AT)
    if name not in registry.models:
        return None
    entries = registry.model(name).weights
    chosen = [entry for entry in entries if not at or entry.dataset == dataset]
    if chosen:
        return FoundWeights(name, chosen[0], _reference(name, chosen[0], registry))
    if not at:
        return None
    known = f"it has {', '.join(f'{name}{AT}{entry.dataset}' for entry in entries)}" if entries else "it has none"
    raise InputError(f"{word!r}: {name} has no weights for {dataset!r}; {known}; `zoo list` shows those of all models")


def names_of_weights(registry: Registry) -> Iterator[str]:
    """NAME@DATASET of all weights in the catalogue."""
    for name, model in registry.models.items():
        yield from (f"{name}{AT}{entry.dataset}" for entry in model.weights)


def _reference(name: str, entry: TrainedWeights, registry: Registry) -> str:
    """The folder beside the registry file, or the reference to the Hub."""
    if not entry.where.startswith(WHEEL):
        return entry.where
    file = registry.origin("model", name).file
    folder = Path(file).parent / entry.where.removeprefix(WHEEL)
    if not os.path.isdir(folder):
        raise SpecError(
            f"{file}: models.{name}.weights: the folder {folder} does not exist, so the weights for {entry.dataset} "
            "are not installed; install the package again, as a folder and not as an archive"
        )
    return str(folder)


def say_if_others(word: str, registry: Registry) -> None:
    """Warn where the package beside a registry file has other weights than the entry that a word means.

    What is wrong with the package itself is said where it is opened.
    """
    found = find_weights_of(word, registry)
    if found is None or not found.entry.where.startswith(WHEEL):
        return
    try:
        listed = Path(found.reference, "SHA256SUMS").read_text("ascii", errors="replace")
    except OSError:
        return
    if f"{found.entry.sha256}  {WEIGHTS}\n" not in listed:
        file = registry.origin("model", found.model).file
        warnings.warn(
            f"{found.name}: the weights in {found.reference} are not those that {file} states; "
            f"for an entry of these: python -m zoo.hub.entry {quote(found.reference)} {quote(str(file))}",
            ZooWarning,
            stacklevel=callers(),
        )
