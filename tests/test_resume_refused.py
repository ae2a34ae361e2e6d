"""Where there is nothing to go on from, `zoo train --resume` trains nothing: weights that are there stay there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import zoo
from zoo.errors import InputError, RunError


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
