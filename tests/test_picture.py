"""The picture of a composition: what flows where, for any tree, the same each time, and never endless."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageChops

from zoo.base.drawing import encoded
from zoo.catalogue.picture import MAX_BOXES, MAX_WIDTH, WIDTH, draw_tree, in_words
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Node
from zoo.errors import InputError
from zoo.plugin import Component


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("hybrid-alt-2", "hybrid.classifier (hybrid.alternate (cnn.residual → vit.image) × 2)"),
        ("hybrid-joint-1", "hybrid.classifier (hybrid.joint (cnn.residual | vit.image))"),
        ("speedrun-94", "hybrid.classifier (cnn.whiten (cnn.stages) → cnn.scaled-head)"),
        ("hybrid-res9-vit", "hybrid.classifier (cnn.stem → hybrid.alternate (cnn.residual → vit.image) → hybrid.pool)"),
        ("timm/vit_tiny_patch16_224", "timm.model vit_tiny_patch16_224"),
        ("perceiver", "perceiver.classifier"),
    ],
)
def test_words_say_what_is_in_turn_beside_and_repeated(model: str, words: str, registry: Registry) -> None:
    assert in_words(registry.model(model).build, registry.components) == words


def test_every_model_of_the_catalogue_fits_a_page(registry: Registry, tmp_path: Path) -> None:
    from zoo.catalogue.picture import _block, _least, _page

    for name, model in registry.models.items():
        block = _block(model.build, registry.components, "", 1, [MAX_BOXES])
        assert _least(block) <= WIDTH, name
        marks: list = []
        height = _page(block, WIDTH, "image", "logits", marks)
        for mark in marks:
            assert all(0 <= at <= max(WIDTH, height) for at in mark.at), (name, mark)
            if mark.what == "text":
                assert mark.at[1] <= height, (name, mark)


def test_parts_on_the_same_input_stand_side_by_side(registry: Registry) -> None:
    from zoo.catalogue.picture import _block, _page

    def boxes(model: str) -> list[tuple[float, ...]]:
        marks: list = []
        block = _block(registry.model(model).build, registry.components, "", 1, [MAX_BOXES])
        _page(block, WIDTH, "image", "logits", marks)
        return [m.at for m in marks if m.what == "box" and m.style == "part"]

    (cnn, vit) = boxes("hybrid-joint-1")
    assert cnn[1] == vit[1]
    assert cnn[3] == vit[3]
    assert cnn[0] + cnn[2] < vit[0]
    (cnn, vit) = boxes("hybrid-alt-1")
    assert cnn[0] == vit[0]
    assert cnn[1] + cnn[3] < vit[1]


def test_a_picture_is_the_same_each_time_and_shows_its_tree(registry: Registry, tmp_path: Path) -> None:
    trees = [registry.model(name).build for name in ("hybrid-alt-1", "hybrid-alt-1", "hybrid-alt-2")]
    for kind in ("png", "svg"):
        first, again, other = (
            draw_tree(tmp_path / f"{n}.{kind}", tree, registry.components).read_bytes() for n, tree in enumerate(trees)
        )
        assert first == again != other
    ElementTree.parse(tmp_path / "0.svg")
    with Image.open(tmp_path / "0.png") as image:
        assert image.width == 2 * WIDTH
        white = Image.new("RGB", image.size, "white")
        assert ImageChops.difference(image.convert("RGB"), white).getbbox() is not None


@pytest.mark.parametrize("name", ["a.jpg", "picture", "x.png.txt"])
def test_another_kind_of_file_is_refused(name: str, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        draw_tree(tmp_path / name, registry.model("resnet9").build, registry.components)
    assert list(tmp_path.iterdir()) == []


def test_a_strangers_tree_is_drawn_within_bounds(tmp_path: Path) -> None:
    known = {
        "a.joint": Component(name="joint", kind="combinator", factory="a:b", branches=True),
        "a.turn": Component(name="turn", kind="combinator", factory="a:b", summary="$\\frac{x}"),
    }
    node = Node(use="un.known", args={"name": "$x^2$ \n\x1b[31m 漢字 </svg>" + "y" * 5000, "repeat": True})
    for n in range(25):
        node = Node(use=("a.joint", "a.turn")[n % 2], args={str(k): [k] * 99 for k in range(40)}, of=(node,) * 9)
    with Image.open(draw_tree(tmp_path / "a.png", node, known)) as image:
        assert image.width <= 2 * MAX_WIDTH
        assert image.height < 30_000
    ElementTree.parse(draw_tree(tmp_path / "a.svg", node, known))


def test_what_is_left_out_is_counted(registry: Registry) -> None:
    part = Node(use="cnn.residual")
    tree = Node(use="hybrid.joint", of=(part,) * 9)
    assert in_words(tree, registry.components).count("cnn.residual") == 6
    assert "and 3 more" in in_words(tree, registry.components)
    assert in_words(Node(use="hybrid.alternate", of=(part,) * 9), registry.components).endswith("(cnn.residual × 9)")


def test_the_command_writes_the_file_without_torch(tmp_path: Path) -> None:
    code = "import sys; from zoo.cli import main\ntry: main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "info", "hybrid-alt-1", "--picture", "here.svg"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "here.svg"), done.stderr
    assert (tmp_path / "here.svg").read_text().startswith("<?xml")


def test_names_in_scripts_that_the_font_has_not_are_drawn_without_a_word() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, "\u732b")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        drawn = encoded(figure, "png")
    assert drawn.startswith(b"\x89PNG")
    assert told == []
