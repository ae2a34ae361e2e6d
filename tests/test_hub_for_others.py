"""What others read of a package: its result as the Hub's pages show it, and its signature; from the Hub and back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import yaml
from hub_server import HubServer
from hub_server.here import led_here
from hub_server.runs import own_caches, untrained_run
from huggingface_hub import parse_eval_result_entries

import zoo
from zoo.catalogue.registry import load_registry
from zoo.cli import main
from zoo.errors import InputError, PackageError, ZooWarning
from zoo.hub.eval_results import eval_results
from zoo.hub.pack import package
from zoo.hub.signature import signer
from zoo.hub.sums import CARD, CURVES, EVAL_RESULTS, FOR_PEOPLE, NAMES, ONNX, PROCESSOR, SIGNATURE, SUMS, write_sums
from zoo.runs.folder import read_result
from zoo.runs.record import RESULT, WEIGHTS, read_record

REPO, TOKEN = "me/our-digits", "hf_write"
REGISTRY = """
[datasets.our-digits]
source = "sklearn:digits"
num_classes = 10
size = [8, 8]
hub = "them/digits"
adapt = { precision = "fp32", augment = [], tta = "none" }
"""


class World(NamedTuple):
    """A Hub to which this process is led, a run on a dataset that it has, and the run's package."""

    hub: HubServer
    run: Path
    package: Path


class Keys(NamedTuple):
    """Files: a private key, its public one, and the public one of somebody else."""

    private: Path
    public: Path
    other: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("others")
    (folder / "registry.toml").write_text(REGISTRY)
    with (
        HubServer() as hub,
        own_caches(folder),
        led_here(hub, folder / "hf", TOKEN),
        pytest.MonkeyPatch.context() as at,
    ):
        at.chdir(folder)
        hub.store.users[TOKEN] = ("me", "write")
        run = untrained_run(folder / "run", "cnn-baseline", "our-digits", limit_train=64)
        made = package(run, folder / "package", predictions=False).folder
        yield World(hub, run, made)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    pytest.importorskip("model_signing", reason="needs the extra sign")
    folder = tmp_path_factory.mktemp("keys")
    return Keys(*pair(folder, "mine"), pair(folder, "theirs")[1])


@pytest.fixture(autouse=True)
def here(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which the registry names the dataset; and a Hub without repositories."""
    monkeypatch.chdir(world.package.parent)
    world.hub.store.repos.clear()


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world.package, tmp_path / "copy"))


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    """The files of a private and a public key, as openssl writes them."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    kind, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, kind, plain))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem", folder / f"{name}.pub"


def flip(path: Path) -> None:
    """Change one byte."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def ended(*words: object) -> int:
    """The code with which a command ends."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def files_there() -> set[str]:
    return {".gitattributes", SUMS, *NAMES} - {"confusion.png", ONNX, PROCESSOR}


# ---- the result as the Hub's pages read it -------------------------------------------------------------


def test_the_result_is_in_the_form_that_the_hub_parses(world: World) -> None:
    (entry,) = parse_eval_result_entries(yaml.safe_load((world.package / EVAL_RESULTS).read_text()))
    assert (entry.dataset_id, entry.task_id) == ("them/digits", "default")
    assert entry.value == read_result(world.package)["test"]["top1"]
    assert entry.notes == "test top-1; protocol clean; best top1 on validation, epoch 1; seed 0"
    assert f"  {EVAL_RESULTS}\n" in (world.package / SUMS).read_text()


@pytest.mark.parametrize(
    ("spec", "limit", "skipped", "dataset"),
    [
        ("cifar10", None, 0, "uoft-cs/cifar10"),
        ("cifar10-224", None, 0, "uoft-cs/cifar10"),
        ("hf:me/birds@v1", None, 0, "me/birds"),
        ("cifar10-grayscale", None, 0, None),
        ("digits", None, 0, None),
        ("hf:me/birds?test=other", None, 0, None),
        ("folder:birds", None, 0, None),
        ("cifar10", 100, 0, None),
        ("cifar10", None, 1, None),
    ],
)
def test_only_the_whole_test_split_of_a_dataset_of_the_hub_is_claimed(
    spec: str, limit: int | None, skipped: int, dataset: str | None, world: World
) -> None:
    record = read_record(world.package)
    data = msgspec.structs.replace(record.data, spec=spec, limit_test=limit, skipped=skipped)
    text = eval_results(msgspec.structs.replace(record, data=data), read_result(world.package), load_registry())
    assert (yaml.safe_load(text)[0]["dataset"]["id"] if text else None) == dataset


def test_it_is_published_and_comes_back_and_is_verified(world: World, tmp_path: Path) -> None:
    zoo.publish(world.package, REPO)
    assert set(world.hub.store.repos[REPO].head().files) == files_there()
    there = zoo.pull(REPO, tmp_path / "here").folder
    assert (there / EVAL_RESULTS).read_bytes() == (world.package / EVAL_RESULTS).read_bytes()
    checks = {check.name: check.holds for check in zoo.verify(f"hf://{REPO}").checks}
    assert checks["eval results"]
    zoo.publish(there, REPO)
    assert len(world.hub.store.repos[REPO].commits) == 2  # nothing to send


@pytest.mark.parametrize(
    "text",
    [
        "- dataset: {id: them/digits, task_id: default}\n  value: 0.99\n",
        "- value: 0.99\n",
        "[]",
        "{{",
        "- &a [*a]",
        "\0",
    ],
)
def test_another_number_is_found(text: str, copy: Path) -> None:
    (copy / EVAL_RESULTS).write_text(text)
    with pytest.raises(PackageError, match="is damaged"):
        zoo.verify(copy)
    write_sums(copy)
    verification = zoo.verify(copy)
    assert [check.name for check in verification.checks if not check.holds] == ["eval results"]


def test_a_package_without_it_is_opened_as_before(copy: Path) -> None:
    shutil.rmtree(copy / ".eval_results")
    write_sums(copy)
    assert zoo.verify(copy)
    assert "eval results" not in zoo.verify(copy).table.column("check")


def test_what_an_earlier_package_left_in_the_repository_is_deleted(world: World, keys: Keys, copy: Path) -> None:
    zoo.publish(world.package, REPO, sign=keys.private)
    assert SIGNATURE in world.hub.store.repos[REPO].head().files
    shutil.rmtree(copy / ".eval_results")
    write_sums(copy)
    zoo.publish(copy, REPO, replace_edits=True)
    assert set(world.hub.store.repos[REPO].head().files) == files_there() - {EVAL_RESULTS}
    zoo.pull(REPO)


def test_a_link_in_place_of_its_folder_is_not_sent(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / ".eval_results", tmp_path / "elsewhere")
    (copy / ".eval_results").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageError, match="symbolic link"):
        zoo.publish(copy, REPO, dry_run=True)


# ---- signatures ----------------------------------------------------------------------------------------


def test_a_signed_package_is_published_and_verified_by_the_key(world: World, keys: Keys, tmp_path: Path) -> None:
    planned = zoo.publish(world.package, REPO, sign=keys.private, dry_run=True)
    assert SIGNATURE in planned.files.column("name")
    assert ended("publish", world.package, REPO, "--sign", keys.private) == 0
    assert set(world.hub.store.repos[REPO].head().files) == {*files_there(), SIGNATURE}
    assert not (world.package / SIGNATURE).exists()
    assert ended("verify", f"hf://{REPO}", "--key", keys.public) == 0
    there = zoo.pull(REPO, tmp_path / "here").folder
    (seen,) = [check.seen for check in zoo.verify(there, key=keys.public).checks if check.name == "signature"]
    assert seen == f"signed by {keys.public}; 10 files are unchanged"
    zoo.publish(there, REPO)  # the same bytes: the signature stays what it is
    assert len(world.hub.store.repos[REPO].commits) == 2


@pytest.mark.parametrize("name", [WEIGHTS, RESULT, CARD, CURVES, EVAL_RESULTS])
def test_one_changed_byte_ends_a_signature_even_if_the_hashes_fit(
    name: str, world: World, keys: Keys, tmp_path: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = signed(world, keys, tmp_path)
    assert zoo.verify(made, key=keys.public)
    data = (made / name).read_bytes()
    (made / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if name == WEIGHTS else data + b"\n")
    if name not in FOR_PEOPLE:
        write_sums(made)
    assert ended("verify", made, "--key", keys.public) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "changed after it was signed: " in line
    assert name in line


def test_a_file_that_was_added_or_taken_away_ends_a_signature(world: World, keys: Keys, tmp_path: Path) -> None:
    made = signed(world, keys, tmp_path)
    shutil.copy(made / "composition.png", made / "confusion.png")
    with pytest.raises(PackageError, match=r"changed after it was signed: .*confusion\.png"):
        zoo.verify(made, key=keys.public)
    (made / "confusion.png").unlink()
    (made / "notes.txt").write_text("no file of a package")
    assert zoo.verify(made, key=keys.public)
    (made / CURVES).unlink()
    with pytest.raises(PackageError, match=r"curves\.png"):
        zoo.verify(made, key=keys.public)


def signed(world: World, keys: Keys, folder: Path) -> Path:
    return zoo.package(world.run, folder / "signed", predictions=False, sign=keys.private)


def test_another_key_and_no_signature_and_a_damaged_one_are_each_one_line(
    keys: Keys, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object) -> str:
        assert ended("verify", copy, *words) == 3
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "is not signed, because it has no model.sig" in refused("--key", keys.public)
    assert "is not signed" in refused("--identity", "me@example.org", "--identity-provider", "https://example.org")
    signer(keys.private)(copy)
    assert "is a signature by another key than" in refused("--key", keys.other)
    (copy / SIGNATURE).write_text("{}")
    assert "is no valid signature by" in refused("--key", keys.public)
    assert ended("verify", copy) == 0  # nobody asked who signed it


def test_the_librarys_own_command_checks_our_signature_and_we_check_its(keys: Keys, copy: Path) -> None:
    def theirs(*words: object) -> None:
        command = [sys.executable, "-m", "model_signing", *map(str, words), "--signature", copy / SIGNATURE, copy]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    signer(keys.private)(copy)
    theirs("verify", "key", "--public_key", keys.public)
    (copy / SIGNATURE).unlink()
    theirs("sign", "key", "--private_key", keys.private)
    assert zoo.verify(copy, key=keys.public)


@pytest.mark.parametrize("wrong", ["public", "absent", "nonsense"])
def test_a_wrong_key_is_refused_before_anything_is_made(wrong: str, world: World, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "nonsense").write_text("no key")
    key = {"public": keys.public, "absent": tmp_path / "absent", "nonsense": tmp_path / "nonsense"}[wrong]
    with pytest.raises(InputError, match=r"^--sign .*(cannot be read|is not a private key)"):
        zoo.package(world.run, tmp_path / "made", predictions=False, sign=key)
    assert not (tmp_path / "made").exists()
    with pytest.raises(InputError, match=r"^--key .*(cannot be read|is not a public key)"):
        zoo.verify(world.package, key=keys.private if wrong == "public" else key)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "a.pub", "identity": "me"}, "not both"),
        ({"identity": "me@example.org"}, "the name and its provider"),
        ({"identity_provider": "https://example.org"}, "the name and its provider"),
    ],
)
def test_half_an_identity_is_refused(options: dict[str, str], message: str, world: World) -> None:
    with pytest.raises(InputError, match=message):
        zoo.verify(world.package, **options)


def test_a_signature_of_other_bytes_is_not_published(world: World, keys: Keys, tmp_path: Path) -> None:
    """The name of the repository stands in the card only when it is published."""
    made = zoo.package(world.run, tmp_path / "made", predictions=False, sign=keys.private)
    with pytest.raises(PackageError, match="sign it again with --sign"):
        zoo.publish(made, REPO)
    zoo.publish(made, REPO, sign=keys.private)
    assert zoo.verify(f"hf://{REPO}", key=keys.public)


# ---- edits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CARD, CURVES])
def test_prose_edited_on_the_hub_is_said_in_one_line_by_whatever_loads_it(name: str, world: World) -> None:
    zoo.publish(world.package, REPO)
    assert told(lambda: zoo.load(REPO)) == []
    world.hub.store.put(REPO, {name: (world.package / name).read_bytes() + b"\n"})
    for call in (lambda: zoo.load(REPO), lambda: zoo.from_pretrained(REPO), lambda: zoo.evaluate(f"hf://{REPO}")):
        (line,) = told(call)
        assert line == (
            f"hf://{REPO}: {name} was edited after the package was made; weights, config and results are unchanged"
        )
    verification = zoo.verify(f"hf://{REPO}")
    assert verification
    assert verification.table.column("seen")[1].endswith(f"edited later: {name}")


def test_an_edited_folder_is_said_to_be_so_when_it_is_loaded(copy: Path) -> None:
    flip(copy / CURVES)
    (copy / CARD).write_text("# Mine\n")
    (line,) = told(lambda: zoo.load(copy))
    assert f"{CARD} and {CURVES} were edited" in line


@pytest.mark.parametrize("name", [n for n in NAMES if n not in (*FOR_PEOPLE, ONNX, PROCESSOR)])
def test_anything_else_that_was_changed_on_the_hub_is_refused(name: str, world: World, tmp_path: Path) -> None:
    zoo.publish(world.package, REPO)
    path = tmp_path / "changed"
    path.write_bytes((world.package / name).read_bytes())
    flip(path)
    world.hub.store.put(REPO, {name: path.read_bytes()})
    with pytest.raises(PackageError):
        zoo.verify(f"hf://{REPO}")
    if name not in ("metrics.jsonl", EVAL_RESULTS):  # these are not fetched for loading
        with pytest.raises(PackageError):
            zoo.load(REPO)


def test_offline_an_earlier_download_without_its_card_is_loaded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo.publish(world.package, REPO)
    zoo.load(REPO)
    for path in (world.package.parent / "hf").rglob(CARD):
        path.unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert told(lambda: zoo.load(REPO)) == []


def told(call: Callable[[], object]) -> list[str]:
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if issubclass(w.category, ZooWarning)]
