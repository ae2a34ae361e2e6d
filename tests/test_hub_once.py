"""On its way to the Hub and back a package is hashed, opened and measured once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hub_server import HubServer
from hub_server.reads import reads
from hub_server.runs import made_package

from zoo.base.files import sha256_of
from zoo.catalogue.registry import load_registry
from zoo.hub.download import local_folder
from zoo.hub.package import open_package
from zoo.hub.publish import prepare
from zoo.hub.ref import Ref, parse_ref
from zoo.hub.sums import CARD, SUMS
from zoo.hub.verify import verify
from zoo.runs.folder import read_result
from zoo.runs.record import read_record, write_record

REPO = Ref("me/digits")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_package(tmp_path_factory.mktemp("once"))


@pytest.mark.parametrize(("predictions", "passes"), [(True, 1), (False, 0)])
def test_a_run_is_packed_by_one_hash_of_its_weights(predictions: bool, passes: int, made: Path, tmp_path: Path) -> None:
    run = made.parent / "run"
    with reads() as counted:
        prepare(run, REPO, tmp_path / "sent", predictions=predictions)
    # The header for the number type and for the check. Each pass over the test split opens the run as any evaluation
    # does: the header, then the tensors.
    assert counted.weights_below(run) == (2 + passes, 1 + passes)
    assert counted.weights_below(tmp_path) == (2, 0)  # one hash, one look at the header


def test_a_package_is_hashed_while_it_is_copied(made: Path, tmp_path: Path) -> None:
    with reads() as counted:
        prepare(made, REPO, tmp_path / "sent")
    assert counted.weights_below(made) == (1, 0)  # the copy, hashed
    assert counted.weights_below(tmp_path) == (1, 1)  # the header, and whether the tensors are finite


def test_a_folder_is_verified_by_one_hash_of_its_weights(made: Path) -> None:
    with reads() as counted:
        verify(str(made))
    # One hash; the header and the tensors when it is checked, and again when it is evaluated.
    assert counted.weights_below(made) == (3, 2)


@pytest.mark.slow
def test_a_download_is_verified_by_one_hash_of_its_weights(made: Path, tmp_path: Path) -> None:
    with HubServer() as hub:
        hub.store.put(REPO.repo, {path.name: path.read_bytes() for path in made.iterdir()})
        env = os.environ | hub.env(tmp_path / "hf") | {"HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-m", "hub_server.reads", str(REPO)]
        done = subprocess.run(command, env=env, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [3, 2]  # no more than a folder's


def test_a_run_and_its_package_are_published_as_the_same_bytes(made: Path, tmp_path: Path) -> None:
    first = prepare(made.parent / "run", REPO, tmp_path / "run")
    second = prepare(made, REPO, tmp_path / "package")
    assert (first.tag, first.title, first.files) == (second.tag, second.title, second.files)
    for name, _ in first.files:
        assert (first.package.folder / name).read_bytes() == (second.package.folder / name).read_bytes()
    assert first.package.sums_sha256 == sha256_of(first.package.folder / SUMS)


def test_a_package_that_was_published_before_names_its_new_repository(made: Path, tmp_path: Path) -> None:
    prose = "It began with hf://me/digits@0123abc; see hf://me/digits-2.\n\n## Results"
    card = (made / CARD).read_text("utf-8").replace("## Results", prose)
    (copied := tmp_path / "copied").mkdir()
    for path in made.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    (copied / CARD).write_text(card, "utf-8")
    pulled = prepare(copied, REPO, tmp_path / "pulled").package.folder
    again = prepare(pulled, Ref("you/a-copy"), tmp_path / "again").package.folder
    assert (again / CARD).read_text("utf-8") == card.replace("OWNER/NAME", "you/a-copy")


@pytest.mark.parametrize("spec", ["folder:Fotos-Größe", f"folder:{'猫犬' * 30}", "sklearn:digits"])
def test_the_tag_of_a_publication_is_a_revision_that_can_be_asked_for(spec: str, made: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made.parent / "run", tmp_path / "run")
    record = read_record(run)
    write_record(run, msgspec.structs.replace(record, data=msgspec.structs.replace(record.data, spec=spec)))
    tag = prepare(run, REPO, tmp_path / "sent", predictions=False).tag
    assert parse_ref(f"{REPO}@{tag}") == Ref(REPO.repo, tag)
    assert f"-clean-{read_result(run)['test']['top1'] * 100:.2f}-s0-" in tag


def test_what_a_package_knows_of_itself_is_what_a_stranger_reads(made: Path, tmp_path: Path) -> None:
    registry = load_registry()
    for source in (made.parent / "run", made):
        package = prepare(source, REPO, tmp_path / source.name, registry=registry).package
        assert package == open_package(package.folder, registry=registry, partial=False)


def test_the_registry_that_is_given_is_the_one_that_is_used(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_registry()

    def refused(**options: object) -> None:
        raise AssertionError("the registry was loaded again")

    for module in [name for name in sys.modules if name.startswith("zoo.hub.")]:
        monkeypatch.setattr(f"{module}.load_registry", refused, raising=False)
    for source in (made.parent / "run", made):
        prepare(source, REPO, tmp_path / source.name, registry=registry)
    local_folder(made, registry=registry)
    assert verify(str(made), registry=registry)
