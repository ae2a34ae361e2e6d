"""Images that stay in shards: the same images and labels as decoded ones, in an order that can be computed again."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from image_folders import write_images
from shard_files import mixed, sample, served, write_parquet, write_tar, write_tars

from zoo.catalogue import augmentation
from zoo.data.augment.crop import Bounds
from zoo.data.batches.mode import Delivery
from zoo.data.batches.open import open_source
from zoo.data.batches.sampler import refuse_sampler, split_order
from zoo.data.batches.stream import Streamed
from zoo.data.batches.windows import windows
from zoo.data.load import load
from zoo.data.normalization import measured
from zoo.data.shards.packed import ShardImages
from zoo.data.shards.shuffle import Shuffle
from zoo.data.shards.tar_index import read_tar
from zoo.data.sources.tar_files import expanded
from zoo.data.split import ImageData
from zoo.errors import DataError, InputError, ZooError
from zoo.runs.images import images_of
from zoo.train.plan import resolve
from zoo.train.run_options import Request

CLASSES, EACH, TESTS = 3, 40, 10
SMALL = "buffer=30"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as a folder, as tars and as parquet files; the cache is the module's own."""
    home = tmp_path_factory.mktemp("shards")
    write_images(home / "folder/train", CLASSES, EACH)
    write_images(home / "folder/test", CLASSES, TESTS, seed=1)
    for split, shards in (("train", 3), ("test", 1)):
        write_tars(home / "folder" / split, home / "tars", split, shards)
        write_parquet(home / "folder" / split, home / "parquet", split, shards)
    return home


@pytest.fixture(autouse=True)
def cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(home / "cache"))


def stream(spec: str, workers: int = 0, **more: Any) -> ImageData:
    return load(spec, delivery=Delivery("auto", workers), **more)


def spec_of(home: Path, kind: str, *options: str) -> str:
    scheme = {"tars": "wds", "parquet": "parquet"}[kind]
    return f"{scheme}:{home / kind}?{'&'.join(['stream', *options])}"


def pixels(data: ImageData) -> dict[bytes, int]:
    """The label of every training image, by its pixels."""
    return {data.train.images[row].tobytes(): int(data.train.labels[row]) for row in range(len(data.train))}


# ---- the same images --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tars", "parquet"])
def test_shards_hold_the_images_and_labels_of_the_folder(kind: str, home: Path) -> None:
    folder, shards = load(f"folder:{home / 'folder'}"), stream(spec_of(home, kind))
    assert pixels(shards) == pixels(folder)
    assert len(shards.test) == len(folder.test) == CLASSES * TESTS
    if kind == "tars":  # whose labels are names
        assert shards.classes == folder.classes
    decoded = load(spec_of(home, kind).removesuffix("?stream"))
    for one, other in ((shards.train, decoded.train), (shards.test, decoded.test)):
        assert one.origins() == other.origins()
        assert np.array_equal(one.images[:], other.images)
        assert np.array_equal(one.labels, other.labels)
    assert (shards.splits_from, shards.classes) == (decoded.splits_from, decoded.classes)
    assert shards.streamed
    assert not decoded.streamed


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.skipif(os.name == "nt", reason="POSIX"))])
@pytest.mark.parametrize("kind", ["tars", "parquet"])
def test_batches_are_those_of_a_folder_from_any_step_on(kind: str, workers: int, home: Path) -> None:
    data = stream(spec_of(home, kind, SMALL), workers)
    assert data.train.pool is not None
    order = split_order("shuffled", 7, 2, data.train)
    batches = torch.cat([order, order[:24]]).view(-1, 24)  # the last one is filled up from the first
    source = open_source(data.train, bounds=Bounds(), seed=7)
    whole = list(source.steps(batches, epoch=2))
    paths = [home / "folder/train" / Path(name).name.replace("-", "/") for name in data.train.origins()]
    if kind == "tars":
        folder = load(f"folder:{home / 'folder'}", delivery=Delivery("stream", 0))
        places = {path: row for row, path in enumerate(folder.train.origins())}
        plain = [torch.tensor([places[str(paths[row])] for row in batch.tolist()]) for batch in batches]
        other = Streamed(folder.train)
        uncut = Streamed(data.train)
        for rows, batch in zip(plain, batches, strict=True):
            assert all(map(torch.equal, other.take(rows), uncut.take(batch)))
    for start in (1, 4):
        again = list(source.steps(batches, start, epoch=2))
        assert len(again) == len(whole) - start
        assert all(
            torch.equal(a, b) for x, y in zip(again, whole[start:], strict=True) for a, b in zip(x, y, strict=True)
        )
    evaluated = torch.cat([images for _, images, _ in source.batches(50)])
    assert np.array_equal(evaluated.numpy(), data.train.images[:])
    data.train.pool.close()


def test_each_process_reads_its_columns_of_the_same_batches(home: Path) -> None:
    data = stream(spec_of(home, "parquet", SMALL))
    batches = split_order("shuffled", 1, 0, data.train).view(-1, 20)
    source = open_source(data.train)
    whole = [images for _, images, _ in source.steps(batches)]
    halves = [[images for _, images, _ in source.steps(part)] for part in batches.chunk(2, 1)]
    for images, *parts in zip(whole, *halves, strict=True):
        assert torch.equal(images, torch.cat(parts))


def test_a_part_of_the_images_is_ordered_by_the_blocks_that_it_has(home: Path) -> None:
    data = stream(spec_of(home, "parquet", SMALL))
    part = data.train.select(np.arange(0, len(data.train), 3))
    order = split_order("shuffled", 0, 0, part)
    assert sorted(order.tolist()) == list(range(len(part)))
    for rows, images, labels in open_source(part).steps(order.view(-1, 8)):
        assert np.array_equal(images.numpy(), part.images[rows.numpy()])
        assert np.array_equal(labels.numpy(), part.labels[rows.numpy()])


def test_at_most_two_windows_of_encoded_images_are_held(home: Path) -> None:
    data = stream(spec_of(home, "parquet", SMALL))
    images = data.train.images
    assert isinstance(images, ShardImages)
    source = Streamed(data.train, seed=4)
    order = split_order("shuffled", 4, 0, data.train)
    ahead: Any = source.reader.ahead(order.numpy(), 0)
    contents = [ahead.take(10) for _ in range(12)]
    lengths = np.array([len(content) for part in contents for content in part])
    window = windows(4, 0, images.blocks, images.sizes, images.shuffle).window[order.numpy()]
    largest = np.bincount(window, lengths).max()
    assert len(set(window)) >= 3
    assert largest <= ahead.most <= 2 * largest
    assert ahead.held == 0


# ---- what a SPEC says -------------------------------------------------------------------------


def test_braces_and_wildcards_name_the_tars_of_each_split(home: Path) -> None:
    assert expanded("a-{08..11}.{tar,tgz}") == [f"a-{n:02d}.{e}" for n in (8, 9, 10, 11) for e in ("tar", "tgz")]
    whole = stream(f"wds:{home / 'tars'}?stream")
    tars = home / "tars"
    for spec in (
        f"wds:{tars}/train-{{000000..000002}}.tar?stream&test={tars}/test-000000.tar",
        f"wds:{tars}/*.tar?stream",
        f"wds:{tars}/{{train-{{000000..000002}},test-000000}}.tar?stream",
    ):
        data = stream(spec)
        assert data.train.origins() == whole.train.origins()
        assert data.test.origins() == whole.test.origins()
    alone = stream(f"wds:{tars}/train-*.tar?stream")
    assert len(alone.test) == CLASSES * EACH // 5
    assert not {*alone.train.origins()} & {*alone.test.origins()}
    assert any("divided by chance" in note for note in alone.notes)


def test_validation_tars_select_and_are_not_learnt_from(home: Path, tmp_path: Path) -> None:
    for name, given in (("train", "train"), ("val", "test"), ("test", "test")):
        write_tars(home / "folder" / given, tmp_path, name, 1)
    data = stream(f"wds:{tmp_path}?stream")
    assert int(data.train.columns["validates"].sum()) == CLASSES * TESTS
    assert (len(data.train), data.splits_from.validation) == (CLASSES * (EACH + TESTS), "val")


@pytest.mark.parametrize("how", ["cls", "index.txt", "json.about.kind"])
def test_labels_are_numbers_or_names_in_a_file_or_a_json_field(how: str, home: Path, tmp_path: Path) -> None:
    files = mixed(home / "folder/train")[: 3 * CLASSES]

    def members(path: Path) -> list[tuple[str, bytes]]:
        number = int(path.parent.name[1:])
        (image, _), key = sample(path), f"{path.parent.name}-{path.stem}"
        text = {"cls": f"{number}\n", "index.txt": f" {number}"}.get(how, f'{{"about": {{"kind": "k{number}"}}}}')
        return [image, (f"{key}.{how.partition('.')[0] if 'json' in how else how}", text.encode())]

    write_tar(tmp_path / "a.tar", (member for path in files for member in members(path)))
    data = load(f"wds:{tmp_path}?label={how}", whole=True)
    names = ("k0", "k1", "k2") if "json" in how else ("0", "1", "2")
    assert (data.classes, data.named) == (names, "json" in how)
    assert data.train.labels.tolist() == [int(path.parent.name[1:]) for path in files]
    if how == "cls":
        (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\n")
        assert load(f"wds:{tmp_path}?classes=names.txt", whole=True).classes == ("ant", "bee", "cat", "dog")


def test_samples_without_a_label_or_an_image_are_counted(home: Path, tmp_path: Path) -> None:
    first, second, third, *rest = mixed(home / "folder/train")[:12]
    members = [sample(first)[0], sample(second)[1], *sample(third), ("._x.jpg", b"mac"), ("readme", b"text")]
    write_tar(tmp_path / "a.tar", [*members, *(member for path in rest for member in sample(path))])
    data = stream(f"wds:{tmp_path}?stream", whole=True)
    assert len(data.train) == 10
    assert {finding.message for finding in data.findings} == {
        "1 sample without a label not read",
        "1 sample without an image not read",
    }


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9000])


def cut_at(member: int, more: int) -> Any:
    """Keep the tar up to so many bytes after the header of a member begins."""

    def cut(path: Path) -> None:
        with tarfile.open(path) as tar:
            place = tar.getmembers()[member].offset
        path.write_bytes(path.read_bytes()[: place + more])

    return cut


def garble(path: Path) -> None:
    with tarfile.open(path) as tar:
        place = tar.getmembers()[4].offset
    content = bytearray(path.read_bytes())
    content[place : place + 512] = b"?" * 512
    path.write_bytes(content)


def pack(path: Path) -> None:
    import gzip

    path.write_bytes(gzip.compress(path.read_bytes()))


def put(*members: tuple[str, bytes]) -> Any:
    return lambda path: write_tar(path, members)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "cut short|unexpected end"),
        (cut_at(4, 100), "cut short after [0-9,]+ bytes; get it again"),
        (cut_at(4, 0), "cut short after [0-9,]+ bytes; get it again"),
        (garble, "at byte [0-9,]+; get it again"),
        (pack, r"is compressed \(gzip\).*decompress it"),
        (lambda path: path.write_bytes(b"no tar at all" * 99), "cannot be read as a tar file"),
        (
            put(("a.jpg", b"x"), ("a.txt", b"1")),
            r"'a' has no file \.cls \(its files: \.jpg, \.txt\); name it by \?label=",
        ),
        (put(("a.cls", b"1")), "no sample has an image"),
        (put(("a.jpg", b"x"), ("a.png", b"x"), ("a.cls", b"1")), r"several images; choose one by \?image=png"),
        (put(("a.jpg", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")), r"two files \.jpg"),
        (
            put(("a.jpg", b"x"), ("a.cls", b"1"), ("b.jpg", b"x"), ("b.cls", b"bee")),
            r"numbers \(1\) and names \('bee'\)",
        ),
        (put(("a.jpg", b"x"), ("a.cls", b"\xff\xfe")), "cannot be read as a label in UTF-8"),
    ],
    ids=[
        "cut",
        "cut-in-header",
        "cut-between",
        "garbled",
        "gzip",
        "no-tar",
        "no-label",
        "no-image",
        "two-images",
        "twice",
        "mixture",
        "bytes",
    ],
)
def test_tars_that_cannot_be_used_are_refused_in_one_line(damage: Any, said: str, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes((home / "tars/test-000000.tar").read_bytes())
    damage(path)
    with pytest.raises(ZooError, match=said) as error:
        load(f"wds:{path}", whole=True)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) or str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("wds:{tars}/nothing-*.tar", "no tar file .*nothing"),
        ("wds:{tars}/train-{{0000..x}}.tar", r"is no list; expected \{a,b\} or \{000..012\}"),
        ("wds:{tars}?buffer=none", r"\?buffer=none: expected a positive whole number"),
        ("wds:{tars}?test=holdout", "no tar file of split 'holdout'"),
        ("wds:{tars}?classes={tars}/../names.txt", "does not list the class 'c00'"),
        ("parquet:{tars}/../parquet?stream&alter_test=flip", "altered copies are kept decoded"),
        ("parquet:{tars}/../parquet?buffer=10", r"\?buffer= says how .*; add \?stream"),
        ("hf:me/it?buffer-mb=10", r"hf:me/it: \?buffer-mb= says how"),
        ("parquet:{tars}/../parquet?stream&buffer-mb=0", r"\?buffer-mb=0: expected a positive whole number"),
    ],
)
def test_a_spec_of_shards_that_cannot_be_is_refused(spec: str, said: str, home: Path) -> None:
    (home / "names.txt").write_text("ant\nbee\n")
    with pytest.raises(ZooError, match=said):
        load(spec.format(tars=home / "tars"))


def test_an_index_is_kept_until_the_tar_changes(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes((home / "tars/test-000000.tar").read_bytes())
    first = stream(f"wds:{path}?stream", whole=True)
    read: list[str] = []
    monkeypatch.setattr("zoo.data.shards.tar_index.read_tar", lambda *a, **k: read.append(a[1]) or read_tar(*a, **k))
    assert stream(f"wds:{path}?stream", whole=True).fingerprint == first.fingerprint
    assert read == []
    write_tar(path, [member for p in mixed(home / "folder/train")[:9] for member in sample(p)])
    second = stream(f"wds:{path}?stream", whole=True)
    assert (read, len(second.train)) == ([str(path)], 9)
    assert second.fingerprint != first.fingerprint


def test_a_tar_that_changes_while_it_is_read_and_a_damaged_image_are_named(home: Path, tmp_path: Path) -> None:
    good, bad = mixed(home / "folder/train")[:2]
    path = write_tar(tmp_path / "a.tar", [*sample(good), ("bad.jpg", b"no image"), ("bad.cls", b"c00"), *sample(bad)])
    data = stream(f"wds:{path}?stream", whole=True)
    with pytest.raises(DataError, match=r"a\.tar/bad\.jpg: cannot be read as an image"):
        open_source(data.train).take(torch.tensor([0, 1, 2]))
    left = stream(f"wds:{path}?stream&skip-bad", whole=True)
    assert (len(left.train), left.skipped) == (2, 2)  # once for each side of a whole
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(DataError, match=r"a\.tar: was changed after"):
        open_source(data.train).take(torch.tensor([0]))


@pytest.mark.parametrize("count", [12, 50, 1000])
def test_mean_and_std_are_measured_on_a_few_evenly_spaced_blocks(count: int, home: Path) -> None:
    data = stream(spec_of(home, "parquet"))
    images = data.train.images
    assert isinstance(images, ShardImages)
    rows = images.evenly(count, 3)
    blocks, counts = np.unique(images.blocks[rows], return_counts=True)
    assert blocks.tolist() == [0, 2, 4]
    assert set(counts.tolist()) == {min(-(-count // 3), 20)}
    assert (np.diff(rows) > 0).all()
    part = replace(data, fingerprint="part", train=data.train.select(np.arange(5, len(data.train))))
    assert measured(part, lambda *_: None).measured_on == len(data.train) - 5
    found = measured(data, lambda *_: None)
    assert found == measured(load(f"parquet:{home / 'parquet'}"), lambda *_: None)  # all are few here


def test_drawing_with_replacement_needs_tars_of_this_machine(home: Path) -> None:
    tars, parquet = stream(spec_of(home, "tars")), stream(spec_of(home, "parquet"))
    order = split_order("balanced", 0, 0, tars.train)
    for rows, images, _ in open_source(tars.train).steps(order.view(-1, 40)):
        assert np.array_equal(images.numpy(), tars.train.images[rows.numpy() % len(tars.train)])
    refuse_sampler("shuffled", parquet.train)
    with pytest.raises(InputError, match=r'set recipe.sampler="shuffled" with recipe.class_weights'):
        refuse_sampler("balanced", parquet.train)


# ---- at an address ----------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
def test_tars_at_an_address_are_those_of_the_folder(ranges: bool, home: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    local = stream(f"wds:{home / 'tars'}?stream&{SMALL}")
    with served(home / "tars", ranges=ranges) as server:
        spec = f"wds:{server.address}/{{train-{{000000..000002}},test-000000}}.tar?stream&{SMALL}"
        data = stream(spec)
        assert [Path(name).name for name in data.train.origins()] == [Path(n).name for n in local.train.origins()]
        assert data.train.origins()[0].startswith(f"{server.address}/train-000000.tar/")
        assert data.fingerprint == local.fingerprint
        orders = [split_order("shuffled", 1, 1, its.train) for its in (data, local)]
        assert torch.equal(*orders)
        server.asked.clear()
        server.failing = 2 if ranges else 0
        batches = orders[0].view(-1, 24)
        pairs = zip(open_source(data.train).steps(batches), open_source(local.train).steps(batches), strict=True)
        assert all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))
        parts = [asked for _, asked in server.asked]
        assert all(parts)  # nothing is fetched whole
        assert bool(parts) is ranges  # without ranges all of it is here already
        before = server.sent
        stream(spec)
        if ranges:  # the index is kept; the first image tells the size
            assert server.sent - before < 2000


def test_a_file_that_is_not_served_or_was_replaced_is_named(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "train-000000.tar"
    path.write_bytes((home / "tars/test-000000.tar").read_bytes())
    with served(tmp_path) as server:
        with pytest.raises(DataError, match=r"train-000001\.tar: the server refuses it \(status 404\)"):
            load(f"wds:{server.address}/train-{{000000..000001}}.tar?stream", whole=True)
        data = stream(f"wds:{server.address}/train-000000.tar?stream", whole=True)
        os.utime(path, (1, 1))
        with pytest.raises(DataError, match=r"train-000000\.tar: was changed after it was listed"):
            open_source(data.train).take(torch.tensor([0]))
    with pytest.raises(DataError, match=r"train-000000\.tar cannot be read \(.*\); check the address and the network$"):
        load(f"wds:{server.address}/train-000000.tar?stream", whole=True)


def test_a_run_records_how_its_shards_were_shuffled_and_keeps_to_it(home: Path) -> None:
    spec = spec_of(home, "parquet", SMALL)
    plan = resolve(Request(model="cnn-baseline", dataset=spec, device="cpu", workers=0))
    assert plan.record.data.shuffle == Shuffle(buffer=30)
    assert plan.record.data.mode == "stream"
    assert any("shuffled by 6 blocks of the shards and in windows of 30 images or 256 MB" in n for n in plan.notes)
    earlier = msgspec.structs.replace(plan.record.data, shuffle=Shuffle(buffer=17, block=9))
    images = images_of(msgspec.structs.replace(plan.record, data=earlier), plan.registry, workers=0).train.images
    assert isinstance(images, ShardImages)
    assert images.shuffle == Shuffle(buffer=17, block=9)
    folder = resolve(Request(model="cnn-baseline", dataset=f"folder:{home / 'folder'}", device="cpu", workers=0))
    assert folder.record.data.shuffle is msgspec.UNSET


def test_a_sampler_that_draws_is_refused_before_a_run_begins(home: Path) -> None:
    request = Request(model="cnn-baseline", dataset=spec_of(home, "parquet"), settings=("recipe.sampler=balanced",))
    with pytest.raises(InputError, match="read block by block"):
        resolve(request)


def test_a_crop_of_a_recipe_is_cut_by_the_workers(home: Path) -> None:
    data = stream(spec_of(home, "tars"))
    bounds = Bounds(augmentation.RandomResizedCrop().scale, augmentation.RandomResizedCrop().ratio)
    assert open_source(data.train, bounds=bounds).cropped
