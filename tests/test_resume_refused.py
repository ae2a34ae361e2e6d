"""Where there is nothing to go on from, `zoo train --resume` trains nothing: weights that are there stay there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec import structs

import zoo
from zoo.errors import DeviceError, InputError, RunError
from zoo.runs.record import read_record, write_record


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("epochs", [None, 9])
def test_a_package_is_not_trained_in(with_onnx: Path, tmp_path: Path, epochs: int | None) -> None:
    package = Path(shutil.copytree(with_onnx, tmp_path / "package"))
    before = contents(package)
    with pytest.raises(InputError, match=r"is a package, which must not change; zoo train --from .* --dataset SPEC"):
        zoo.resume(package, epochs=epochs)
    assert contents(package) == before


def test_a_finished_run_without_a_checkpoint_is_not_begun_anew(with_onnx: Path, tmp_path: Path) -> None:
    (run,) = {path.parent for path in with_onnx.parent.rglob("run.toml")} - {with_onnx}
    run = Path(shutil.copytree(run, tmp_path / "run"))
    assert not (run / "checkpoints").exists()
    before = contents(run)
    with pytest.raises(RunError, match="has no checkpoint to go on from"):
        zoo.resume(run, epochs=90)
    assert contents(run) == before


def test_a_run_of_a_device_that_is_not_here_is_refused_in_a_line(with_onnx: Path, tmp_path: Path) -> None:
    (run,) = {path.parent for path in with_onnx.parent.rglob("run.toml")} - {with_onnx}
    run = Path(shutil.copytree(run, tmp_path / "run"))
    (run / "result.json").unlink()
    write_record(run, structs.replace(read_record(run), device="cuda:77"))
    with pytest.raises(DeviceError, match=r"run: device 'cuda:77' is not available on this machine \(available: cpu"):
        zoo.resume(run)
