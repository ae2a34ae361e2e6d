"""The package that `zoo new plugin --from FILE.py` makes of a file of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from own_things import write_nets

from zoo.catalogue.own_plugin import plugin_of
from zoo.errors import InputError
from zoo.testing.cases import cases_of


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with models as a user writes them."""
    return write_nets(tmp_path_factory.mktemp("nets"))


def installed(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin `mine` made of a file, as it is found when it is installed."""
    package = plugin_of(source, "mine", folder) / "src" / "zoo_mine"
    info = package.parent / "zoo_mine-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-mine\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nmine = zoo_mine\n[zoo.api]\nmine = v1\n")
    monkeypatch.syspath_prepend(str(package.parent))
    for name in [name for name in sys.modules if name.partition(".")[0] == "zoo_mine"]:
        monkeypatch.delitem(sys.modules, name)
    return package


QUICK = ("listing", "signature", "shapes", "finite", "parameters", "safetensors")


def checked(*checks: str) -> dict[str, list[str]]:
    """What the conformance kit finds: failures by subject."""
    failed: dict[str, list[str]] = {}
    for case in cases_of("mine"):
        if not checks or case.check in checks:
            outcome = case.run()
            failed.setdefault(case.subject, []).extend([outcome.note] if outcome.result == "failed" else [])
    return failed


def test_a_plugin_is_made_of_a_file_and_passes_the_kit(
    nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = installed(str(nets), tmp_path / "out", monkeypatch)
    files = {path.name for path in package.glob("*.py")}
    assert files == {"__init__.py", "components.py", "my_nets.py", "net_blocks.py"}
    assert "from zoo_mine.net_blocks import block" in (package / "my_nets.py").read_text()
    subjects = ("mine", "mine.my_net", "mine.blur", "mine.patches", "mine-tiny")
    assert checked("listing", "signature", "shapes") == {name: [] for name in subjects}


HEAD = "import torch\nfrom torch import nn\n"
NET = """
class Net(nn.Module):
    def __init__(self, in_channels, height, width, num_classes, most: float = float("inf")):
        super().__init__()
        self.most, self.head = most, nn.Linear(in_channels * height * width, num_classes)

    def forward(self, x):
        return self.head(x.flatten(1)).clamp(max=self.most)
"""


def test_a_form_feed_and_a_default_without_end_are_taken_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper.py").write_text("SIDE = 1\n")
    (tmp_path / "net.py").write_text(f"{HEAD}# page one \x0c page two\nfrom helper import SIDE\n{NET}")
    package = installed(str(tmp_path / "net.py"), tmp_path / "out", monkeypatch)
    assert "from zoo_mine.helper import SIDE" in (package / "net.py").read_text()
    assert not any(checked("listing", "signature", "shapes").values())


def test_nothing_is_written_of_a_file_that_cannot_be_taken(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("SIDE = 1\n")
    (tmp_path / "net.py").write_text(f"{HEAD}import helper, json\n{NET}")
    with pytest.raises(InputError, match="write it as"):
        plugin_of(str(tmp_path / "net.py"), "mine", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_plugin_passes_all_of_the_kit(nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(f"{nets}:MyNet", tmp_path / "out", monkeypatch)
    assert checked() == {name: [] for name in ("mine", "mine.my_net", "mine-tiny")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def net(num_classes, depth): ...\n", "has no class and no function that can be a component"),
        ("def net(num_classes): return 3\n", "has no class and no function that can be a component"),
        ("import own_beside.deep\ndef net(): ...\n", "has no class and no function that can be a component"),
    ],
)
def test_a_file_that_makes_no_plugin_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(InputError, match=message):
        plugin_of(str(tmp_path / "own.py"), "mine", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_component_that_was_named_says_what_it_lacks(nets: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def net(num_classes, depth): ...\n")
    with pytest.raises(
        InputError, match=r"own.py:net: needs depth, which nothing tells a component; give it a default"
    ):
        plugin_of(f"{tmp_path / 'own.py'}:net", "mine", tmp_path / "out")
    with pytest.raises(InputError, match=r"takes no square images of 8 to 299 .*for 10 classes it gives \(2, 11\)"):
        plugin_of(f"{write_flat(tmp_path)}:flat", "mine", tmp_path / "out")
    with pytest.raises(InputError, match="'own' is"):
        plugin_of(f"{nets}:MyNet", "own", tmp_path / "out")


def write_flat(folder: Path) -> Path:
    (folder / "flat.py").write_text(
        "from torch import nn\n"
        "def flat(num_classes, height, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, num_classes + 1))\n"
    )
    return folder / "flat.py"


LENET = """
import torch.nn as nn

class LeNet(nn.Module):
    def __init__(self, num_classes=10, p=0.1, act=nn.ReLU):
        super().__init__()
        flat = nn.Linear(2 * 14 * 14, num_classes)
        self.layers = nn.Sequential(nn.Conv2d(3, 2, 5, stride=2), act(), nn.Flatten(), flat)

    def forward(self, x):
        return self.layers(x)
"""


def test_a_net_for_one_size_alone_becomes_a_plugin_for_that_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-net.py").write_text(LENET)
    package = installed(f"{tmp_path / 'my-net.py'}:LeNet", tmp_path / "out", monkeypatch)
    assert "image_size = 32" in (package / "registry.toml").read_text()
    assert checked(*QUICK) == {"mine": [], "mine.le_net": [], "mine-tiny": []}
    assert "num_classes: int, p: float = 0.1)" in (package / "components.py").read_text()
