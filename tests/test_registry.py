"""The catalogue: shipped, plugins' and the user's files in one."""

from __future__ import annotations

from pathlib import Path

import pytest
from plugin_site import Site, site_in

from zoo.base.paths import builtin_registry
from zoo.catalogue.describe import native_sizes
from zoo.catalogue.registry import find_model, load_registry, references
from zoo.catalogue.registry_file import parse_file
from zoo.errors import InputError, SpecError, UnknownNameError

RECIPE = "[recipes.mine]\nepochs = 3\n"
MODEL = """
[datasets.squares]
source = "folder:squares"
num_classes = 3
size = [20, 24]

[models.my-hybrid]
summary = "mine"
family = "mine"
recipe = "mine"
dataset = "squares"
build = { use = "hybrid.classifier", body = { use = "cnn.residual", widths = [8] } }
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_in(tmp_path)


def test_a_copy_of_the_shipped_catalogue_with_more_in_it_is_named(here: Path) -> None:
    """Somebody may begin with our file; what a second checkout says to no other effect is not worth a word."""
    ours = Path(builtin_registry()).read_text("utf-8")
    Path("registry.toml").write_text(ours, "utf-8")
    assert load_registry().problems == ()
    said = r"registry\.toml is left out: by its table \[catalogue\] it is the catalogue 'hybrid-zoo'"
    Path("registry.toml").write_text(ours + RECIPE + MODEL, "utf-8")
    with pytest.raises(UnknownNameError, match=said):
        find_model("my-hybrid")
    Path("registry.toml").rename("other.toml")
    with pytest.raises(SpecError, match=said.replace("registry", "other", 1)):
        find_model("other.toml#my-hybrid")


def test_components_in_lists_of_lists_are_refused(here: Path) -> None:
    """A factory would be given the tables, and not what they make."""
    tree = "build = { use = 'hybrid.classifier', body = [[{ use = 'cnn.residual' }]] }"
    Path("registry.toml").write_text(RECIPE + MODEL.partition("build")[0] + tree)
    with pytest.raises(SpecError, match=r"build\.body: a list in a list has components in it"):
        load_registry()


def test_the_shipped_catalogue_has_no_problems(here: Path) -> None:
    registry = load_registry()
    assert registry.problems == ()
    assert all(record.status == "loaded" for record in registry.plugins if record.builtin)


def test_everything_that_the_shipped_catalogue_names_is_there(here: Path) -> None:
    registry = load_registry()
    tables = {"recipe": registry.recipes, "source": registry.sources, "dataset": registry.datasets}
    for entries in (registry.models, registry.recipes):
        for name, entry in entries.items():
            for key, kind, wanted in references(entry):
                assert wanted in tables[kind], f"{name}.{key}"
    assert "default" in registry.recipes, "the recipe of timm/NAME and torchvision/NAME"


def test_a_registry_file_in_the_working_folder_adds_models_and_recipes(here: Path) -> None:
    (here / "registry.toml").write_text(RECIPE + MODEL)
    registry = load_registry()
    assert registry.model("my-hybrid").recipe == "mine"
    assert registry.recipe("mine").epochs == 3
    assert registry.origin("model", "my-hybrid").file == str(here / "registry.toml")
    sizes = native_sizes(registry.model("my-hybrid"), registry)
    assert sizes == {"in_channels": 3, "height": 20, "width": 24, "num_classes": 3}


def test_a_registry_file_in_the_config_folder_adds_models_and_recipes(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "settings"
    config.mkdir()
    (config / "registry.toml").write_text(RECIPE)
    (here / "registry.toml").write_text(MODEL)
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(config))
    registry = load_registry()
    assert registry.model("my-hybrid").recipe in registry.recipes
    monkeypatch.setenv("ZOO_CONFIG_DIR", str(here))  # the same file by both ways is read once
    (here / "registry.toml").write_text(RECIPE + MODEL)
    assert "my-hybrid" in load_registry().models


def test_the_recipe_that_resizes_gives_the_native_size(here: Path) -> None:
    (here / "registry.toml").write_text(RECIPE + "image_size = 64\n" + MODEL)
    registry = load_registry()
    sizes = native_sizes(registry.model("my-hybrid"), registry)
    assert (sizes["height"], sizes["width"]) == (64, 64)


def test_a_model_is_found_by_file_and_name(here: Path) -> None:
    (here / "my.toml").write_text(RECIPE + MODEL)
    registry, name, model = find_model("my.toml#my-hybrid")
    assert (name, model.summary) == ("my-hybrid", "mine")
    assert "mine" in registry.recipes
    with pytest.raises(InputError, match=r"the file 'other\.toml' does not exist"):
        find_model("other.toml#my-hybrid")
    with pytest.raises(UnknownNameError, match="did you mean my-hybrid"):
        find_model("my.toml#my-hibrid")


def test_recipes_extend_one_another(here: Path) -> None:
    (here / "registry.toml").write_text(
        RECIPE + '[recipes.longer]\nextends = "mine"\nlr = 0.5\n[recipes.longest]\nextends = "longer"\nepochs = 9\n'
    )
    recipe = load_registry().recipe("longest")
    assert (recipe.epochs, recipe.lr) == (9, 0.5)


def test_unknown_names_suggest_the_nearest(here: Path) -> None:
    registry = load_registry()
    with pytest.raises(UnknownNameError, match="did you mean hybrid-alt-1"):
        registry.model("hybrid-alt1")
    with pytest.raises(UnknownNameError, match=r"did you mean .*cnn\.residual"):
        registry.component("cnn.residua")
    with pytest.raises(UnknownNameError, match=r"no model named 'tim/resnet18'"):
        registry.model("tim/resnet18")


def test_a_namespace_makes_a_model_of_any_name(here: Path) -> None:
    model = load_registry().model("timm/resnet18")
    assert model.build.args["name"] == "resnet18"
    assert model.family == "timm"


BAD_FILES = {
    "unknown key": ("[recipes.r]\nepoch = 3", ["recipes.r: ", "unknown field `epoch`", "allowed: accumulate"]),
    "wrong type": ("[recipes.r]\nepochs = 'x'", ["recipes.r.epochs: ", "expected `int`", "given 'x'"]),
    "unknown parent": ("[recipes.r]\nextends = 'nope'", ["recipes.r.extends: ", "no recipe named 'nope'"]),
    "parent of a wrong type": ("[recipes.r]\nextends = 3", ["recipes.r.extends: ", "no recipe named '3'"]),
    "circle": (
        "[recipes.a]\nextends = 'b'\n[recipes.b]\nextends = 'a'",
        ["recipes.", ".extends: the recipes extend one another in a circle: a -> b -> a"],
    ),
    "own parent": ("[recipes.a]\nextends = 'a'", ["circle: a -> a"]),
    "long chain": (
        "".join(f"[recipes.r{i}]\nextends = 'r{i + 1}'\n" for i in range(2000)) + "[recipes.r2000]\n",
        ["more than 16 recipes"],
    ),
    "bad name": ("[recipes.'My Recipe']\n", ["recipes.My Recipe: ", "lower-case"]),
    "not TOML": ("[recipes.r\n", ["not valid TOML", "line 1"]),
    "same key twice": ("[recipes.r]\nepochs = 1\nepochs = 2\n", ["not valid TOML", "line 3"]),
    "not a table": ("recipes = 3\n", ["recipes: expected a table, got int"]),
    "entry no table": ("[recipes]\nr = 3\n", ["recipes.r: expected a table, got int"]),
    "source no table": ("[sources]\ns = 3\n", ["sources.s: expected a table", "given 3"]),
    "unknown table": ("[model.x]\n", ["unknown table [model]", "allowed: sources, datasets, recipes, models, studies"]),
    "nested lists": ("x = " + "[" * 5000 + "]" * 5000, ["tables and lists nested more than 100 deep"]),
    "nested keys": ("[sources.s]\ntitle." + "a." * 5000 + "b = 1", ["nested more than 100 deep"]),
    "taken name": (
        RECIPE + MODEL.replace("models.my-hybrid", "models.hybrid-alt-1"),
        ["models.hybrid-alt-1: hybrid-zoo", "already has a model of this name"],
    ),
    "recipe not there": (MODEL, ["models.my-hybrid.recipe: no recipe named 'mine'"]),
    "best not there": (RECIPE + MODEL + 'best = "finest"', ["models.my-hybrid.best: no recipe named 'finest'"]),
    "source not there": (RECIPE + MODEL + 'source = "paper"', ["models.my-hybrid.source: no source named 'paper'"]),
    "dataset not there": (
        RECIPE + MODEL.replace('dataset = "squares"', 'dataset = "square"'),
        ["models.my-hybrid.dataset: no dataset named 'square'", "did you mean squares?"],
    ),
    "no use": (RECIPE + MODEL.replace("use = ", "uses = "), ["models.my-hybrid.build.use: expected"]),
    "too large": ("#" * (1 << 20) + "\n", ["larger than 1 MiB"]),
}


@pytest.mark.parametrize("case", BAD_FILES, ids=lambda case: case.replace(" ", "-"))
def test_a_wrong_user_file_gives_one_line_with_file_and_key(case: str, here: Path) -> None:
    text, parts = BAD_FILES[case]
    (here / "registry.toml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_registry()
    message = str(caught.value)
    assert message.startswith(str(here / "registry.toml"))
    assert "\n" not in message
    assert len(message) < 700
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xef\xbb\xbf[recipes.r]\n", "byte order mark"),
        (b"[recipes.r]\nsummary = '\xff'\n", "byte 23 is not UTF-8"),
        ("[recipes.r]".encode("utf-16"), "is not UTF-8"),
        (b"[recipes.r]\x00", "not valid TOML"),
    ],
)
def test_a_file_that_is_not_plain_utf8_says_so(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=says) as caught:
        parse_file(path)
    assert str(path) in str(caught.value)


def test_the_command_line_ends_with_2_and_one_line_for_a_wrong_file(site: Site) -> None:
    site.work.mkdir(parents=True)
    (site.work / "registry.toml").write_text("[recipes.r]\nepoch = 3\n")
    for words in (["list"], ["list", "--json"], ["info", "hybrid-alt-1"], ["plugins"]):
        done = site.run(*words)
        assert done.returncode == 2
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert "registry.toml: recipes.r: table contains unknown field `epoch`" in line


def test_a_checkout_that_is_not_installed_says_so(site: Site, tmp_path: Path) -> None:
    """An interpreter without site-packages: our code and the libraries that it needs, no metadata."""
    import click
    import msgspec
    import pluggy

    import zoo

    bare = tmp_path / "bare"
    bare.mkdir()
    for package in (click, msgspec, pluggy):
        folder = Path(package.__file__).parent
        (bare / folder.name).symlink_to(folder)
    checkout = str(Path(zoo.__file__).parent.parent)
    paths = f"import sys; sys.path[:0] = [{checkout!r}, {str(bare)!r}]"
    done = site.python("-S", "-c", f"{paths}; from zoo.cli import main; main(['list'])", PYTHONPATH="")
    assert done.returncode == 1
    assert "hybrid-zoo is not installed" in done.stderr
    assert "pip install -e ." in done.stderr
