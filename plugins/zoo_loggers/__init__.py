"""Plugin `loggers`: TensorBoard, trackio and Weights & Biases, told of each epoch by `zoo train --log NAME`."""

from __future__ import annotations

from collections.abc import Iterable

from zoo.plugin import Component, hookimpl


@hookimpl
def zoo_components() -> Iterable[Component]:
    """Offer the loggers; each needs the extra of its name: pip install 'hybrid-zoo[tensorboard]'."""
    return [
        Component(
            name="tensorboard",
            kind="listener",
            factory="zoo_loggers.tensorboard:tensorboard",
            summary="scalars for TensorBoard in the run folder",
        ),
        Component(
            name="trackio",
            kind="listener",
            factory="zoo_loggers.trackers:trackio",
            summary="metrics for trackio",
        ),
        Component(
            name="wandb",
            kind="listener",
            factory="zoo_loggers.trackers:wandb",
            summary="metrics for Weights & Biases",
        ),
    ]
