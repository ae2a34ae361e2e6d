"""The rogues' gallery: broken plugins, really installed by pip, and a zoo that works all the same."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from plugin_site import PART, REGISTRY_HOOK, Site, components, pip_target, site_in, write_wheel

FINE = components("part")
PATIENCE = "4"


@dataclass(frozen=True)
class Rogue:
    """A broken plugin: what its module does, and what must be said of it."""

    source: str
    said: str
    toml: str = ""
    files: dict[str, str] = field(default_factory=dict)
    api: str = ""
    entry: str = ""
    value: str = ""
    status: str = "failed"


HEAD = "import os, sys, time, signal, ctypes\n"
HOOK = "from zoo.plugin import Component, hookimpl\n"


def answering(body: str) -> str:
    """A plugin whose hook has this body."""
    return f"{HEAD}{HOOK}@hookimpl\ndef zoo_components():\n    {body}\n"


ONE = "Component(name='a', kind='part', factory='m:f')"
ROGUES = {
    # ends or breaks the process that imports it
    "raises": Rogue("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "exits": Rogue("import sys; sys.exit(3)", "SystemExit: 3"),
    "ends": Rogue("import os; os._exit(3)", "ends the process that imports it (exit status 3)"),
    "crashes": Rogue("import ctypes; ctypes.string_at(0)", "ends the process that imports it (SIGSEGV)"),
    "killed": Rogue("import os; os.kill(os.getpid(), 9)", "ends the process that imports it (SIGKILL)"),
    "patricide": Rogue("import os; os.kill(os.getppid(), 9)", "ends the process that lists the plugins"),
    "interrupts": Rogue("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "hangs": Rogue("while True: pass", f"is not imported within {PATIENCE} s"),
    "recursive": Rogue("def f(): f()\nf()", "RecursionError"),
    "closes": Rogue("import os; os.closerange(0, 64)", "ends the process that imports it"),
    "asks": Rogue("input('your name? ')", "EOFError"),
    # cannot be imported
    "missing": Rogue("import no_such_library", "install the package that provides the module no_such_library"),
    "syntax": Rogue("def :", "SyntaxError"),
    "absent": Rogue("", "No module named 'zoo_absent_elsewhere'", value="zoo_absent_elsewhere"),
    "no-module": Rogue("", "is not a module", value="zoo no-module!"),
    "newer": Rogue("import no_such_library", "needs version 99 of the plugin contract", api="v99"),
    "odd-api": Rogue(FINE, "declares 'banana' in the group zoo.api", api="banana"),
    "unsaid": Rogue("raise ValueError", "ValueError: no message"),
    "coloured": Rogue("raise ValueError('\\033[31mred\\a\\nsecond line')", "ValueError: [31mred"),
    "silent": Rogue("class E(Exception):\n    def __str__(self): raise self\nraise E", "E: its message cannot be read"),
    # answers with something else
    "empty": Rogue("", "offers nothing"),
    "number": Rogue(answering("return 7"), "must return Component objects, got int"),
    "dicts": Rogue(answering("return [dict(name='a')]"), "must return Component objects, got dict"),
    "wrong-kind": Rogue(components("a", kind="soup"), "Invalid enum value 'soup'"),
    "wrong-name": Rogue(components("a b"), "a name is letters and digits"),
    "no-factory": Rogue(components("a", factory="nothing"), 'is not "module:name"'),
    "twice": Rogue(components("a", "a"), "offers the component 'a' twice"),
    "endless": Rogue(answering(f"while True: yield {ONE}"), "offers more than 1,000 components"),
    "midway": Rogue(answering(f"yield {ONE}\n    raise OSError('gone')"), "OSError: gone"),
    "unknown-hook": Rogue(
        f"{FINE}\n@hookimpl\ndef zoo_colours(): return []", "implements 'zoo_colours', which this version"
    ),
    "no-file": Rogue(REGISTRY_HOOK, "which is not a file"),
    "not-toml": Rogue(FINE + REGISTRY_HOOK, "not valid TOML", toml="[models"),
    "not-text": Rogue(FINE + REGISTRY_HOOK, "unknown table [wishes]", toml="[wishes]\na = 1"),
    "wrong-model": Rogue(
        FINE + REGISTRY_HOOK, "a model needs a `build` table", toml="[models.wrong]\nsummary = 'x'", status="loaded"
    ),
    # takes what is not its own
    "thief": Rogue(components("residual"), "has the name of a built-in plugin", entry="cnn"),
    "usurper": Rogue(
        REGISTRY_HOOK,
        "model 'hybrid-alt-1' is claimed by both hybrid-zoo",
        toml='[models.hybrid-alt-1]\nsummary="x"\nfamily="x"\nrecipe="default"\nbuild={use="hybrid.classifier"}',
        status="loaded",
    ),
    # works, and is named
    "loud": Rogue("print('hello')\n" + FINE, "prints to stdout when listed", status="loaded"),
    "deep-loud": Rogue("import os; os.write(1, b'hello')\n" + FINE, "prints to stdout when listed", status="loaded"),
    "grumbles": Rogue("import warnings; warnings.warn('old')\n" + FINE, "prints to stderr", status="loaded"),
    "heavy": Rogue("import torch\n" + FINE, "imports torch when listed", status="loaded"),
    "slow": Rogue("import time; time.sleep(0.4)\n" + FINE, " ms to be listed", status="loaded"),
}
VANDAL = """
import builtins, os, sys
import zoo.catalogue.plugins, zoo.catalogue.spec
os.chdir("/"); os.environ.clear(); sys.path.clear(); sys.modules["zoo.catalogue.spec"] = None
zoo.catalogue.spec.decode = zoo.catalogue.plugins.load = builtins.open = None
sys.stdout = sys.stderr = None
"""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """All of them in one folder, by one real `pip install`; with two good ones, first and last by name."""
    folder = tmp_path_factory.mktemp("gallery")
    site = site_in(folder)
    wheels = [write(folder, name, rogue) for name, rogue in ROGUES.items()]
    for name in ("aaa", "vandal", "zzz"):
        source = FINE if name != "vandal" else f"{FINE}{VANDAL}"
        wheels.append(write(folder, name, Rogue(source, "")))
    pip_target(site.folder, wheels)
    (site.folder / "torch.py").write_text("")  # importing the real one would be slow, for every rogue
    return site


def write(folder: Path, name: str, rogue: Rogue) -> Path:
    module = f"zoo_{name}".replace("-", "_")
    files = {f"{module}.py": rogue.source.replace("{module}", module), f"{module}_parts.py": PART}
    if rogue.toml:
        files[f"{module}.toml"] = rogue.toml
    entry = rogue.entry or name
    entries = {"zoo": {entry: rogue.value or module}}
    if rogue.api:
        entries["zoo.api"] = {entry: rogue.api}
    return write_wheel(folder / "wheels", name, files | rogue.files, entries=entries)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One index for the whole gallery: it is looked at once."""
    return {"ZOO_CACHE_DIR": str(tmp_path_factory.mktemp("cache")), "ZOO_PLUGIN_SECONDS": PATIENCE}


@pytest.fixture(scope="module")
def listed(gallery: Site, cache: dict[str, str]) -> tuple[list[str], list[str]]:
    """Names on stdout and lines on stderr of `zoo list --json` among all of them."""
    done = gallery.run("list", "--json", **cache)
    assert done.returncode == 0, done.stderr
    return [row["name"] for row in json.loads(done.stdout)], done.stderr.splitlines()


@pytest.fixture(scope="module")
def records(gallery: Site, cache: dict[str, str], listed: tuple[list[str], list[str]]) -> dict[str, dict[str, object]]:
    """`zoo plugins --json`, by distribution."""
    done = gallery.run("plugins", "--json", **cache)
    assert done.returncode == 0, done.stderr
    return {row["distribution"]: row for row in json.loads(done.stdout)}


def test_everything_else_is_listed(listed: tuple[list[str], list[str]], records: dict[str, dict[str, object]]) -> None:
    assert len(ROGUES) >= 20
    assert {"hybrid-alt-1", "vit-d2h4", "vgg16"} <= set(listed[0])
    for name in ("aaa", "vandal", "zzz"):
        record = records[f"zoo-{name}"]
        assert record["status"] == "loaded", record
        assert record["components"] == [f"{name}.part"]
        assert not record["warnings"]


@pytest.mark.parametrize("name", ROGUES)
def test_a_rogue_costs_one_line_that_names_it_and_why(
    name: str, listed: tuple[list[str], list[str]], records: dict[str, dict[str, object]]
) -> None:
    lines = [line for line in listed[1] if f"zoo-{name} 1.0" in line]
    assert len(lines) == 1, listed[1]
    assert lines[0].startswith("warning: ")
    assert ROGUES[name].said in lines[0]
    assert lines[0].isprintable()
    record = records[f"zoo-{name}"]
    assert record["status"] == ROGUES[name].status
    if record["status"] == "failed":
        assert record["fix"]


def test_nothing_but_the_rogues_is_warned_of(listed: tuple[list[str], list[str]]) -> None:
    assert len(listed[1]) == len(ROGUES), "\n".join(listed[1])


def test_they_are_looked_at_once_and_not_for_each_listing(
    gallery: Site, cache: dict[str, str], listed: tuple[list[str], list[str]]
) -> None:
    """With no patience left: a plugin that were imported again would now be called too slow."""

    def without_times(text: str) -> str:
        return re.sub(r"\d+ ms", "", text)

    again = gallery.run("list", "--json", **(cache | {"ZOO_PLUGIN_SECONDS": "0.1"}))
    assert without_times(again.stderr) == without_times("".join(f"{line}\n" for line in listed[1]))


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (("--no-plugins", "list"), {}),
        (("list",), {"ZOO_DISABLE_PLUGINS": "all"}),
        (("list",), {"ZOO_LOAD_PLUGINS": ""}),
        (("list",), {"ZOO_LOAD_PLUGINS": "aaa,zoo-zzz"}),
        (("list",), {"ZOO_DISABLE_PLUGINS": ",".join(f"zoo-{name}" for name in ROGUES)}),
    ],
)
def test_the_switches_silence_all_of_them(gallery: Site, words: tuple[str, ...], environment: dict[str, str]) -> None:
    done = gallery.run(*words, **environment)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "hybrid-alt-1" in done.stdout


def test_debug_shows_their_tracebacks(gallery: Site, cache: dict[str, str]) -> None:
    few = cache | {"ZOO_LOAD_PLUGINS": "raises,midway"}
    done = gallery.run("plugins", "--debug", **few)
    assert done.stderr.count("Traceback") == 2
    assert "OSError: gone" in done.stderr


def test_where_the_system_cannot_fork_they_are_still_set_aside(gallery: Site) -> None:
    """What a plugin raises, prints or answers is caught in the process that lists, too."""
    harmless = ("raises", "exits", "missing", "loud", "dicts", "midway", "newer", "zzz")
    code = "import os; del os.fork; from zoo.cli import main; main(['plugins', '--json'])"
    done = gallery.python("-c", code, ZOO_LOAD_PLUGINS=",".join(harmless))
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["zzz"]["status"] == "loaded"
    for name in harmless[:-1]:
        assert rows[name]["status"] == ROGUES[name].status
        assert ROGUES[name].said in (rows[name]["reason"] or str(rows[name]["warnings"])) + rows[name]["fix"]


# ---- installations that went wrong ------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_in(tmp_path)


def install(site: Site, tmp_path: Path, name: str, source: str = FINE, **more: str) -> None:
    """One good plugin, by pip."""
    module = f"zoo_{name}".replace("-", "_")
    files = {f"{module}.py": source.replace("{module}", module), f"{module}_parts.py": PART}
    wheel = write_wheel(tmp_path / "wheels", name, files, version=more.get("version", "1.0"))
    pip_target(Path(more.get("folder", str(site.folder))), [wheel])


def plugin(site: Site, name: str, **environment: str) -> dict[str, object]:
    done = site.run("plugins", "--json", **environment)
    assert done.returncode == 0, done.stderr
    return next((row for row in json.loads(done.stdout) if row["name"] == name), {})


def test_two_installed_versions_are_named_and_the_first_on_the_path_is_used(site: Site, tmp_path: Path) -> None:
    install(site, tmp_path, "good", version="1.0")
    install(site, tmp_path, "good", version="2.0", folder=str(tmp_path / "second"))
    path = f"{site.folder}:{tmp_path / 'second'}"
    record = plugin(site, "good", PYTHONPATH=path)
    assert (record["status"], record["version"]) == ("loaded", "1.0")
    assert "is installed more than once: 1.0 in" in str(record["warnings"])
    assert "2.0 in" in str(record["warnings"])


def test_a_wheel_on_the_path_works_unpacked_or_not(site: Site, tmp_path: Path) -> None:
    toml = '[models.zipped]\nsummary="x"\nfamily="x"\nrecipe="default"\nbuild={use="hybrid.classifier"}\n'
    files = {
        "zoo_good/__init__.py": f"{FINE}{REGISTRY_HOOK}".replace("{module}", "registry"),
        "zoo_good/registry.toml": toml,
    }
    wheel = write_wheel(tmp_path / "wheels", "good", files)
    record = plugin(site, "good", PYTHONPATH=str(wheel))
    assert record["status"] == "loaded", record
    assert record["models"] == ["zipped"]
    wheel.unlink()
    assert plugin(site, "good", PYTHONPATH=str(wheel)) == {}


def test_two_distributions_with_one_package_are_both_named_and_neither_is_used(site: Site, tmp_path: Path) -> None:
    for name in ("one", "two"):
        entries = {"zoo": {name: "zoo_shared"}}
        wheel = write_wheel(tmp_path / "wheels", name, {"zoo_shared.py": FINE}, entries=entries)
        pip_target(site.folder, [wheel])
    for name in ("one", "two"):
        record = plugin(site, name)
        assert record["status"] == "failed"
        assert "the package zoo_shared belongs to both zoo-one 1.0 and zoo-two 1.0" in str(record["reason"])


def test_a_half_removed_distribution_is_named(site: Site, tmp_path: Path) -> None:
    install(site, tmp_path, "good")
    (info,) = site.folder.glob("*.dist-info")
    (info / "METADATA").unlink()
    assert plugin(site, "good")["status"] == "loaded"
    (site.folder / "zoo_good.py").unlink()
    record = plugin(site, "good")
    assert "No module named 'zoo_good'" in str(record["reason"])
    assert "its installation is incomplete" in str(record["fix"])
    (info / "entry_points.txt").write_bytes(b"\xff\xfe")
    assert "entry_points.txt cannot be read" in str(plugin(site, "good")["reason"])


def test_a_mended_plugin_is_seen_at_once_and_so_is_its_removal(site: Site, tmp_path: Path) -> None:
    install(site, tmp_path, "good", "import not_there_yet\n" + FINE)
    assert plugin(site, "good")["status"] == "failed"
    warned = site.run("list").stderr
    assert "install the package that provides the module not_there_yet" in warned
    (site.folder / "not_there_yet.py").write_text("")
    assert site.run("list").stderr == ""
    install(site, tmp_path, "good", version="1.1")
    assert plugin(site, "good")["version"] == "1.1"
    for path in site.folder.glob("zoo_good*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert plugin(site, "good") == {}


def test_a_user_s_model_of_a_plugin_that_is_switched_off_does_not_take_the_list_down(
    site: Site, tmp_path: Path
) -> None:
    toml = "[recipes.theirs]\nepochs = 1\n"
    files = {"zoo_good.py": REGISTRY_HOOK.replace("{module}", "zoo_good"), "zoo_good.toml": toml}
    pip_target(site.folder, [write_wheel(tmp_path / "wheels", "good", files)])
    site.work.mkdir()
    (site.work / "registry.toml").write_text(
        '[models.mine]\nsummary="x"\nfamily="x"\nrecipe="theirs"\nbuild={use="hybrid.classifier"}\n'
    )
    assert "mine" in site.run("list").stdout
    without = site.run("--no-plugins", "list")
    assert without.returncode == 0
    assert "no recipe named 'theirs'" in without.stderr
    assert "hybrid-alt-1" in without.stdout


def test_a_name_of_the_user_s_that_a_plugin_takes_too_fails_alone(site: Site, tmp_path: Path) -> None:
    toml = '[models.same]\nsummary="x"\nfamily="x"\nrecipe="default"\nbuild={use="hybrid.classifier"}\n'
    files = {"zoo_good.py": REGISTRY_HOOK.replace("{module}", "zoo_good"), "zoo_good.toml": toml}
    pip_target(site.folder, [write_wheel(tmp_path / "wheels", "good", files)])
    site.work.mkdir()
    (site.work / "registry.toml").write_text(toml)
    done = site.run("list")
    assert done.returncode == 0
    assert "claimed by both zoo-good 1.0 and" in done.stderr
    assert site.run("info", "same").returncode == 2
