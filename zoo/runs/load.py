"""The model of a run folder, with its weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from zoo.base.reporter import callers
from zoo.base.text import one_line
from zoo.catalogue.spec import Node
from zoo.errors import OtherVersionWarning, PackageError, RunError
from zoo.runs.folder import read_weights, why_no_weights
from zoo.runs.record import RECORD, WEIGHTS, read_record, tree_of

if TYPE_CHECKING:
    from torch import nn

    from zoo.catalogue.registry import Registry


def load(run: str | Path, registry: Registry) -> nn.Module:
    """The model of a run folder, with its selected weights, in eval mode, on the CPU.

    Args:
        registry: the catalogue with the components that the model is made of.
    Returns:
        A module, (B, C, H, W) floats to (B, num_classes) logits; `read_record(run)` has the classes, and
        whether and by what the floats are normalised.
    Raises:
        RunError: no run folder, damaged, from a newer version, or weights that do not fit.
        InputError: its model is code of the user's own that cannot be run, see `zoo.runs.own_source.reopened`.
        MissingPluginError: no installed plugin offers one of its components.
    Warns:
        OtherVersionWarning: a plugin that the run was made with has another version here.
    """
    import torch

    from zoo.catalogue.provenance import changes, require_components
    from zoo.models.compose import compose
    from zoo.runs.own_source import reopened

    folder = Path(run)
    record = read_record(folder)
    registry = reopened(folder, record, registry)
    # The weights are at hand: `pretrained` would download others.
    tree = tree_of(record, f"{folder / RECORD}: build", pretrained=False)
    sizes = msgspec.structs.asdict(record.sizes)
    require_components(tree, record.plugins, registry, "the run", str(folder))
    for line in changes(record.plugins, registry):
        warnings.warn(f"{folder}: {line}", OtherVersionWarning, stacklevel=callers())
    _check_weights(folder, tree, registry, sizes)
    weights = read_weights(folder)
    with torch.random.fork_rng(devices=[]):  # initial weights, which are replaced: the program's own numbers stay
        module = compose(tree, registry, where="build", **sizes)
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RunError(f"{folder / WEIGHTS}: does not fit the model of {RECORD}: {one_line(error, 300)}") from None
    return module.eval()


def _check_weights(folder: Path, tree: Node, registry: Registry, sizes: dict[str, int]) -> None:
    """The weights' header against the model on the meta device: before memory is taken.

    Raises:
        RunError: damaged, or of another model.
    """
    from zoo.models.header import compare, outline, read_header

    if not (folder / WEIGHTS).is_file():
        raise RunError(why_no_weights(folder))
    try:
        header = read_header(folder / WEIGHTS)
        compare(folder / WEIGHTS, header, outline(tree, registry, header, where="build", **sizes))
    except PackageError as error:
        raise RunError(str(error)) from None
