"""Plugin `exporters`: formats of `zoo export` besides ONNX and torch.export.

Each needs the extra of its name; where it is missing, a message says how to install it.
"""

from __future__ import annotations

from zoo.plugin import Component, offers

zoo_components = offers(
    Component(
        name="executorch",
        kind="exporter",
        factory="zoo_exporters.executorch_file:executorch_program",
        suffix=".pte",
        summary="ExecuTorch, for phones and small devices (extra executorch)",
    )
)
