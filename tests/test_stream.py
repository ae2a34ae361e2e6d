"""Streamed images: the batches that resident ones give, whatever delivers them, and a line for what goes wrong."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_folders import SIDE, drawn, same, settle, streamed, write_images
from PIL import Image

from zoo.catalogue import augmentation
from zoo.data.augment.crop import Bounds
from zoo.data.augment.pipeline import build
from zoo.data.batches.mode import Delivery
from zoo.data.batches.open import open_source
from zoo.data.batches.resident import Resident, order
from zoo.data.batches.stream import Streamed
from zoo.data.files.image_files import index_path
from zoo.data.load import load
from zoo.errors import DataError, InputError, RunError
from zoo.evaluate.opened import open_run, recorded_metrics
from zoo.runs.folder import read_metrics
from zoo.runs.record import CHECKPOINTS, read_record, write_record
from zoo.train import checkpoint
from zoo.train.loop import Saving, Stop, Trainer
from zoo.train.plan import replan, resolve
from zoo.train.run_options import Request

CLASSES, EACH = 12, 200
BOUNDS = Bounds()
CROP = augmentation.RandomResizedCrop()
posix = pytest.mark.skipif(os.name == "nt", reason="worker processes need Linux or macOS")

REGISTRY = """
[models.tiny]
summary = "small"
family = "test"
recipe = "tiny"
dataset = "digits"
[models.tiny.build]
use = "hybrid.classifier"
body = { use = "cnn.residual", widths = [8] }
[recipes.tiny]
epochs = 2
batch_size = 64
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few thousand small JPEG files; nobody changes them."""
    root = tmp_path_factory.mktemp("images")
    write_images(root, CLASSES, EACH)
    return root


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder of 120 files for one test to break."""
    write_images(tmp_path / "few", 3, 40)
    return tmp_path / "few"


# ---- the same batches -------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("channels_last", [False, True])
def test_streamed_and_resident_batches_are_equal_to_the_bit_with_any_number_of_workers(
    channels_last: bool, tree: Path
) -> None:
    decoded = load(f"folder:{tree}")
    assert len(decoded.train) + len(decoded.test) == CLASSES * EACH
    resident = open_source(decoded.train, channels_last=channels_last)
    expected, evaluated = drawn(resident, start=20), list(resident.batches(333))
    assert isinstance(resident, Resident)
    for workers in (0, 1, 2):
        data = streamed(tree, workers)
        source = open_source(data.train, channels_last=channels_last)
        assert isinstance(source, Streamed)
        assert same(drawn(source, start=20), expected)
        assert same(list(source.batches(333)), evaluated)
        assert same(drawn(source, start=35), expected[15:])
        taken, labels = source.take(torch.tensor([5, 3]))
        assert torch.equal(taken, resident.take(torch.tensor([5, 3]))[0])
        assert labels.tolist() == decoded.train.labels[[5, 3]].tolist()
        assert data.train.pool is not None
        assert len(data.train.pool.processes()) == workers


@posix
def test_a_crop_is_a_function_of_seed_epoch_and_sample_alone(tree: Path) -> None:
    found = {}
    for workers in (0, 2):
        source = Streamed(streamed(tree, workers, image_size=10).train, bounds=BOUNDS, seed=1)
        assert source.cropped
        found[workers] = list(itertools.islice(source.steps(order(0, 0, 800).view(-1, 40), epoch=3), 20))
    assert same(found[0], found[2])
    rows = torch.arange(40).view(2, 20)
    data = streamed(tree)
    sources = [Streamed(data.train, bounds=BOUNDS, seed=1) for _ in range(2)]
    one = list(sources[0].steps(rows, epoch=3))
    other = list(sources[1].steps(rows.flip(0).flip(1), 1, epoch=3))  # elsewhere in the epoch
    assert torch.equal(one[0][1], other[0][1].flip(0))
    assert not torch.equal(one[0][1], next(sources[0].steps(rows, epoch=4))[1])
    twice = next(sources[0].steps(rows + len(data.train), epoch=3))  # the same images, drawn again in the epoch
    assert torch.equal(one[0][2], twice[2])
    assert not torch.equal(one[0][1], twice[1])
    whole = Resident(load(f"folder:{tree}").train)
    for uncut in (Streamed(data.train), whole):
        assert all(map(torch.equal, whole.take(rows[0]), next(uncut.steps(rows + len(data.train)))[1:]))
    assert not torch.equal(one[0][1], next(Streamed(data.train, bounds=BOUNDS, seed=2).steps(rows, epoch=3))[1])


def test_images_that_are_cut_on_the_device_and_in_workers_differ_by_rounding_alone(tree: Path) -> None:
    decoded, data = load(f"folder:{tree}"), streamed(tree)
    rows = torch.arange(len(data.train))[:600].view(4, 150)
    early = list(Streamed(data.train, bounds=BOUNDS, seed=5).steps(rows, epoch=2))
    cut = build([CROP], (0,) * 3, (1,) * 3, False, size=(SIDE, SIDE), num_classes=CLASSES, seed=5)
    for batch, images, labels in early:
        raw, own = Resident(decoded.train).take(batch)
        late, _ = cut(raw, own, torch.Generator(), indices=batch, epoch=2)
        assert torch.equal(own, labels)
        assert (late * 255 - images).abs().max() <= 2.01
        assert (late * 255 - raw).abs().max() > 20


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=posix)])
def test_arrays_are_streamed_to_an_evaluation(workers: int) -> None:
    source = open_source(load("sklearn:digits", delivery=Delivery("stream", workers)).train)
    expected = list(source.batches(100))
    with torch.inference_mode():
        assert same(list(source.batches(100)), expected)


def test_arrays_are_streamed_as_they_are_resident() -> None:
    for workers in (0, 2):
        data = load("sklearn:digits", delivery=Delivery("stream", workers))
        assert data.streamed
        for channels_last in (False, True):
            source = open_source(data.train, channels_last=channels_last, bounds=BOUNDS)
            resident = Resident(data.train, channels_last=channels_last)
            assert not source.cropped
            assert same(drawn(source), drawn(resident))
            assert same(list(source.batches(100, start=3)), list(resident.batches(100, start=3)))


def test_an_abandoned_epoch_leaves_nothing_behind_for_the_next(tree: Path) -> None:
    source = Streamed(streamed(tree, 1 if os.name != "nt" else 0).train)
    expected = drawn(source)
    for count in (1, 3):
        batches = source.steps(order(7, 3, len(source))[:500].view(-1, 50))
        for _ in range(count):
            next(batches)
        del batches
        assert same(drawn(source), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_is_given_the_batches_of_the_cpu(channels_last: bool, tree: Path) -> None:
    for data in (streamed(tree, 2), load("sklearn:digits", delivery=Delivery("stream", 2))):
        expected = drawn(Streamed(data.train, channels_last=channels_last, bounds=BOUNDS))
        source = Streamed(data.train, "cuda", channels_last=channels_last, bounds=BOUNDS)
        for (rows, images, labels), (_, same_images, same_labels) in zip(drawn(source), expected, strict=True):
            torch.cuda._sleep(1_000_000)  # the device lags behind, as it does in training
            assert rows.is_cuda
            assert labels.is_cuda
            assert torch.equal(images.cpu(), same_images)
            assert torch.equal(labels.cpu(), same_labels)


# ---- what goes wrong --------------------------------------------------------------------------


@posix
def test_a_killed_worker_is_one_line_that_says_what_to_do(tree: Path) -> None:
    data = streamed(tree, 2)
    source = Streamed(data.train)
    pool = data.train.pool
    assert pool is not None
    batches = source.steps(order(0, 0, len(source))[:1800].view(-1, 20))
    next(batches)
    for process in pool.processes():
        os.kill(process, signal.SIGKILL)
    with pytest.raises(
        DataError, match=r"data worker \d+ ended by SIGKILL while it decoded .*\.jpg.*--workers"
    ) as caught:
        list(batches)
    assert "\n" not in str(caught.value)
    pool.close()
    assert len(drawn(source)) > 0  # with new workers


@posix
def test_workers_end_with_a_process_that_was_killed(tree: Path) -> None:
    script = f"""import os, signal
from zoo.data.load import load
from zoo.data.batches.mode import Delivery
from zoo.data.batches.stream import Streamed
data = load("folder:{tree}", delivery=Delivery("stream", 2))
next(Streamed(data.train).batches(200))
print(*data.train.pool.processes(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    deadline = time.monotonic() + 20
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=posix)])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "was deleted after its folder was listed"),
        (lambda path: path.write_bytes(path.read_bytes() + b"!"), "was changed after"),
        (lambda path: os.utime(path, (1, 1)), "was changed after .*its time differs"),
    ],
)
def test_a_file_that_changes_while_a_run_reads_is_named(spoil: Any, said: str, workers: int, few: Path) -> None:
    data = streamed(few, workers)
    victim = few / "c01" / "00007.jpg"
    source = open_source(data.train)
    assert len(list(source.batches(30))) == 4
    assert index_path(few).is_file()
    spoil(victim)
    with pytest.raises(DataError, match=said) as caught:
        list(Streamed(data.train).batches(30)) + list(Streamed(data.test).batches(30))
    assert str(victim) in str(caught.value)
    assert not index_path(few).exists()  # so that the next start sees it


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=posix)])
def test_a_damaged_file_is_named_or_left_out_and_counted_as_when_decoded_first(workers: int, few: Path) -> None:
    for name in ("c00/00003.jpg", "c02/00011.jpg"):
        (few / name).write_bytes((few / name).read_bytes()[:200])
    data = streamed(few, workers)
    with pytest.raises(DataError, match=r"c0\d/000\d\d\.jpg: cannot be read as an image.*--skip-bad"):
        list(Streamed(data.train).batches(30))
    decoded = load(f"folder:{few}", skip_bad=True)
    shown: list[str] = []
    for _ in range(2):
        data = streamed(few, workers, skip_bad=True, show=lambda title, done, total: shown.append(title))
        assert data.skipped == decoded.skipped == 2
        assert np.array_equal(data.train.images[:], decoded.train.images)
        assert np.array_equal(data.test.labels, decoded.test.labels)
    assert sorted(shown) == ["checking few (test)", "checking few (train)"]  # once: the answer is kept


def test_the_size_is_that_of_the_first_image_that_can_be_read(few: Path) -> None:
    (few / "c00" / "00000.jpg").write_bytes(b"junk")
    settle(few)
    with pytest.raises(DataError, match=r"c00/00000\.jpg: cannot be read as an image"):
        streamed(few)
    data = streamed(few, skip_bad=True)
    assert (data.skipped, data.train.images.shape[2:]) == (1, (12, 12))
    for path in few.glob("*/*.jpg"):
        path.write_bytes(b"junk")
    settle(few)
    with pytest.raises(DataError, match=r"none of \d+ images can be read"):
        streamed(few, skip_bad=True)


@posix
def test_a_link_to_nothing_is_a_bad_image_and_a_link_back_is_no_folder(few: Path) -> None:
    (few / "c01" / "gone.png").symlink_to(few / "nothing.png")
    (few / "c01" / "sub").mkdir()
    (few / "c01" / "sub" / "back").symlink_to(few / "c01")
    settle(few)
    with pytest.raises(DataError, match=r"c01/gone\.png: cannot be read as an image"):
        load(f"folder:{few}")
    for data in (load(f"folder:{few}", skip_bad=True), streamed(few, skip_bad=True)):
        assert (data.skipped, data.ignored, len(data.train) + len(data.test)) == (1, 1, 120)


def test_another_size_is_named_with_what_to_do(few: Path) -> None:
    Image.new("RGB", (20, 10)).save(few / "c01" / "00000.jpg")
    settle(few)
    with pytest.raises(DataError, match=r"c01/00000\.jpg has 20x10, the first one 12x12; give --image-size N"):
        list(Streamed(streamed(few).train).batches(10)) + list(Streamed(streamed(few).test).batches(10))
    assert streamed(few, image_size=9).train.images.shape[2:] == (9, 9)


def test_what_cannot_be_is_refused_in_one_line(few: Path) -> None:
    with pytest.raises(InputError, match="-1 workers are not possible"):
        streamed(few, -1)
    with pytest.raises(InputError, match="allowed: auto, resident, stream"):
        load(f"folder:{few}", delivery=Delivery("steam"))
    with pytest.raises(InputError, match="loaded for streaming"):
        Streamed(load(f"folder:{few}").train)


# ---- runs -------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "registry.toml").write_text(REGISTRY)
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(tmp_path))
    torch.set_num_threads(1)


def asked(root: Path, mode: str = "stream", workers: int = 0, **more: Any) -> Request:
    spec_ = f"folder:{root}"
    return Request(model="tiny", dataset=spec_, device="cpu", data_mode=mode, workers=workers, **more)


def train(request: Request, folder: Path, stop: Iterator[int] | None = None) -> dict[str, torch.Tensor]:
    plan = resolve(request)
    write_record(folder, plan.record)
    trainer = Trainer(plan, folder, stop=(lambda: 0) if stop is None else lambda: next(stop), saving=Saving(0, 2))
    trainer.fit()
    return dict(trainer.module.state_dict())


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first | second)


def test_a_streamed_run_ends_as_the_resident_one_with_micro_batches_and_limits(
    tiny: None, few: Path, tmp_path: Path
) -> None:
    for number, more in enumerate(
        ({"settings": ("accumulate=3",), "batch_size": 32}, {"protocol": "paper", "limit_train": 60, "limit_test": 10})
    ):
        folders = [tmp_path / f"{mode}{number}" for mode in ("resident", "stream")]
        ends = [train(asked(few, folder.name[:-1], **more), folder) for folder in folders]
        assert equal(*ends)
        rows = [read_metrics(folder) for folder in folders]
        for one, other in zip(*rows, strict=True):
            assert {k: v for k, v in one.items() if "second" not in k} == {
                k: v for k, v in other.items() if "second" not in k
            }


def test_a_run_cuts_streamed_images_once_and_anew_each_epoch_as_resident_ones(
    tiny: None, few: Path, tmp_path: Path
) -> None:
    settings = ('augment=[{op="random-resized-crop"}]', "precision=fp32")
    losses = []
    for mode in ("resident", "stream"):
        train(asked(few, mode, settings=settings, batch_size=32, lr=1e-3, epochs=2), tmp_path / mode)
        losses.append([row["train_loss"] for row in read_metrics(tmp_path / mode)])
    assert losses[0] != losses[1]  # pixels are rounded differently
    assert losses[0] == pytest.approx(losses[1], abs=3e-3)


@posix
def test_a_run_stopped_inside_an_epoch_goes_on_to_the_bit_with_another_number_of_workers(
    tiny: None, few: Path, tmp_path: Path
) -> None:
    steps = '[{op="random-resized-crop"},{op="flip"},{op="cutmix"}]'
    request = asked(few, settings=(f"augment={steps}", "accumulate=2"), batch_size=16, epochs=3, image_size=10)
    whole = train(request, tmp_path / "whole")
    with pytest.raises(Stop):
        train(request, tmp_path / "part", iter([0] * 9 + [15]))
    record = read_record(tmp_path / "part")
    assert record.data.mode == "stream"
    trainer = Trainer(replan(record, workers=2), tmp_path / "part")
    found = checkpoint.newest(tmp_path / "part" / CHECKPOINTS)
    assert found is not None
    trainer.restore(found.state)
    assert 0 < trainer.at.step < trainer.steps
    trainer.fit()
    assert equal(whole, dict(trainer.module.state_dict()))
    other = train(
        asked(few, "resident", settings=request.settings, batch_size=16, epochs=3, image_size=10), tmp_path / "r"
    )
    assert not equal(whole, other)  # they are cut from images of another size


def test_a_streamed_run_is_evaluated_again_where_its_files_were_copied_to(
    tiny: None, few: Path, tmp_path: Path
) -> None:
    train(asked(few, epochs=1), tmp_path / "run")
    recorded = recorded_metrics(tmp_path / "run")
    assert open_run(tmp_path / "run").measure().as_dict() == recorded
    shutil.copytree(few, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(few)
    copied = open_run(tmp_path / "run", dataset=f"folder:{tmp_path / 'copy'}")
    assert copied.measure().as_dict() == recorded
    (tmp_path / "copy" / "c00" / "00000.jpg").rename(tmp_path / "copy" / "c00" / "other.jpg")
    with pytest.raises(RunError, match="is not the recorded one"):
        open_run(tmp_path / "run", dataset=f"folder:{tmp_path / 'copy'}")
    assert not list((Path(os.environ["ZOO_CACHE_DIR"]) / "images").glob("*"))  # nothing was decoded up front
