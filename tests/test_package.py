"""Packages: what is in them, and that nothing damaged, hostile or secret passes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import time
import tomllib
import warnings
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import tomli_w
import torch
from hub_server.hostile import bad_configs
from hub_server.runs import made_package, own_caches, untrained_run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zoo
from zoo.base.files import sha256_of
from zoo.catalogue.registry import Registry, load_registry
from zoo.data.portable import portable_spec
from zoo.errors import InputError, MissingPluginError, PackageError, RunError, ZooError
from zoo.hub.pack import package
from zoo.hub.package import open_package, tree_sha256
from zoo.hub.publish import prepare
from zoo.hub.ref import Ref
from zoo.hub.sums import CONFIG, EVAL_RESULTS, FOR_PEOPLE, NAMES, ONNX, PROCESSOR, SUMS, read_sums, write_sums
from zoo.runs.folder import read_result, write_result
from zoo.runs.record import METRICS, RECORD, RESULT, WEIGHTS, read_record, write_record

ON_REQUEST = (EVAL_RESULTS, ONNX, PROCESSOR)
"""What this package has not: nobody asked for it, and sklearn's digits are not on the Hub."""

FLIPS, CUTS = 500, 200
SECONDS, MEGABYTES = 5.0, 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def change_config(folder: Path, **changes: Any) -> None:
    """Change `zoo.<key>` and, as an attacker would, make everything else agree."""
    table = json.loads((folder / CONFIG).read_text())
    table["zoo"].update(changes)
    table["zoo"]["tree_sha256"] = tree_sha256(table["zoo"]["build"])
    (folder / CONFIG).write_text(json.dumps(table))
    record = tomllib.loads((folder / RECORD).read_text())
    record |= {k: v for k, v in table["zoo"].items() if k in ("model", "build", "sizes")}
    record["data"] |= {k: v for k, v in table["zoo"].items() if k in ("classes", "mean", "std")}
    (folder / RECORD).write_text(tomli_w.dumps(record))
    write_sums(folder)


def test_a_package_holds_these_files_and_the_hash_of_each(made: Path) -> None:
    assert {p.name for p in made.iterdir()} == {*NAMES, SUMS} - {*ON_REQUEST}
    for line in (made / SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest


def test_the_weights_name_their_model_and_the_hash_of_its_tree(made: Path) -> None:
    config = json.loads((made / CONFIG).read_text())["zoo"]
    with safe_open(made / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert metadata["zoo.model"] == config["model"] == "hybrid-alt-1"
    assert metadata["zoo.tree_sha256"] == config["tree_sha256"] == tree_sha256(config["build"])


def test_a_package_is_loaded_like_a_run(made: Path) -> None:
    module = zoo.load(made)
    assert module(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_packing_twice_gives_the_same_bytes(tmp_path: Path, made: Path) -> None:
    with own_caches(tmp_path):
        again = package(made.parent / "run", tmp_path / "again").folder
    assert (again / SUMS).read_text() == (made / SUMS).read_text()


def test_a_result_that_is_not_met_again_is_not_packed(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made.parent / "run", tmp_path / "run")
    result = read_result(tmp_path / "run")
    result["test"]["correct"] += 1
    write_result(tmp_path / "run", result)
    with pytest.raises(RunError, match="must give its recorded number again"):
        package(tmp_path / "run", tmp_path / "package")
    assert not (tmp_path / "package").exists()
    assert not list(tmp_path.glob(".zoo-tmp-*"))


def test_weights_that_are_not_finite_are_not_packed(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made.parent / "run", tmp_path / "run")
    weights = load_file(tmp_path / "run" / WEIGHTS)
    next(t for t in weights.values() if t.is_floating_point()).view(-1)[0] = float("nan")
    save_file(weights, tmp_path / "run" / WEIGHTS)
    with pytest.raises(PackageError, match="not finite"):
        package(tmp_path / "run", tmp_path / "package", predictions=False)


def test_something_else_is_never_replaced(tmp_path: Path, made: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a package"):
        package(made.parent / "run", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_link_is_not_published(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "secret").write_text((copy / METRICS).read_text())
    (copy / METRICS).unlink()
    (copy / METRICS).symlink_to(tmp_path / "secret")
    with pytest.raises(PackageError, match="symbolic link"):
        prepare(copy, Ref("me/digits"), tmp_path / "sent")


@pytest.mark.parametrize(
    ("spec", "portable"),
    [
        ("digits", "digits"),
        ("hf:me/birds@v1?label=kind", "hf:me/birds@v1?label=kind"),
        ("parquet:/home/me/secret/birds?label=kind", "parquet:birds?label=kind"),
        ("folder:../../x/photos/", "folder:photos"),
        ("folder:C:\\Users\\me\\photos", "folder:photos"),
        ("folder:~", "folder:data"),
        ("folder:/", "folder:data"),
    ],
)
def test_a_spec_loses_its_path(spec: str, portable: str) -> None:
    assert portable_spec(spec) == portable
    assert portable_spec(portable) == portable


def test_no_path_of_a_local_dataset_is_in_any_file(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made.parent / "run", tmp_path / "run")
    spec = f"parquet:{tmp_path}/birds?label=kind"
    record = read_record(tmp_path / "run")
    data = msgspec.structs.replace(record.data, spec=spec)
    write_record(tmp_path / "run", msgspec.structs.replace(record, data=data))
    write_result(tmp_path / "run", read_result(tmp_path / "run") | {"dataset": spec})
    folder = package(tmp_path / "run", tmp_path / "package", predictions=False).folder
    assert "parquet:birds?label=kind" in (folder / RECORD).read_text()
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_a_file_with_the_token_is_refused(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary_in_a_class_name")
    (copy / METRICS).write_text('{"note": "hf_canary_in_a_class_name"}\n')
    write_sums(copy)
    with pytest.raises(PackageError, match="contains your Hub token") as caught:
        prepare(copy, Ref("me/digits"), tmp_path / "sent")
    assert "canary" not in str(caught.value)


def named(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Call this computer by a name."""
    uname = os.uname_result(("Linux", host, "6", "1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: uname)


@pytest.mark.parametrize(
    "host", ["digits", "python", "hybrid-zoo", "resnet18", "epochs", "fingerprint", "annas-digits", "Residual.lan"]
)
def test_a_computer_that_is_called_by_an_ordinary_word_can_package(
    host: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, host)
    prepare(copy, Ref("anna/annas-digits"), tmp_path / "sent")


@pytest.mark.parametrize("text", ["from annas-desktop", "anna@annas-desktop.lan", "/mnt/annas-desktop/x"])
def test_the_name_of_the_computer_is_refused_wherever_else_it_stands(
    text: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, "annas-desktop.lan")
    (copy / "README.md").write_text((copy / "README.md").read_text() + text)
    with pytest.raises(PackageError, match="contains the name of this computer"):
        prepare(copy, Ref("me/digits"), tmp_path / "sent")


def test_a_home_folder_is_found_as_a_path_and_need_not_exist(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    prepare(copy, Ref("me/digits"), tmp_path / "none")
    card = (copy / "README.md").read_text()
    (copy / "README.md").write_text(f"{card}\nhttps://huggingface.co/datasets/me/birds and /datasetsmore\n")
    monkeypatch.setattr(Path, "home", lambda: Path("/datasets"))
    prepare(copy, Ref("me/digits"), tmp_path / "address")
    (copy / "README.md").write_text(f"{card}\nfile:///datasets/x\n")
    with pytest.raises(PackageError, match="the path of your home folder"):
        prepare(copy, Ref("me/digits"), tmp_path / "path")


def test_a_field_that_is_not_known_may_be_of_a_newer_version(copy: Path, registry: Registry) -> None:
    change_config(copy, invented=1)
    with pytest.raises(PackageError, match=r"`invented`.*a newer version may have written it; upgrade"):
        open_package(copy, registry=registry)


# ---- damage -----------------------------------------------------------------------------------


def test_every_flipped_bit_is_refused(copy: Path, registry: Registry) -> None:
    draw, files = random.Random(1), sorted(p for p in copy.iterdir() if p.name not in FOR_PEOPLE)
    open_package(copy, registry=registry)
    for _ in range(FLIPS):
        path = draw.choice(files)
        whole = path.read_bytes()
        at, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        line = whole.splitlines()[whole[:at].count(b"\n")] if path.name == SUMS else b""
        try:
            opened = open_package(copy, registry=registry)
        except PackageError:
            pass
        else:  # the listed hash of a file for people, which is then said to be edited
            assert opened.edited == [line.split()[1].decode()]
        path.write_bytes(whole)
    open_package(copy, registry=registry)


def test_every_truncation_is_refused(copy: Path, registry: Registry) -> None:
    draw, files = random.Random(2), sorted(p for p in copy.iterdir() if p.name not in FOR_PEOPLE)
    for _ in range(CUTS):
        path = draw.choice(files)
        whole = path.read_bytes()
        path.write_bytes(whole[: draw.randrange(len(whole))])
        with pytest.raises(PackageError):
            open_package(copy, registry=registry)
        path.write_bytes(whole)
    open_package(copy, registry=registry)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*FOR_PEOPLE, *ON_REQUEST)])
def test_a_damaged_file_is_not_published_and_named_where_the_user_has_it(name: str, copy: Path, tmp_path: Path) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PackageError, match="is damaged") as caught:
        prepare(copy, Ref("me/digits"), tmp_path / "sent")
    assert str(caught.value).startswith(f"{copy / name}: ")


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_what_is_for_people_may_be_edited_and_is_said_to_be(
    name: str, copy: Path, tmp_path: Path, registry: Registry
) -> None:
    data = (copy / name).read_bytes() + b"\n"
    (copy / name).write_bytes(data)
    assert open_package(copy, registry=registry, partial=False).edited == [name]
    assert zoo.load(copy).classes[3] == "3"
    plan = prepare(copy, Ref("me/digits"), tmp_path / "sent", registry=registry)
    assert plan.edited == (name,)
    assert (plan.package.folder / name).read_bytes() == data.replace(b"OWNER/NAME", b"me/digits")
    assert open_package(plan.package.folder, registry=registry, partial=False).edited == []


def test_what_was_written_into_a_package_is_not_lost_with_it(made: Path, copy: Path, tmp_path: Path) -> None:
    run, card = made.parent / "run", copy / "README.md"
    card.write_text(text := card.read_text("utf-8") + "What I know of these images.\n", "utf-8")
    with pytest.raises(InputError, match=r"copy: README\.md was edited there, and a new package would"):
        zoo.package(run, copy, predictions=False)
    assert card.read_text("utf-8") == text
    assert zoo.package(run, tmp_path / "elsewhere", predictions=False).is_dir()
    card.rename(tmp_path / "kept.md")
    zoo.package(run, copy, predictions=False)
    assert "What I know" not in card.read_text("utf-8")
    zoo.package(run, copy, predictions=False)  # nothing was edited


def test_the_licence_of_the_weights_that_a_run_began_with_is_not_forgotten(made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made.parent / "run", tmp_path / "run")
    record = read_record(run)
    for base, warns in (("timm/resnet18.a1_in1k", True), (f"hf://you/net@{'a' * 40}", True), ("sha256:0", False)):
        write_record(run, msgspec.structs.replace(record, base_model=base))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            folder = zoo.package(run, tmp_path / base[:4], predictions=False)
            zoo.package(run, tmp_path / f"named {base[:4]}", predictions=False, licence="mit")
            zoo.package(run, folder, predictions=False)  # which has its licence now
        said = [str(one.message) for one in caught if "whose licence may hold" in str(one.message)]
        assert len(said) == warns
        assert all(base in line and "apache-2.0" in line for line in said)


def test_weights_config_record_and_result_are_never_for_people() -> None:
    assert set(NAMES) - set(FOR_PEOPLE) == {CONFIG, RECORD, WEIGHTS, METRICS, RESULT, *ON_REQUEST}


@pytest.mark.parametrize("name", [n for n in (*NAMES, SUMS) if n in ("config.json", "run.toml", "result.json", SUMS)])
def test_a_missing_file_is_named(name: str, copy: Path, registry: Registry) -> None:
    (copy / name).unlink()
    with pytest.raises(PackageError, match=name):
        open_package(copy, registry=registry)


def edit_header(path: Path, edit: Any) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    edit(header)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + length :])
    write_sums(path.parent)


def first(header: dict[str, Any]) -> str:
    return next(name for name in header if name != "__metadata__")


@pytest.mark.parametrize(
    "edit",
    [
        lambda h: h[first(h)].update(shape=[1 << 50, 1 << 50]),
        lambda h: h[first(h)].update(shape=[-1]),
        lambda h: h[first(h)].update(dtype="F128"),
        lambda h: h[first(h)].update(data_offsets=[0, 1 << 60]),
        lambda h: h[first(h)].update(data_offsets=[8, 4]),
        lambda h: h[first(h)].update(extra=1),
        lambda h: h.update({"surprise": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
        lambda h: h.update({"renamed": h.pop(first(h))}),
        lambda h: h.update(__metadata__={"zoo.tree_sha256": "0" * 64}),
        lambda h: h.update(__metadata__=7),
    ],
)
def test_a_header_that_lies_is_refused_although_all_hashes_fit(edit: Any, copy: Path, registry: Registry) -> None:
    edit_header(copy / WEIGHTS, edit)
    with pytest.raises(PackageError):
        open_package(copy, registry=registry)


@pytest.mark.parametrize("length", [0, 7, 1 << 40, (1 << 64) - 1])
def test_an_endless_header_is_refused(length: int, copy: Path, registry: Registry) -> None:
    data = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(struct.pack("<Q", length) + data[8:])
    write_sums(copy)
    with pytest.raises(PackageError):
        open_package(copy, registry=registry)


# ---- hostile data -----------------------------------------------------------------------------


def test_a_missing_plugin_is_named_and_not_installed(copy: Path, registry: Registry) -> None:
    build = {"use": "quantum.net", "depth": 3}
    change_config(copy, build=build, plugins={"quantum.net": "zoo-quantum 1.2.0"})
    with pytest.raises(MissingPluginError, match=r"pip install zoo-quantum==1\.2\.0"):
        open_package(copy, registry=registry)


@pytest.mark.parametrize("origin", ["evil; rm -rf / 1.0", "--index-url=http://evil x", "", "a b c"])
def test_what_to_install_is_never_a_strangers_command(origin: str, copy: Path, registry: Registry) -> None:
    change_config(copy, build={"use": "quantum.net"}, plugins={"quantum.net": origin})
    with pytest.raises(MissingPluginError) as caught:
        open_package(copy, registry=registry)
    assert "pip install" not in str(caught.value)


def check_hostile(folder: Path, count: int, seed: int) -> tuple[float, float, int]:
    """Open `count` hostile packages; the slowest, the most memory, and how many were harmless."""
    registry, process = load_registry(), psutil.Process()
    whole = {name: (folder / name).read_bytes() for name in (CONFIG, RECORD)}
    slowest, most, harmless = 0.0, 0.0, 0
    for write in bad_configs(folder, whole, count, seed):
        case = write()
        write_sums(folder)
        before, start = process.memory_info().rss, time.process_time()
        try:
            open_package(folder, registry=registry)
            harmless += 1
        except ZooError:
            pass
        except Exception as error:
            raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
        seconds, taken = time.process_time() - start, (process.memory_info().rss - before) / 2**20
        assert seconds < SECONDS, (case, seconds)
        assert taken < MEGABYTES, (case, taken)
        slowest, most = max(slowest, seconds), max(most, taken)
    return slowest, most, harmless


def test_hostile_configs_end_in_our_error_quickly_and_small(copy: Path) -> None:
    check_hostile(copy, 150, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ten_thousand_hostile_configs_end_in_our_error(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slowest, most, harmless = check_hostile(copy, 10_000, seed=4)
    with capsys.disabled():
        print(f"\n10,000 hostile configs: slowest {slowest:.3f} s, most memory {most:.0f} MB, {harmless} harmless")


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_file_names_are_never_a_packages(count: int, copy: Path) -> None:
    draw, letters = random.Random(6), "abc/.-_ \\\0\n~$é\u202e"
    whole = (copy / SUMS).read_text()
    for _ in range(count):
        name = draw.choice(("../", "/etc/", "", "C:")) + "".join(draw.choice(letters) for _ in range(12))
        (copy / SUMS).write_bytes(f"{whole}{'0' * 64}  {name}\n".encode())
        with pytest.raises(PackageError):
            read_sums(copy / SUMS)


def test_sha256_of_reads_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 1_000_000)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_a_run_can_be_made_without_training(tmp_path: Path) -> None:
    with own_caches(tmp_path):
        folder = untrained_run(tmp_path / "run", limit_train=64, limit_test=64)
    assert read_result(folder)["parameters"] == 488_447
