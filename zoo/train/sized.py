"""How the images of a new run are brought to their size: as its initial weights expect, else as the dataset says."""

from __future__ import annotations

from zoo.catalogue.registry import Registry
from zoo.data.dataset_spec import find, options_of
from zoo.errors import InputError, UnknownNameError
from zoo.plugin.contract import Transform
from zoo.train.recipe_settings import Beginning

CUTS = ("resize", "crop")
"""The options of a dataset that say how its images are brought to their size."""


def sized(beginning: Beginning, spec: str, registry: Registry, side: int | None) -> tuple[Transform | None, list[str]]:
    """The transform of a run's images, and lines for people.

    Weights of timm and torchvision, and runs that began with such, have one. Those of another run were trained as its
    dataset said, which counts where the new dataset says nothing of its own.

    Args:
        side: of the images, where one was asked for.
    Returns:
        It, or None: as the dataset says.
    """
    own, expected, lines = _own(spec, registry), beginning.transform, []
    if expected is None and not own and beginning.scaling is not None and beginning.scaling.resize:
        expected = beginning.scaling
        lines = [f"images are brought to their size as those of the weights were: {_words(expected, side)}"]
    elif expected is not None and own and spec not in registry.datasets:
        named = " and ".join(f"{key}={own[key]}" for key in own) + (" is" if len(own) == 1 else " are")
        lines = [f"{spec}: {named} passed over, as the weights say how images are prepared: {_words(expected, side)}"]
    return (expected.at(side) if expected and side else expected), lines


def _own(spec: str, registry: Registry) -> dict[str, int]:
    """What a dataset says of the size of its images; nothing, where it is not known here or was given in Python."""
    try:
        _, dataset = find(spec, registry)
        common, _ = options_of(dataset)
    except (UnknownNameError, InputError):  # loading says what is wrong
        return {}
    scaled = {"size": max(dataset.size)} if dataset.resize and dataset.size else {}  # whole images, to that size
    return scaled | {key: common[key] for key in CUTS if key in common}


def _words(transform: Transform, side: int | None) -> str:
    transform = transform.at(side) if side else transform
    size = "{1}x{0}".format(*transform.size)
    if not transform.scaled:
        return f"the centre of {size} pixels is cut out"
    if transform.resize is None:
        return f"the whole image is scaled to {size}"
    scaled = "both sides are" if transform.squash else "the shorter side is"
    return f"{scaled} scaled to {transform.resize} pixels, then the centre of {size} is cut out"
