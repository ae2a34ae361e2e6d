"""Shell completion: the names of the catalogue, in three shells, without torch."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_site import REGISTRY_HOOK, Site, site_in

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Where torch, timm, torchvision and numpy cannot be imported."""
    found = site_in(tmp_path)
    found.hide_heavy()
    return found


def asked(site: Site, words: str, shell: str = "bash") -> list[str]:
    """What is offered for the last word; a space at the end begins a new one."""
    parts = words.split()
    last = "" if words.endswith(" ") else parts[-1]
    position = len(parts) - (not words.endswith(" "))
    fish = {"COMP_WORDS": words, "COMP_CWORD": last}
    environment = fish if shell == "fish" else {"COMP_WORDS": words, "COMP_CWORD": str(position)}
    done = site.python("-m", "zoo", _ZOO_COMPLETE=f"{shell}_complete", **environment)
    assert done.stderr == ""
    if shell == "zsh":
        lines = done.stdout.splitlines()
        return [value for kind, value in zip(lines[::3], lines[1::3], strict=True) if kind == "plain"]
    return [line.partition(",")[2].partition("\t")[0] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", SHELLS)
def test_models_are_completed_in_every_shell(site: Site, shell: str) -> None:
    found = asked(site, "zoo train hybrid-alt-", shell)
    assert "hybrid-alt-1" in found
    assert all(name.startswith("hybrid-alt-") for name in found)


@pytest.mark.parametrize(
    ("words", "expected", "absent"),
    [
        ("zoo info vit-d", "vit-d2h4", "hybrid-alt-1"),
        ("zoo list cnn-", "cnn-res5", "vit-d2h4"),
        ("zoo train vit-d2h4 --dataset dig", "digits", "cifar10"),
        ("zoo eval runs/x --on dig", "digits", "cifar10"),
        ("zoo train vit-d2h4 --dataset fold", "folder:", "digits"),
        ("zoo train vit-d2h4 --recipe mixture-v", "mixture-vit", "default"),
        ("zoo train vit-d2h4 --recipe be", "best", "mixture-vit"),
        ("zoo train vit-d2h4 --log ", "tensorboard", "loggers.tensorboard"),
        ("zoo list --family hy", "hybrid", "cnn"),
        ("zoo plugins check per", "perceiver", "cnn"),
        ("zoo datasets check eur", "eurosat", "digits"),
        ("zoo new plugin waves --family comb", "combinator", "cnn"),
        ("zoo tra", "train", "list"),
        ("zoo train --check", "--checkpoint-seconds", "--epochs"),
    ],
)
def test_each_kind_of_name_is_completed(site: Site, words: str, expected: str, absent: str) -> None:
    found = asked(site, words)
    assert expected in found
    assert absent not in found


def test_names_of_plugins_and_of_files_are_completed_too(site: Site) -> None:
    toml = '[models.theirs]\nsummary="x"\nfamily="x"\nrecipe="default"\nbuild={use="hybrid.classifier"}\n'
    site.add("good", REGISTRY_HOOK, toml=toml)
    assert asked(site, "zoo train thei") == ["theirs"]
    (site.work / "my.toml").write_text(toml.replace("theirs", "mine"))
    assert asked(site, "zoo train my.toml#m") == ["my.toml#mine"]


def test_a_wrong_file_or_plugin_prints_nothing_into_the_command_line(site: Site) -> None:
    site.add("bad", "raise RuntimeError")
    assert "hybrid-alt-1" in asked(site, "zoo train hybrid-alt-")
    (site.work / "registry.toml").write_text("[models")
    assert asked(site, "zoo train hybrid-alt-") == []
    assert asked(site, "zoo train registry.toml#") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_printed_and_its_shell_reads_it(site: Site, shell: str, tmp_path: Path) -> None:
    done = site.run("completion", shell)
    assert done.returncode == 0
    assert f"_ZOO_COMPLETE={shell}_complete" in done.stdout
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(done.stdout)
        subprocess.run([program, "-n", tmp_path / "script"], check=True, timeout=30)


def test_bash_completes_with_it(site: Site, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    command = tmp_path / "zoo"
    command.write_text('#!/bin/sh\nexec "$ZOO_TEST_PYTHON" -m zoo "$@"\n')
    command.chmod(0o755)
    script = f"""
        eval "$(zoo completion bash)"
        COMP_WORDS=(zoo train hybrid-joint-); COMP_CWORD=2
        _zoo_completion {command}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    code = "import os, sys; os.environ['ZOO_TEST_PYTHON'] = sys.executable; os.execv(sys.argv[1], sys.argv[1:])"
    done = site.python("-c", code, bash, "-c", f'export PATH="{tmp_path}:$PATH"\n{script}')
    assert "hybrid-joint-1" in done.stdout.splitlines(), done.stderr


def test_an_unknown_shell_is_refused(site: Site) -> None:
    done = site.run("completion", "tcsh")
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr


# ---- runs and files ---------------------------------------------------------------------------


@pytest.fixture
def runs(site: Site) -> Site:
    """Two runs below runs/, and files beside it; completion looks at names alone."""
    for name in ("first", "deep/second"):
        (site.work / "runs" / name).mkdir(parents=True)
        (site.work / "runs" / name / "run.toml").touch()
    (site.work / "photo.jpg").touch()
    (site.work / "photos").mkdir()
    (site.work / "mine.toml").touch()
    return site


def plain(site: Site, words: str) -> list[str]:
    """What is offered by name, without what the shell is told to complete by itself."""
    return asked(site, words, "zsh")


TAKE_A_RUN = (
    *("eval", "predict", "serve", "export", "package", "publish", "verify", "runs", "plot", "report"),
    *("eval first --compare", "train --resume", "train --from", "train --weights", "plot first"),
)


def test_runs_are_completed_wherever_one_is_taken(runs: Site) -> None:
    for words in TAKE_A_RUN:
        assert {"first", "deep/second", "last"} <= set(plain(runs, f"zoo {words} ")), words
    assert plain(runs, "zoo eval de") == ["deep/second"]
    assert plain(runs, "zoo train --resume a") == ["auto"]
    assert "train" in plain(runs, "zoo help tr")


def test_without_runs_no_last_run_is_offered(site: Site) -> None:
    assert plain(site, "zoo eval la") == []


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="needs bash")
def test_bash_completes_runs_files_and_folders(runs: Site, tmp_path: Path) -> None:
    cases = {
        "zoo eval fir": "eval first",
        "zoo eval run": "eval runs/",
        "zoo predict first photo.": "predict first photo.jpg",
        "zoo predict first --explain photo": "predict first --explain photos/",
        "zoo predict first --files-from min": "predict first --files-from mine.toml",
        "zoo train min": "train mine.toml",
        "zoo train hybrid-joint-1 --output photo": "train hybrid-joint-1 --output photos/",
    }
    command = tmp_path / "zoo"
    command.write_text(
        '#!/bin/sh\n[ "$_ZOO_COMPLETE$1" = completion ] || [ -n "$_ZOO_COMPLETE" ] || { echo "ran: <$*>"; exit; }\n'
        f'exec {sys.executable} -m zoo "$@"\n'
    )
    command.chmod(0o755)
    shown = in_bash(runs.work, tmp_path, ['eval "$(zoo completion bash)"', *(f"{typed}\t" for typed in cases)])
    for typed, expected in cases.items():
        assert re.search(rf"ran: <{re.escape(expected)} ?>", shown), (typed, shown)


def in_bash(folder: Path, first: Path, lines: list[str]) -> str:
    """What an interactive bash shows in which lines are typed, with a folder as the first of its PATH."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PATH": f"{first}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb", "PS1": "$ "}
    command = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        for line in (*lines, "exit"):
            os.write(ours, f"{line}\n".encode())
        shown = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other side is closed
            while block := os.read(ours, 1 << 16):
                shown += block
        process.wait(30)
    os.close(ours)
    return shown.decode()
