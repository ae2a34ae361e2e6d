"""Plugin `loggers`: TensorBoard, trackio and Weights & Biases, told of each epoch by `zoo train --log NAME`.

Each needs the extra of its name; where it is missing, a message says how to install it.
"""

from __future__ import annotations

from zoo.plugin import Component, offers

zoo_components = offers(
    Component(
        name="tensorboard",
        kind="listener",
        factory="zoo_loggers.tensorboard:tensorboard",
        summary="scalars for TensorBoard in the run folder",
    ),
    Component(name="trackio", kind="listener", factory="zoo_loggers.trackers:trackio", summary="metrics for trackio"),
    Component(
        name="wandb", kind="listener", factory="zoo_loggers.trackers:wandb", summary="metrics for Weights & Biases"
    ),
)
