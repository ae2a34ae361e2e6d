"""The formats that `zoo export` writes: two of ours, and those of plugins. Nothing here imports torch."""

from __future__ import annotations

from collections import Counter
from typing import Final

from zoo.catalogue.registry import Registry, load_registry
from zoo.errors import InputError
from zoo.plugin.contract import Component

BUILT_IN: Final = (
    Component(
        name="onnx", kind="exporter", factory="zoo.export.onnx_file:onnx", suffix=".onnx", summary="ONNX (extra export)"
    ),
    Component(
        name="torch",
        kind="exporter",
        factory="zoo.export.torch_file:torch_program",
        suffix=".pt2",
        summary="a program of torch.export",
    ),
)
"""Ours, through the interface that plugins have; their names mean them, whatever plugins offer."""


def export_formats(registry: Registry) -> dict[str, Component]:
    """All formats by the names that people use; the name of a plugin's is short where only one has it."""
    offered = {name: c for name, c in registry.components.items() if c.kind == "exporter"}
    ours = {component.name: component for component in BUILT_IN}
    having = Counter([*ours, *(component.name for component in offered.values())])
    return ours | {(c.name if having[c.name] == 1 else name): c for name, c in offered.items()}


def find_format(name: str, registry: Registry | None = None) -> Component:
    """The exporter that writes a format; "executorch" is short for "exporters.executorch".

    Args:
        registry: the catalogue, if it was loaded already; for a format of ours it is not needed.
    Raises:
        InputError: no such format, which names those that there are; or two plugins have one of that short name.
    """
    for component in BUILT_IN:
        if name == component.name:
            return component
    registry = registry or load_registry()
    offered = {full: c for full, c in registry.components.items() if c.kind == "exporter"}
    if name in offered:
        return registry.component(name)
    fitting = [full for full, component in offered.items() if component.name == name]
    if len(fitting) > 1:
        raise InputError(f"--format {name!r} is ambiguous: {' or '.join(fitting)}; give the full name")
    if not fitting:
        absent = registry.left_out(name)
        allowed = f"--format {name!r}; allowed: {', '.join(export_formats(registry))}"
        raise InputError(f"{allowed}; {absent}" if absent else allowed)
    return registry.component(fitting[0])
