"""`zoo release`: every run at hand becomes a package, a repository, an item of a collection and an entry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner, Result
from hub_server import HubServer
from hub_server.here import led_here
from hub_server.runs import own_caches
from hub_server.worker import Worker

import zoo
from zoo.catalogue.registry_edit import weights_in
from zoo.cli import cli
from zoo.errors import HubLoginError, InputError, RunError
from zoo.hub.release_choice import choose, target_of
from zoo.hub.released import Release
from zoo.hub.sums import ONNX, PROCESSOR, SIGNATURE, write_sums
from zoo.runs.find import find
from zoo.runs.folder import read_result, write_result
from zoo.runs.record import read_record, write_record

TOKEN = "hf_release"
TRAINED = 3
NAMES = tuple(f"tiny-{number}" for number in range(10))
MODEL = """
# {name}: the same small network under another name
[models.{name}]   # its table
summary = "a small network"
family = "cnn"
recipe = "cnn-to-others"
dataset = "digits"
build = {{ use = "cnn.baseline" }}
"""
FILE = "".join(MODEL.format(name=name) for name in NAMES) + "\n# the end\n"
WRITES = {"create", "commit", "lfs-put", "tag", "preupload"}


class World(NamedTuple):
    """A folder of the user's with the registry file and the runs, and a Hub that knows the user as `owner`."""

    folder: Path
    hub: HubServer
    owner: str

    @property
    def file(self) -> Path:
        return self.folder / "registry.toml"

    def run(self, number: int) -> Path:
        return self.folder / "runs" / NAMES[number]

    def keep(self, *numbers: int) -> None:
        """Remove all other runs."""
        for path in list((self.folder / "runs").iterdir()):
            if path.name not in {NAMES[number] for number in numbers}:
                shutil.rmtree(path)

    def writes(self) -> list[str]:
        """The requests by which something on the Hub was changed, since the log was cleared."""
        return [row.kind for row in self.hub.log if row.kind in WRITES]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten models in a registry file, three of them trained for an epoch on a few digits; the other runs are copies."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "registry.toml").write_text(FILE)
    with own_caches(tmp_path_factory.mktemp("caches")), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number in range(TRAINED):
            train(number)
        for number in range(TRAINED, len(NAMES)):
            shutil.copytree(folder / "runs" / NAMES[0], folder / "runs" / NAMES[number])
            change_record(folder / "runs" / NAMES[number], model=NAMES[number])
    return folder


def train(number: int) -> None:
    name = NAMES[number]
    zoo.train(name, epochs=1, limit_train=80, limit_test=50, seed=number, device="cpu", output=f"runs/{name}")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer() as hub, led_here(hub, tmp_path_factory.mktemp("hf"), TOKEN):
        yield hub


@pytest.fixture
def world(
    trained: Path, hub: HubServer, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> World:
    """A copy of the folder, and a user whose repositories nobody else has."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    owner = f"user{len(hub.store.users)}"
    hub.store.users = {
        **dict.fromkeys(map(str, range(len(hub.store.users))), ("nobody", "read")),
        TOKEN: (owner, "write"),
    }
    hub.store.repos.clear()
    hub.store.collections.clear()
    hub.log.clear()
    return World(tmp_path, hub, owner)


def release(world: World, *runs: str | Path, **options: Any) -> Release:
    return zoo.release(*runs, to=world.owner, predictions=False, **options)


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


def states(made: Any) -> dict[str, str]:
    return {row["run"]: row["state"] for row in made.rows}


def reasons(world: World, *runs: str, **specs: Any) -> dict[str, str]:
    """Why runs are left out, by their names; nothing is asked of the Hub."""
    found, _ = find(runs)
    named = {(world.folder / "runs" / run).resolve() for run in runs}
    _, left_out = choose(found, named, target_of(world.owner, world.file, **{"datasets": (), **specs}))
    return {one.run.name: one.reason for one in left_out}


def change_record(folder: Path, **changes: Any) -> None:
    write_record(folder, msgspec.structs.replace(read_record(folder), **changes))


def without_entries(file: Path, *numbers: int) -> str:
    """The text of the registry file without the entries of these models, each with the line before it."""
    text = file.read_text()
    for number in numbers:
        text, header, rest = text.partition(f"\n[[models.{NAMES[number]}.weights]]\n")
        assert header
        text += "".join(rest.partition("\n\n")[1:])[1:] if "\n\n" in rest else ""
    return text


def items(world: World) -> list[str]:
    return [item["id"] for made in world.hub.store.collections.values() for item in made["items"]]


# ---- what is done ------------------------------------------------------------------------------------


def test_a_run_becomes_a_repository_an_item_and_an_entry_once(world: World) -> None:
    world.keep(0, 2)
    made = release(world)
    assert states(made) == {NAMES[0]: "released", NAMES[2]: "released"}
    assert made.failed == ()
    assert {row["steps"] for row in made.rows} == {("package", "publish", "entry", "collection")}
    repos = [f"{world.owner}/{NAMES[0]}-digits", f"{world.owner}/{NAMES[2]}-digits"]
    assert (sorted(world.hub.store.repos), items(world)) == (repos, repos)
    sent = [file for repo in world.hub.store.repos.values() for file in repo.head().files.values()]
    assert made.files == len(sent) - 2  # the Hub's own file in each
    assert without_entries(world.file, 2, 0) == FILE
    for number in (0, 2):
        name = f"{NAMES[number]}@digits"
        assert zoo.load(name).record.seed == number
        assert zoo.verify(name).holds

    world.hub.log.clear()
    before = world.file.read_bytes()
    again = release(world)
    assert set(states(again).values()) == {"present"}
    assert (again.files, world.writes(), world.file.read_bytes()) == (0, [], before)
    assert len({repo.head().oid for repo in world.hub.store.repos.values()}) == 2


def test_what_was_lost_is_done_again_and_nothing_else(world: World) -> None:
    world.keep(0, 1, 2)
    release(world)
    whole, commits = world.file.read_text(), {repo: r.head().oid for repo, r in world.hub.store.repos.items()}
    world.file.write_text(FILE)  # as before the first entry
    next(iter(world.hub.store.collections.values()))["items"].pop()
    card = f"{world.owner}/{NAMES[1]}-digits"
    readme = world.hub.store.content(world.hub.store.repos[card].head().files["README.md"])
    edit = world.hub.store.put(card, {"README.md": readme + b"\nA remark.\n"}, "an edited card")
    shutil.rmtree(world.run(2) / "package")
    (world.run(2) / ".zoo-tmp-abc" / "package").mkdir(parents=True)
    world.hub.log.clear()

    made = release(world)
    assert {row["run"]: row["steps"] for row in made.rows} == {
        NAMES[0]: ("entry",),
        NAMES[1]: ("entry",),
        NAMES[2]: ("package", "entry", "collection"),
    }
    assert (made.files, world.writes()) == (0, ["tag"] * 3)  # which are there
    assert world.file.read_text() == whole.replace(commits[card], edit.oid)
    assert not (world.run(2) / ".zoo-tmp-abc").exists()
    assert zoo.load(f"{NAMES[1]}@digits").record.seed == 1


def test_a_dry_run_says_what_would_be_done_and_does_nothing(world: World) -> None:
    world.keep(0, 1, 2)
    (world.run(2) / "result.json").unlink()
    release(world, NAMES[0], collection="")
    before = {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
    world.hub.log.clear()
    done = typed("release", "--to", world.owner, "--dry-run", "--no-predictions", "--json")
    assert done.exception is None, done.output
    plan = json.loads(done.stdout)
    rows = {row["run"]: (row["state"], row["steps"]) for row in plan["rows"]}
    assert rows == {
        NAMES[0]: ("planned", ["collection"]),
        NAMES[1]: ("planned", ["package", "publish", "entry", "collection"]),
        NAMES[2]: ("left out", []),
    }
    assert world.writes() == []
    assert before == {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
    shown = typed("release", "--to", world.owner, "--dry-run", "--no-predictions")
    assert f"{plan['bytes']:,} bytes to send" in shown.stderr
    assert f"left out: {NAMES[2]}: was not finished" in shown.stderr

    made = release(world)
    assert (made.files, made.size) == (plan["files"], plan["bytes"])
    repo = world.hub.store.repos[f"{world.owner}/{NAMES[1]}-digits"]
    assert made.size == sum(file.size for name, file in repo.head().files.items() if name != ".gitattributes")


def test_a_run_that_fails_does_not_stop_the_others(world: World) -> None:
    world.keep(0, 1)
    weights = world.run(0) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    done = typed("release", "--to", world.owner, "--no-predictions", "--private", "--collection", "mine")
    assert isinstance(done.exception, SystemExit)
    assert done.exception.code == 1
    assert f"failed: {NAMES[0]}: " in done.stderr
    assert "model.safetensors" in done.stderr
    assert list(weights_in(world.file, NAMES[1])) == ["digits"]
    assert weights_in(world.file, NAMES[0]) == {}
    assert all(repo.private for repo in world.hub.store.repos.values())
    (made,) = world.hub.store.collections.values()
    assert (made["title"], made["private"], len(made["items"])) == ("mine", True, 1)


def test_a_file_without_room_for_the_entry_is_found_before_anything_is_sent(world: World) -> None:
    world.keep(0)
    world.file.write_text(FILE.replace('"digits"\n', '"digits"\nweights = []\n', 1))
    made = release(world)
    assert "[[models.tiny-0.weights]]" in made.failed[0]
    assert world.writes() == []


def test_a_token_that_may_not_write_there_fails_for_each_run(world: World) -> None:
    world.keep(0, 1)
    made = zoo.release(to="somebody", predictions=False)
    assert [row["state"] for row in made.rows] == ["failed", "failed"]
    assert world.file.read_text() == FILE
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HF_TOKEN")
        with pytest.raises(HubLoginError, match="needs a Hub token"):
            release(world)


# ---- what an entry that is there means --------------------------------------------------------------------


def test_better_weights_stay_unless_a_run_is_named(world: World) -> None:
    world.keep(0)
    release(world)
    entry = weights_in(world.file, NAMES[0])["digits"]
    text = world.file.read_text().replace(f"top1 = {entry.top1}", "top1 = 0.99").replace(entry.sha256, "7" * 64)
    world.file.write_text(text)
    made = release(world)
    assert states(made) == {NAMES[0]: "left out"}
    assert "weights with top-1 99.00%" in made.left_out[0]
    assert world.file.read_text() == text
    assert states(release(world, NAMES[0])) == {NAMES[0]: "released"}
    assert weights_in(world.file, NAMES[0])["digits"] == entry


def test_a_run_that_was_measured_on_a_few_images_takes_no_place_unasked(world: World) -> None:
    world.keep(0, 1)
    release(world, NAMES[0])
    change_record(world.run(1), model=NAMES[0])
    result = read_result(world.run(1))
    few = {**result["test"], "correct": 20, "count": 20, "top1": 1.0}
    write_result(world.run(1), {**result, "test": few})
    shutil.rmtree(world.run(0))
    (row,) = release(world).rows
    assert row["reason"] == (
        "the registry file has weights that were measured on 50 test images, and these on 20 test images; name the run "
        "to release it instead"
    )
    world.file.write_text(world.file.read_text().replace("test_images = 50\n", ""))  # as earlier versions wrote it
    (row,) = release(world).rows
    assert "measured on about 50 test images, and these on 20 test images;" in row["reason"]


def test_a_better_run_takes_the_place_of_the_entry(world: World) -> None:
    world.keep(0, 1)
    release(world, NAMES[0])
    first = weights_in(world.file, NAMES[0])["digits"]
    change_record(world.run(1), model=NAMES[0])
    result = read_result(world.run(1))
    write_result(world.run(1), {**result, "test": {**result["test"], "correct": 50, "top1": 1.0}})
    assert states(release(world)) == {NAMES[0]: "left out", NAMES[1]: "released"}
    (second,) = weights_in(world.file, NAMES[0]).values()
    repo = world.hub.store.repos[f"{world.owner}/{NAMES[0]}-digits"]
    assert (second.top1, second.seed, second.where.rpartition("@")[2]) == (1.0, 1, repo.head().oid)
    assert second.sha256 != first.sha256
    assert without_entries(world.file, 0) == FILE


def test_weights_beside_the_registry_file_stay_its_weights(world: World) -> None:
    world.keep(0)
    release(world)
    entry = weights_in(world.file, NAMES[0])["digits"]
    beside = world.file.read_text().replace(entry.where, "wheel:weights/tiny")
    world.file.write_text(beside)
    assert states(release(world)) == {NAMES[0]: "present"}
    world.hub.store.repos.clear()
    made = release(world)
    assert made.rows[0]["steps"] == ("publish",)
    assert world.file.read_text() == beside
    world.file.write_text(beside.replace(entry.sha256, "7" * 64))
    assert "wheel:weights/tiny" in release(world, NAMES[0]).failed[0]


def test_the_licence_is_that_of_the_package(world: World) -> None:
    world.keep(0)
    zoo.package(world.run(0), licence="mit", predictions=False)
    assert "has the licence 'mit' already" in release(world, licence="cc0-1.0").failed[0]
    assert world.writes() == []
    release(world)
    assert weights_in(world.file, NAMES[0])["digits"].licence == "mit"


def test_the_number_is_that_of_the_package(world: World) -> None:
    """Weights in 16 bits may be right of another number of images than the run's."""
    world.keep(0)
    package = zoo.package(world.run(0), predictions=False)
    result = read_result(package)
    test = {**result["test"], "correct": result["test"]["correct"] + 1}
    write_result(package, {**result, "test": {**test, "top1": test["correct"] / test["count"]}})
    write_sums(package)
    (row,) = release(world).rows
    assert row["top1"] == test["correct"] / test["count"]
    assert f"top-1 {row['top1']:.2%}" in str(world.hub.store.collections)


def test_a_file_that_is_added_to_the_package_later_is_sent(world: World) -> None:
    world.keep(0)
    release(world)
    package = world.run(0) / "package"
    (package / PROCESSOR).write_text("{}")
    write_sums(package)
    (row,) = release(world).rows
    assert row["steps"] == ("publish", "entry")
    assert PROCESSOR in world.hub.store.repos[row["repo"]].head().files
    assert states(release(world)) == {NAMES[0]: "present"}


def test_a_signed_package_says_how_it_is_published(world: World) -> None:
    world.keep(0)
    package = zoo.package(world.run(0), predictions=False)
    (package / SIGNATURE).write_text("{}")
    assert "its package is signed" in release(world).failed[0]
    assert world.writes() == []


def test_another_licence_of_what_is_released_is_not_passed_over(world: World) -> None:
    world.keep(0)
    release(world)
    assert "has the licence 'apache-2.0' already" in release(world, licence="mit").failed[0]
    zoo.package(world.run(0), licence="mit", predictions=False)
    assert release(world, licence="mit").rows[0]["steps"] == ("publish", "entry")
    assert weights_in(world.file, NAMES[0])["digits"].licence == "mit"
    assert states(release(world)) == {NAMES[0]: "present"}


def test_a_package_that_is_made_again_keeps_its_licence_and_its_files(world: World) -> None:
    world.keep(0)
    package = zoo.package(world.run(0), licence="mit", predictions=False, onnx=True)
    result = read_result(world.run(0))
    write_result(world.run(0), {**result, "train": {**result["train"], "seconds": 12345.5}})
    assert release(world).rows[0]["steps"][0] == "package"
    assert (package / ONNX).is_file()
    assert weights_in(world.file, NAMES[0])["digits"].licence == "mit"


def test_a_package_of_an_earlier_result_is_made_again(world: World) -> None:
    world.keep(0)
    package = zoo.package(world.run(0), predictions=False)
    result = read_result(world.run(0))
    write_result(world.run(0), {**result, "train": {**result["train"], "seconds": 12345.5}})
    assert release(world).rows[0]["steps"][0] == "package"
    assert read_result(package)["train"]["seconds"] == 12345.5


def test_an_edited_card_stops_a_release_that_would_replace_it_and_is_told_by_a_dry_run(world: World) -> None:
    world.keep(0)
    card = zoo.package(world.run(0), predictions=False) / "README.md"
    card.write_text(f"{card.read_text()}\nA remark.\n")
    result = read_result(world.run(0))
    write_result(world.run(0), {**result, "train": {**result["train"], "seconds": 12345.5}})
    for dry_run in (True, False):
        (row,) = release(world, dry_run=dry_run).rows
        assert row["state"] == "failed"
        assert "README.md was edited there" in row["reason"]
    assert card.read_text().endswith("A remark.\n")
    card.rename(world.folder / "README.md")
    assert states(release(world)) == {NAMES[0]: "released"}


def test_a_package_without_the_temperature_of_its_run_is_made_again_in_its_number_type(world: World) -> None:
    """The temperature changes no count, so that nothing else of a result tells the two packages apart."""
    world.keep(0)
    assert zoo.release(to=world.owner, precision="bf16").rows[0]["state"] == "released"
    figures = {"loss": 2.3, "ece": 0.02, "mce": 0.1, "brier": 0.9}
    calibrated = {"temperature": 1.5, "images": 30, "before": figures, "after": figures}
    write_result(world.run(0), {**read_result(world.run(0)), "calibration": calibrated})
    with pytest.raises(RunError, match="was made before the run's present result"):
        zoo.verify(world.run(0))
    (row,) = zoo.release(to=world.owner).rows
    assert row["steps"] == ("package", "publish", "entry")
    assert weights_in(world.file, NAMES[0])["digits"].precision == "bf16"
    assert read_result(world.run(0) / "package")["calibration"] == calibrated
    assert zoo.verify(world.run(0)).holds
    assert states(release(world)) == {NAMES[0]: "present"}


# ---- which runs --------------------------------------------------------------------------------------


def test_every_run_that_is_left_out_has_its_reason(world: World) -> None:
    world.keep(0, 1, 2, 3, 4, 5, 6)
    shutil.copy(world.file, world.folder / "other.toml")
    (world.run(0) / "result.json").unlink()
    change_record(world.run(1), model="unheard-of")
    change_record(world.run(2), model="cnn-baseline")
    change_record(world.run(3), build={"use": "cnn.baseline", "dropout": 0.5})
    change_record(world.run(4), recipe="unheard-of")
    change_record(world.run(5), protocol="paper")
    data = read_record(world.run(6)).data
    change_record(world.run(6), data=msgspec.structs.replace(data, spec="parquet:here/digits"))
    said = reasons(world)
    expected = ("not finished", "'unheard-of' has no entry", "give --registry", "is not the 'tiny-3'", "its recipe")
    expected += ("name the run", "give --dataset NAME=parquet:here/digits")
    assert len(said) == len(expected)
    for words, line in zip(expected, said.values(), strict=True):
        assert words in line
    assert "tiny-5" not in reasons(world, "tiny-5")
    for spec in ("digits=parquet:here/digits", f"digits=parquet:{world.folder}/here/../here/digits"):
        assert "tiny-6" not in reasons(world, datasets=(spec,))
    assert "classes" in reasons(world, datasets=("cifar10=parquet:here/digits",))["tiny-6"]


def test_the_best_run_of_the_most_images_is_released_or_the_named_one(world: World) -> None:
    world.keep(0, 1, 2)
    for number, (correct, count) in enumerate([(30, 50), (20, 50), (9, 10)]):
        change_record(world.run(number), model="tiny-0")
        result = read_result(world.run(number))
        test = {**result["test"], "correct": correct, "count": count, "top1": correct / count}
        write_result(world.run(number), {**result, "test": test})
    assert reasons(world) == dict.fromkeys(
        ("tiny-1", "tiny-2"), "tiny-0 is the best for tiny-0@digits: top-1 60.00% on 50 test images"
    )
    found, _ = find(())
    target = target_of("me", world.file, ())
    (chosen,), left_out = choose(found, {world.run(1).resolve()}, target)
    assert chosen.run.name == "tiny-1"
    assert {one.reason for one in left_out} == {"tiny-1 was named for tiny-0@digits"}
    with pytest.raises(InputError, match="tiny-0 and tiny-2 are both named"):
        choose(found, {world.run(0).resolve(), world.run(2).resolve()}, target)


def test_two_names_of_one_repository_are_refused(world: World) -> None:
    world.keep(0, 1)
    world.file.write_text(
        FILE.replace("tiny-1", "tiny-0-digits")
        + '\n[datasets.digits-digits]\nsource = "sklearn:digits"\nsize = [8, 8]\n'
    )
    change_record(world.run(1), model="tiny-0-digits")
    data = read_record(world.run(0)).data
    change_record(world.run(0), data=msgspec.structs.replace(data, spec="digits-digits"))
    said = reasons(world)
    assert sorted(said) == ["tiny-0", "tiny-1"]
    assert all(f"would both be {world.owner}/tiny-0-digits-digits" in line for line in said.values())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"to": "me/mine"}, "without a /"),
        ({"to": "a--b"}, "OWNER/NAME"),
        ({"registry": "absent.toml"}, "no such registry file"),
        ({"dataset": "parquet:here"}, "NAME=SPEC"),
        ({"dataset": "digit=parquet:here"}, "did you mean digits"),
        ({"runs": ("nothing",)}, "no run folder 'nothing'"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked: dict[str, Any], words: str, world: World) -> None:
    asked = {"to": "me", **asked}
    with pytest.raises(InputError, match=words):
        zoo.release(*asked.pop("runs", ()), **asked)
    assert world.hub.log == []


# ---- killed ------------------------------------------------------------------------------------------


def kill_when(worker: Worker, comes: Callable[[], bool], *words: str) -> None:
    """Run a command in a process, and end the process by SIGKILL at once when something has come."""
    worker("runs")  # its imports

    def watch() -> None:
        while not comes():
            time.sleep(0.0005)
        os.kill(worker.process.pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    with pytest.raises((AssertionError, BrokenPipeError)):
        worker(*words)
    thread.join(30)
    assert worker.process.wait(30) == -signal.SIGKILL


@pytest.mark.slow
def test_a_release_of_ten_models_that_is_killed_goes_on_where_it_stopped(world: World) -> None:
    world.keep(*range(TRAINED))
    for number in range(TRAINED, len(NAMES)):
        train(number)
    repos, words = world.hub.store.repos, ("release", "--to", world.owner, "--no-predictions")

    def committed() -> int:
        return sum(len(repo.commits) > 1 for repo in list(repos.values()))

    moments: list[Callable[[], bool]] = [
        lambda: committed() == 3,  # the answer to the third commit is on its way
        lambda: len(repos) == 6 and committed() == 5,  # the sixth repository is still empty
        lambda: any(row.kind == "collections" for row in world.hub.log),
    ]
    for number, moment in enumerate(moments):
        world.hub.log.clear()
        with Worker(world.hub, world.folder, token=TOKEN) as worker:
            kill_when(worker, moment, *words)
        entries = [name for name in NAMES if weights_in(world.file, name)]
        assert len(entries) in ((2, 3), (5, 5), (10, 10))[number]
        for name in entries:
            assert zoo.load(f"{name}@digits").record.model == name

    made = release(world)
    assert made.failed == ()
    assert len(repos) == 10
    for name, repo in repos.items():
        assert len(repo.commits) == 2, name  # the Hub's own first one, and ours
        assert list(repo.tags.values()) == [repo.head().oid]
    assert sorted(items(world)) == sorted(repos)
    assert len(world.hub.store.collections) == 1
    for name in NAMES:
        assert weights_in(world.file, name)["digits"].where == f"hf://{world.owner}/{name}-digits@" + (
            repos[f"{world.owner}/{name}-digits"].head().oid
        )
        assert zoo.load(f"{name}@digits").record.model == name
        assert zoo.verify(f"{name}@digits").holds
    assert without_entries(world.file, *range(len(NAMES))) == FILE
    assert not list(world.folder.rglob(".zoo-tmp-*"))
