"""The Hub's calls: each gives what its command gives, prints nothing, exits nowhere, and leaves nothing behind."""

from __future__ import annotations

import _thread
import contextlib
import html
import io
import json
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import torch
from click.testing import CliRunner, Result
from hub_server import Fault, HubServer
from hub_server.here import led_here
from hub_server.runs import own_caches, untrained_run

import zoo
from zoo.cli import cli
from zoo.errors import HubLoginError, HubNotFoundError, InputError, RunError, VerifyError
from zoo.hub.publication import Published
from zoo.hub.session import WORK
from zoo.hub.sums import write_sums
from zoo.runs.api import open_run
from zoo.runs.folder import read_result, write_result

T = TypeVar("T")
REPO, TOKEN = "me/digits", "hf_write"


class World(NamedTuple):
    """A Hub to which this process is led, one run, and its package, which `zoo.package` made."""

    hub: HubServer
    run: Path
    package: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("calls")
    with HubServer() as hub, own_caches(folder), led_here(hub, folder / "hf", TOKEN):
        hub.store.users[TOKEN] = ("me", "write")
        run = untrained_run(folder / "run", "cnn-baseline", limit_train=64, limit_test=64)
        yield World(hub, run, quietly(lambda: zoo.package(run)))


@pytest.fixture
def published(world: World) -> str:
    """The commit of the package on the Hub, put there by nobody's command."""
    world.hub.faults.clear()
    if REPO not in world.hub.store.repos:
        world.hub.store.put(REPO, {path.name: path.read_bytes() for path in world.package.iterdir()})
    world.hub.log.clear()
    return world.hub.store.repos[REPO].head().oid


def quietly(call: Callable[[], T]) -> T:
    """Make a call that must print nothing."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        given = call()
    assert (out.getvalue(), err.getvalue()) == ("", "")
    return given


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


# ---- each call and its command -------------------------------------------------------------------------


def test_package(world: World, tmp_path: Path) -> None:
    assert world.package == world.run / "package"
    done = typed("package", world.run, "--output", tmp_path / "typed")
    assert done.stdout == f"{tmp_path / 'typed'}\n"
    assert done.stderr == f"next: zoo verify {tmp_path / 'typed'}\n  or: zoo publish {tmp_path / 'typed'} OWNER/NAME\n"
    assert "confusion.png" in contents(world.package)
    assert contents(world.package) == contents(tmp_path / "typed")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_licence_stays_that_of_the_package(world: World, tmp_path: Path) -> None:
    """Whoever packages a run to look at it first publishes it under the licence that was named then."""
    run = shutil.copytree(world.run, tmp_path / "a run", ignore=shutil.ignore_patterns("package"))
    assert "\nlicense: apache-2.0\n" in zoo.publish(run, "me/x", dry_run=True).card
    package = zoo.package(run, licence="cc-by-nc-4.0")
    of_package = zoo.package(package, tmp_path / "of-package")
    cards = [zoo.publish(one, "me/x", dry_run=True).card for one in (package, run, of_package, zoo.package(run))]
    assert ["\nlicense: cc-by-nc-4.0\n" in card for card in cards] == [True] * 4
    with pytest.raises(
        InputError, match=r"--licence mit: .* is a package already, with cc-by-nc-4.0 as .* '.*/a run/package' -"
    ):
        zoo.publish(package, "me/x", dry_run=True, licence="mit")
    assert "\nlicense: mit\n" in zoo.publish(run, "me/x", dry_run=True, licence="mit").card
    typed("package", package, "--output", tmp_path / "mit", "--licence", "mit")
    assert "\nlicense: mit\n" in (tmp_path / "mit" / "README.md").read_text("utf-8")


def test_publish_without_sending(world: World, published: str) -> None:
    planned = quietly(lambda: zoo.publish(world.package, "me/other", dry_run=True, revision="trial"))
    done = typed("publish", world.package, "me/other", "--dry-run", "--revision", "trial", "--json")
    assert planned.as_dict() == json.loads(done.stdout)
    shown = typed("publish", world.package, "me/other@trial", "--dry-run")
    assert planned.card.strip() in shown.stdout
    assert f"in hf://me/other@trial: {planned.title!r}, {planned.size:,} bytes, tag {planned.tag};" in shown.stderr
    assert [request for request in world.hub.log if request.kind != "harnesses"] == []
    assert {path.name for path in world.package.iterdir()} == set(planned.files.column("name"))
    assert planned.title in repr(planned)
    assert "<script" not in planned._repr_html_()
    assert html.escape(planned.card) in planned._repr_html_()


def test_publish(world: World) -> None:
    run = open_run(world.package)
    first = quietly(lambda: run.push_to_hub("me/sent", private=True))
    assert world.hub.store.repos["me/sent"].private
    assert world.hub.store.repos["me/sent"].head().oid == first.commit
    again = typed("publish", world.package, "me/sent", "--json")  # sends nothing, as nothing changed
    assert json.loads(again.stdout) == first.as_dict()
    done = typed("publish", world.package, "me/sent")
    assert done.stdout == f"{first.reference}\n"
    assert done.stderr == f"published: {first.tagged} (commit {first.commit[:12]})\nnext: zoo verify {first.tagged}\n"
    assert f'href="{first.url}"' in first._repr_html_()
    assert first.tagged in repr(first)
    left = Published("me/x", "0" * 40, "", "javascript:alert(1)")
    assert "href" not in left._repr_html_()


def test_pull(world: World, published: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    card = (world.package / "README.md").read_bytes()
    world.hub.store.put("me/edited", contents(world.package) | {"README.md": card + b"by hand\n"})
    with caplog.at_level(logging.INFO, "zoo"):
        pulled = quietly(lambda: zoo.pull("me/edited", tmp_path / "called"))
    done = typed("pull", "hf://me/edited", "--output", tmp_path / "typed")
    assert done.stdout == f"{tmp_path / 'typed'}\n"
    assert pulled.edited == ("README.md",)
    assert done.stderr.splitlines() == [
        *caplog.messages,
        f"pulled: {pulled.reference}",
        "next: zoo predict hf://me/edited IMAGE",
    ]
    assert caplog.messages[0].startswith("README.md was edited")
    assert contents(pulled.folder) == contents(tmp_path / "typed")
    assert Path(pulled) == pulled.folder == Path(str(pulled))
    assert zoo.load(pulled).name == "cnn-baseline"  # it stands for its folder
    assert typed("-q", "pull", REPO).stderr == ""


def test_verify(world: World, published: str, tmp_path: Path) -> None:
    honest = quietly(lambda: zoo.verify(f"hf://{REPO}"))
    honest.raise_for_difference()
    assert (honest.holds, bool(honest), honest.failed) == (True, True, None)
    shutil.copytree(world.package, tmp_path / "lie")
    result = read_result(tmp_path / "lie")
    result["test"]["loss"] += 0.5
    write_result(tmp_path / "lie", result)
    write_sums(tmp_path / "lie")
    lie = quietly(lambda: zoo.verify(tmp_path / "lie"))
    done = typed("verify", tmp_path / "lie", "--json")
    assert json.loads(done.stdout) == list(lie.table)
    assert (lie.holds, bool(lie), lie.failed.name) == (False, False, "loss")
    with pytest.raises(VerifyError) as told:
        lie.raise_for_difference()
    assert isinstance(done.exception, VerifyError)
    assert str(told.value) == str(done.exception)
    assert "loss DIFFERS" in repr(lie)
    assert "<td>loss</td><td>no</td>" in lie._repr_html_()


def test_search(world: World, published: str) -> None:
    found = quietly(lambda: zoo.search("digits", tags="hybrid-zoo"))
    for words in (["search", "digits"], ["list", "digits", "--hub"]):
        assert json.loads(typed(*words, "--json").stdout) == list(found)
    assert found.column("repo") == [REPO]
    assert found.hits[0].row == found[0]
    line = typed("search", "digits").stdout.splitlines()[1]
    assert f"hf://{REPO}" in line
    assert f"{found.short[0]['top1']:.2%}" in line
    assert "top1" in repr(found)
    assert found[0]["results"][0]["dataset"] == "sklearn:digits"
    assert len(zoo.search("digits", dataset="sklearn:digits")) == 1
    nothing = typed("list", "digits", "--hub", "--dataset", "cifar10")
    assert (len(zoo.search("digits", dataset="cifar10")), nothing.stdout) == (0, "")
    with pytest.raises(InputError, match="1 to 1000"):
        zoo.search(limit=0)


# ---- loading -------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_program_that_computes_in_float64_packs_checks_and_loads_the_same_package(world: World, here: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        again = quietly(lambda: zoo.package(world.run, "again"))
        assert zoo.verify(again).holds
        assert next(zoo.load(again).parameters()).dtype == torch.float32
        assert next(zoo.create("cnn-baseline", num_classes=10, image_size=8).parameters()).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert (again / "SHA256SUMS").read_bytes() == (world.package / "SHA256SUMS").read_bytes()


def test_a_package_is_loaded_as_people_of_the_hub_write_it(world: World, published: str, here: Path) -> None:
    images = torch.zeros(1, 3, 8, 8)
    logits = zoo.load(world.run, device="cpu")(images)
    for call in (
        lambda: zoo.load(f"hf://{REPO}"),
        lambda: zoo.load(REPO),
        lambda: zoo.load(f"{REPO}@{published}"),
        lambda: zoo.load(REPO, revision="main"),
        lambda: zoo.from_pretrained(REPO, revision=published),
        lambda: zoo.from_pretrained(f"hf://{REPO}@main", device="cpu"),
        lambda: zoo.from_pretrained(world.package),
        lambda: open_run(world.run).classifier(),
    ):
        assert torch.equal(quietly(call)(images), logits)


def test_a_run_of_this_spelling_comes_before_the_hub(world: World, published: str, here: Path) -> None:
    shutil.copytree(world.run, here / "runs" / REPO)
    assert zoo.load(REPO).name == "cnn-baseline"
    assert world.hub.log == []
    with pytest.raises(InputError, match="has no revisions"):
        zoo.load(REPO, revision="main")
    zoo.from_pretrained(REPO)  # which knows nothing of runs/
    assert world.hub.log != []
    shutil.move(here / "runs" / "me", here / "me")
    world.hub.log.clear()
    zoo.from_pretrained(REPO)
    assert world.hub.log == []


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("nothing", "no run folder 'nothing', and no run of this name below runs/; there are no runs below runs/"),
        ("runs/old", "no run folder 'runs/old'"),
        ("photos/cat.jpg", "is an image, not a run"),
        ("photos/cats", "'photos/cats' is no run folder: it has no run.toml"),
        ("../me/digits", "no run folder '../me/digits'"),
    ],
)
def test_a_word_that_is_of_this_machine_is_not_asked_of_the_hub(
    word: str, answer: str, world: World, published: str, here: Path
) -> None:
    (here / "photos" / "cats").mkdir(parents=True)
    with pytest.raises(InputError) as told:
        zoo.load(word)
    assert str(told.value).startswith(answer) or answer in str(told.value)
    assert world.hub.log == []


def test_a_word_that_is_neither_is_answered_for_both(world: World, published: str, here: Path) -> None:
    shutil.copytree(world.run, here / "runs" / "deep" / "new", ignore=shutil.ignore_patterns("package"))
    with pytest.raises(HubNotFoundError) as told:
        zoo.load("deep/nwe")
    assert str(told.value).startswith("hf://deep/nwe: there is no such repository")
    assert "; and no run folder 'deep/nwe', and no run of this name below runs/; did you" in str(told.value)
    with pytest.raises(InputError, match=r"expected OWNER/NAME .* and no folder of this name is here"):
        zoo.from_pretrained("nothing")


# ---- refusals ------------------------------------------------------------------------------------------


def test_the_rules_of_the_commands_hold_for_the_calls(
    world: World, published: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for call, words in (
        (lambda: zoo.publish(world.run, "me/x@a", revision="b"), ["publish", world.run, "me/x@a", "--revision", "b"]),
        (lambda: zoo.publish(f"hf://{REPO}", "me/x"), ["publish", f"hf://{REPO}", "me/x"]),
        (lambda: zoo.package(f"hf://{REPO}"), ["package", f"hf://{REPO}"]),
        (lambda: zoo.pull(REPO, tmp_path), ["pull", REPO, "--output", tmp_path]),
        (lambda: zoo.package(world.run, world.run), ["package", world.run, "--output", world.run]),
        (lambda: zoo.verify("nothing"), ["verify", "nothing"]),
    ):
        with pytest.raises(InputError) as told:
            call()
        assert str(typed(*words).exception) == str(told.value)
    with pytest.raises(InputError, match="already names a revision"):
        zoo.load(f"{REPO}@a", revision="b")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("zoo.hub.publish.prepare", lambda *a, **o: pytest.fail("the token was not looked for first"))
    with pytest.raises(HubLoginError):
        zoo.publish(world.run, "me/x")


# ---- Ctrl-C --------------------------------------------------------------------------------------------


def interrupted(hub: HubServer, kind: str, call: Callable[[], object]) -> None:
    """Make a call, and press Ctrl-C as soon as a request of this kind has arrived."""

    def press() -> None:
        deadline = time.monotonic() + 30
        while not any(request.kind == kind for request in hub.log) and time.monotonic() < deadline:
            time.sleep(0.02)
        _thread.interrupt_main()

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    thread.join()


@pytest.mark.parametrize("ignored", [False, True])  # Python may ignore an exception that is raised in a thread
def test_ctrl_c_ends_a_download_and_leaves_no_folder(
    ignored: bool, world: World, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ignored:
        monkeypatch.setattr("zoo.hub.session._end", lambda thread: None)
    world.hub.store.put("me/slow", contents(world.package))
    world.hub.faults[:] = [Fault("resolve-get", "drip")]
    interrupted(world.hub, "resolve-get", lambda: zoo.pull("me/slow", tmp_path / "out"))
    for thread in at_work():
        thread.join(5)
    assert at_work() == []  # nobody goes on fetching
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_a_publication_and_leaves_neither_repository_nor_folder(
    world: World, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    world.hub.faults[:] = [Fault("preupload", "stall")]
    interrupted(world.hub, "preupload", lambda: zoo.publish(world.package, "me/new"))
    assert "me/new" not in world.hub.store.repos
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_in_an_upload_makes_no_commit_later(world: World, published: str) -> None:
    world.hub.store.put("me/theirs", {"note.txt": b"of its owner"})
    world.hub.store.objects.clear()
    head, before = world.hub.store.repos["me/theirs"].head().oid, set(threading.enumerate())
    world.hub.faults[:] = [Fault("lfs-put", "stall")]
    interrupted(world.hub, "lfs-put", lambda: zoo.publish(world.package, "me/theirs"))
    world.hub.faults.clear()  # the uploads succeed when the client tries them again
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert "commit" not in [request.kind for request in world.hub.log]
    assert world.hub.store.repos["me/theirs"].head().oid == head


def at_work() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == WORK]


def test_a_package_that_is_older_than_its_run_is_not_taken_for_the_run(tmp_path: Path) -> None:
    run = zoo.train(
        "cnn-baseline",
        dataset="digits",
        epochs=1,
        limit_train=60,
        limit_test=40,
        output=tmp_path / "run",
        progress=False,
    )
    zoo.package(run, predictions=False)
    assert zoo.verify(run).holds
    run.resume(epochs=3)
    with pytest.raises(RunError, match="was made before the run's present result; `zoo package"):
        zoo.verify(run)
    assert zoo.verify(zoo.package(run, predictions=False)).holds
