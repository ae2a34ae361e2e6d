"""Finished runs for tests: real folders of real models, with or without training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.evaluate.opened import open_run
from zoo.hub.pack import package
from zoo.runs.folder import append_metrics, read_result, read_weights, write_result, write_weights
from zoo.runs.record import read_record, write_record
from zoo.train.plan import resolve
from zoo.train.run_options import Request


@contextmanager
def own_caches(folder: Path) -> Iterator[None]:
    """What fixtures of a module need, as `own_folders` gives it to tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "DATA", "CONFIG"):
            patch.setenv(f"ZOO_{name}_DIR", str(folder / name.lower()))
        patch.delenv("HF_TOKEN", raising=False)
        yield


def untrained_run(
    folder: Path, model: str = "hybrid-alt-1", spec: str = "sklearn:digits", size: int | None = None, **asked: Any
) -> Path:
    """The folder of a run whose weights are the initial ones; its result is measured, as ever."""
    torch.set_num_threads(1)
    plan = resolve(Request(model=model, dataset=spec, image_size=size, device="cpu", **asked))
    folder.mkdir(parents=True)
    write_record(folder, plan.record)
    module = plan.build().eval()
    write_weights(folder, module.state_dict(), plan.record)
    append_metrics(folder, {"epoch": 1, "train_loss": 2.3, "val_loss": 2.2, "train_top1": 0.1, "val_top1": 0.2})
    metrics = open_run(folder, device="cpu").measure().as_dict()
    write_result(
        folder,
        {
            "format": 1,
            "model": plan.record.model,
            "dataset": spec,
            "parameters": sum(p.numel() for p in module.parameters()),
            "selection": {"rule": "top1", "split": "validation", "epoch": 1},
            "test": metrics,
            "validation": None,
            "train": {"epochs": 1, "steps": 0, "seconds": 0.0, "images_per_second": 0.0},
        },
    )
    return folder


def made_package(folder: Path) -> Path:
    """A package of an untrained `hybrid-alt-1` on a few of the digits."""
    with own_caches(folder):
        source = untrained_run(folder / "run", limit_train=64, limit_test=64)
        return package(source, folder / "package").folder


def made_with_onnx(folder: Path) -> Path:
    """The same with `onnx/model.onnx`, and with logits that are far apart, as those of a trained network."""
    with own_caches(folder):
        source = untrained_run(folder / "run", limit_train=64, limit_test=64)
        weights, record = dict(read_weights(source)), read_record(source)
        head = next(name for name, tensor in weights.items() if tensor.ndim == 2 and len(tensor) == 10)
        write_weights(source, weights | {head: 5 * weights[head]}, record)
        result = read_result(source) | {"test": open_run(source, device="cpu").measure().as_dict()}
        write_result(source, result)
        return package(source, folder / "package", onnx=True).folder


def threads() -> dict[str, str]:
    """The environment of a process that shares this machine."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
