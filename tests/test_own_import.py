"""What is run of the user's own code: the texts that were read of it, and nothing of a stranger's."""

from __future__ import annotations

import importlib.util
import marshal
import shutil
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from own_things import plan_with, train, write_nets

from zoo.catalogue.own_code import in_file
from zoo.catalogue.registry import load_registry
from zoo.errors import InputError
from zoo.runs.load import load
from zoo.runs.record import read_record
from zoo.train.runner import Watch, train_in
from zoo.train.start import continued, plan_from


@pytest.fixture(autouse=True)
def one_cache(own_folders: None) -> None:
    """A cache of each test's own."""


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("zoo_own_") or name == "net_blocks"]:
        del sys.modules[name]


def nets(folder: Path, text: str = "", beside: str = "") -> Path:
    """The file of the other tests, with more in it, and in the file beside it."""
    file = write_nets(folder)
    file.write_text(text + file.read_text())
    (folder / "net_blocks.py").write_text((folder / "net_blocks.py").read_text() + beside)
    return file


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stopped run of code that touches `ran`, on a machine where nobody ran that code."""
    text = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    run = train(tmp_path / "run", plan_with(f"{nets(tmp_path / 'theirs', text)}:MyNet"), steps=4)
    (tmp_path / "ran").unlink()
    forget_modules()
    monkeypatch.setenv("ZOO_CACHE_DIR", str(shutil.copytree(_cache(), tmp_path / "other", ignore=_marks)))
    return run


def _cache() -> Path:
    from zoo.base.paths import cache_dir

    return cache_dir()


_marks = shutil.ignore_patterns("own-code")


@pytest.mark.parametrize("how", ["resumed", "repeated"])
def test_a_stranger_s_code_is_not_run_when_its_run_goes_on(how: str, stranger: Path, tmp_path: Path) -> None:
    plan = continued(stranger) if how == "resumed" else plan_from(str(stranger), {})
    with pytest.raises(InputError, match="code that has not run on this machine before"):
        train_in(stranger if how == "resumed" else tmp_path / "mine", plan, Watch())
    with pytest.raises(InputError, match="code that has not run on this machine before"):
        load(stranger, load_registry())
    assert not (tmp_path / "ran").exists()


def test_another_function_of_known_code_is_no_known_code(tmp_path: Path) -> None:
    run = train(tmp_path / "run", plan_with(f"{nets(tmp_path / 'code', 'from os import system' + chr(10))}:MyNet"))
    toml = run / "run.toml"
    toml.write_text(
        toml.read_text()
        .replace('"own.MyNet"', '"own.system"')
        .replace('attribute = "MyNet"', 'attribute = "system"')
        .replace('use = "own.system"', f'use = "own.system"\ncommand = "touch {tmp_path / "ran"}"', 1)
        .replace("MyNet =", "system =")
    )
    with pytest.raises(InputError, match="code that has not run on this machine before"):
        load(run, load_registry())
    assert not (tmp_path / "ran").exists()


def a_package(source: Path, ran: str) -> None:
    (source / "net_blocks").mkdir()
    (source / "net_blocks" / "__init__.py").write_text(ran)


def a_module_from_elsewhere(source: Path, ran: str) -> None:
    (source / "this_is_installed.py").write_text(ran)


def a_compiled_file(source: Path, ran: str) -> None:
    file = source / "net_blocks.py"
    head = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, int(file.stat().st_mtime), file.stat().st_size)
    compiled = Path(importlib.util.cache_from_source(str(file)))
    compiled.parent.mkdir(exist_ok=True)
    compiled.write_bytes(head + marshal.dumps(compile(ran, str(file), "exec")))


@pytest.mark.parametrize("hide", [a_package, a_module_from_elsewhere, a_compiled_file])
def test_a_run_folder_brings_nothing_that_its_record_has_no_hash_of(
    hide: Callable[[Path, str], None], tmp_path: Path
) -> None:
    text = "try:\n    import this_is_installed\nexcept ImportError:\n    pass\n"
    run = train(tmp_path / "run", plan_with(f"{nets(tmp_path / 'code', text)}:MyNet"))
    images = torch.ones(1, 3, 6, 6)
    before = load(run, load_registry())(images)
    forget_modules()
    hide(run / "source", f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nblock = None\n")
    assert torch.equal(load(run, load_registry())(images), before)
    assert not (tmp_path / "ran").exists()


def test_files_of_one_name_beside_two_models_are_not_taken_for_each_other(tmp_path: Path) -> None:
    text = "from net_blocks import WIDTH\ndef wide(num_classes):\n    return nn.Linear(WIDTH, WIDTH)\n"
    files = [nets(tmp_path / str(width), text, f"\nWIDTH = {width}\n") for width in (3, 7)]
    sizes = [in_file(f"{file}:wide").load()(num_classes=2).out_features for file in files]
    assert sizes == [3, 7]
    assert "net_blocks" not in sys.modules


def test_what_a_file_imports_beside_itself_is_as_python_imports_it(tmp_path: Path) -> None:
    files = {
        "net.py": "import kit.deep.inner as inner, kit\nfrom kit import *\nfrom kit.deep import inner as again\n"
        "import back\nSIZE = 3\ndef net(num_classes):\n    import late\n    from kit.deep import tail\n"
        "    return inner.A, again is inner, kit.B, C, late.L, tail.T, back.size(), kit.deep.inner.A\n",
        "kit/__init__.py": "from . import deep\nB, C = 2, 3\n",
        "kit/deep/inner.py": "from .tail import T\nA = 1\n",
        "kit/deep/tail.py": "T = 5\n",
        "late.py": "L = 4\n",
        "back.py": "import net\ndef size():\n    return net.SIZE\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    made = in_file(f"{tmp_path / 'net.py'}:net").load()
    assert made(num_classes=2) == (1, True, 2, 3, 4, 5, 3, 1)
    assert not {"kit", "late", "back", "net"} & {*sys.modules}


def test_a_checkout_of_zoo_is_not_the_user_s_own_code(tmp_path: Path) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "__init__.py").write_text("raise SystemExit\n")
    (tmp_path / "net.py").write_text("import zoo\ndef net(num_classes):\n    return zoo\n")
    code = in_file(f"{tmp_path / 'net.py'}:net")
    assert code.beside == {}
    assert code.load()(num_classes=2) is sys.modules["zoo"]


def test_the_record_names_what_was_run(tmp_path: Path) -> None:
    run = train(tmp_path / "run", plan_with(f"{nets(tmp_path / 'code')}:MyNet", epochs=1))
    assert read_record(run).own[0].beside.keys() == {"net_blocks.py"}


def test_threads_that_import_a_file_at_once_all_get_it(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("import time\ntime.sleep(0.3)\ndef net(num_classes):\n    return num_classes\n")
    with ThreadPoolExecutor(3) as threads:
        made = list(threads.map(lambda _: in_file(f"{file}:net").load()(num_classes=2), range(3)))
    assert made == [2, 2, 2]
