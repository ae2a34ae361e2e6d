"""Exporters as a plugin has them, for tests: one that works, written with numpy alone, and some with faults."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from zoo.errors import PluginError
from zoo.plugin import ToExport


class Npz:
    """The operators of a program as JSON and its weights as arrays, in one .npz; a loop over them runs it."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        weights = {**program.state_dict, **program.constants}
        signature = program.graph_signature
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        rows = []
        for node in program.graph.nodes:
            if node.op == "call_function" and "_assert" not in str(node.target):
                values = [_plain(list(node.args)), _plain(dict(node.kwargs))]
                rows.append([node.name, str(node.target), *values])
        (given,), (logits,) = signature.user_inputs, signature.user_outputs
        graph = {"rows": rows, "given": given, "logits": logits, "names": names, "about": dict(about.metadata)}
        arrays = {name: tensor.detach().numpy() for name, tensor in weights.items()}
        with path.open("wb") as file:
            np.savez(file, graph=np.array(json.dumps(graph)), **arrays)
        return {"operators": len(rows)}

    def runner(self, path: Path) -> Callable[[Tensor], Tensor]:
        with np.load(path) as file:
            graph = json.loads(str(file["graph"]))
            known = {name: torch.from_numpy(file[weight]) for name, weight in graph["names"].items()}

        def run(images: Tensor) -> Tensor:
            values: dict[str, Any] = {**known, graph["given"]: images}
            for name, target, args, kwargs in graph["rows"]:
                space, operator, overload = target.split(".")
                call = getattr(getattr(getattr(torch.ops, space), operator), overload)
                values[name] = call(*_of(args, values), **_of(kwargs, values))
            found: Tensor = values[graph["logits"]]
            return found

        return run


def _plain(value: Any) -> Any:
    if isinstance(value, torch.fx.Node):
        return {"node": value.name}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).partition(".")[2]}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return {"table": {key: _plain(one) for key, one in value.items()}} if isinstance(value, dict) else value


def _of(value: Any, values: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_of(one, values) for one in value]
    if not isinstance(value, dict):
        return value
    if "table" in value:
        return {key: _of(one, values) for key, one in value["table"].items()}
    return values[value["node"]] if "node" in value else getattr(torch, value["dtype"])


def npz() -> Npz:
    print("noise on stdout")
    return Npz()


class Off(Npz):
    """Its files give other logits."""

    def runner(self, path: Path) -> Callable[[Tensor], Tensor]:
        run = super().runner(path)
        return lambda images: run(images) + 0.01


class Failing(Npz):
    """Cannot write what it is given, in several lines."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        path.write_bytes(b"half")
        raise RuntimeError("no operator for this\n  and more lines of it")


class Silent(Npz):
    """Writes nothing."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        return {}


class Unreadable(Npz):
    """Cannot load what it wrote."""

    def runner(self, path: Path) -> Callable[[Tensor], Tensor]:
        raise ValueError("a number too many")


class OneByOne(Npz):
    """Its files take a single image."""

    def runner(self, path: Path) -> Callable[[Tensor], Tensor]:
        run = super().runner(path)

        def one(images: Tensor) -> Tensor:
            if len(images) > 1:
                raise IndexError("one image only")
            return run(images)

        return one


class Small(Npz):
    """Takes eight images at most."""

    largest_batch = 8

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        (bound,) = program.range_constraints.values()
        return super().write(program, path, about) | {"at most": int(bound.upper)}


class Telling(Npz):
    """Leaves a path of this machine in the file."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        found = super().write(program, path, about)
        path.write_bytes(path.read_bytes() + str(path).encode())
        return found


class Toolless(Npz):
    """Needs a program that is not there."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        subprocess.run(["no-such-compiler"], check=True)
        return {}


class Libless(Npz):
    """Needs a library that is not there."""

    def runner(self, path: Path) -> Callable[[Tensor], Tensor]:
        return open("runtime.so").close  # type: ignore[return-value]  # never returns: there is no such file


class Wordless(Npz):
    """Says of its file what JSON cannot hold."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        return super().write(program, path, about) | {"of": path}  # type: ignore[dict-item]  # wrong on purpose


class Unnumbered(Npz):
    """Has an opset that is no number."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        return super().write(program, path, about) | {"opset": "latest"}


class Littering(Npz):
    """Writes a file whose name a run folder has."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        path.with_name("run.toml").write_text("")
        return super().write(program, path, about)


class Nesting(Npz):
    """Makes a folder beside its file."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        path.with_suffix(".parts").mkdir()
        return super().write(program, path, about)


class Tiny(Npz):
    """Takes no image at all."""

    largest_batch = 0


class NoRunner:
    """Is no exporter."""

    def write(self, program: ExportedProgram, path: Path, about: ToExport) -> dict[str, str | int]:
        return {}


def absent() -> Npz:
    raise PluginError("npz files need numpy: pip install numpy")


def broken() -> Npz:
    raise KeyError("its own mistake")
