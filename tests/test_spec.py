"""Decoding of tables: what is wrong is said in one line that names key, value and what is allowed."""

from __future__ import annotations

import msgspec
import pytest

from zoo.catalogue.recipe import Recipe
from zoo.catalogue.spec import MAX_DEPTH, Dataset, Model, Node, decode, decode_model, node_from_table
from zoo.errors import SpecError

NESTED = {
    "use": "hybrid.classifier",
    "body": {"use": "hybrid.joint", "repeat": 2, "of": [{"use": "cnn.residual", "widths": [8]}, {"use": "vit.image"}]},
    "extras": [{"use": "a.b"}, {"use": "c.d", "x": [1, 2.5, "s"]}],
}


def message(kind: type, table: object) -> str:
    with pytest.raises(SpecError) as caught:
        decode(kind, table, "my.toml: recipes.mine")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ({"epoch": 1}, [": ", "unknown field `epoch`", "allowed:", "epochs"]),
        ({"epochs": 0}, [".epochs: ", ">= 1", "given 0"]),
        ({"epochs": "ten"}, [".epochs: ", "`int`", "given 'ten'"]),
        ({"epochs": True}, [".epochs: ", "given True"]),
        ({"lr": -1.0}, [".lr: ", "> 0", "given -1.0"]),
        ({"schedule": "step"}, [".schedule: ", "given 'step'", "'cosine'", "'onecycle'"]),
        ({"betas": [0.9]}, [".betas: ", "length 2"]),
        ({"augment": "flip"}, [".augment: ", "a list", "given 'flip'"]),
        ({"augment": [{"op": "flipp"}]}, [".augment[0].op: ", "'flipp'", "'flip', 'vertical-flip'", "'cutmix'"]),
        ({"augment": [{"p": 0.5}]}, [".augment[0]: ", "missing required field `op`", "'flip'"]),
        (7, ["expected a table", "given 7"]),
    ],
)
def test_a_wrong_recipe_names_the_key_the_value_and_what_is_allowed(table: object, parts: list[str]) -> None:
    text = message(Recipe, table)
    assert text.startswith("my.toml: recipes.mine")
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"mean": [123.675, 116.28, 103.53]}, "mean holds 123.675; allowed: 0 to 1, as pixel values are taken as"),
        ({"std": [58.395, 57.12, 57.375]}, "std holds 58.395; allowed: above 0, up to 1"),
        ({"mean": [0.5, -0.1, 0.5]}, "mean holds -0.1"),
        ({"mean": [float("nan")] * 3}, "mean holds nan"),
        ({"mean": [0.5, 0.5]}, "mean has 2 values; give one for each channel (3), or one for all"),
        ({"std": [0.5] * 4}, "std has 4 values"),
        ({"std": [0.5]}, "mean and std belong together: give both, or neither, and they are measured"),
    ],
)
def test_a_mean_and_a_std_are_of_each_channel_and_of_values_up_to_1(table: dict[str, object], says: str) -> None:
    text = message(Dataset, {"source": "sklearn:digits", **table})
    assert says in text
    assert "given {" not in text


def test_one_mean_stands_for_all_channels() -> None:
    dataset = decode(Dataset, {"source": "sklearn:digits", "mean": [0.1307], "std": [0.3081]}, "x")
    assert (dataset.mean, dataset.std) == ((0.1307,) * 3, (0.3081,) * 3)
    gray = decode(Dataset, {"source": "x:y", "mean": [0.1], "std": [0.2], "channels": 1}, "x")
    assert (gray.mean, msgspec.structs.replace(gray, channels=3).mean) == ((0.1,), (0.1,) * 3)
    assert decode(Dataset, {"source": "x:y"}, "x").mean == ()


def test_an_unknown_field_of_an_augmentation_lists_the_fields_of_that_step_only() -> None:
    text = message(Recipe, {"augment": [{"op": "flip"}, {"op": "crop", "size": 4}]})
    assert text.endswith(".augment[1]: table contains unknown field `size`; allowed: mode, padding")


def test_a_missing_field_of_an_augmentation_does_not_list_other_steps() -> None:
    text = message(Recipe, {"augment": [{"op": "cutout"}]})
    assert "missing required field `size`" in text
    assert "vertical-flip" not in text


def test_a_long_wrong_value_is_cut() -> None:
    assert len(message(Dataset, {"source": ["x" * 5000]})) < 200


def test_a_tree_reads_back_from_its_table() -> None:
    node = node_from_table(NESTED, "build")
    assert node.to_table() == NESTED
    assert [key for key, _ in node.children()] == ["body", "extras[0]", "extras[1]"]
    assert node.args["body"].of[1] == Node(use="vit.image")


def test_a_walk_gives_every_component_of_a_tree_with_its_place() -> None:
    node = node_from_table(NESTED, "build")
    places = dict(node.walk())
    assert list(places) == [
        "build",
        "build.body",
        "build.body.of[0]",
        "build.body.of[1]",
        "build.extras[0]",
        "build.extras[1]",
    ]
    assert places["build.body.of[0]"].args == {"widths": [8]}
    assert node.plain_args() == {}
    assert node.args["body"].plain_args() == {"repeat": 2}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("vit", "build: expected a table with `use`, got 'vit'"),
        ({}, 'build.use: expected "plugin.component", got None'),
        ({"use": "vit"}, "build.use: expected"),
        ({"use": "a.b", "of": {"use": "c.d"}}, "build.of: expected a list of tables"),
        ({"use": "a.b", "of": [{"use": "c.d"}, 3]}, "build.of[1]: expected a table"),
        ({"use": "a.b", "body": {"use": 3}}, "build.body.use: expected"),
    ],
)
def test_a_wrong_tree_names_its_place(table: object, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        node_from_table(table, "build")
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("key", ["of", "body", "list"])
def test_a_tree_nested_too_deeply_is_refused(key: str) -> None:
    table: object = {"use": "a.b"}
    for _ in range(MAX_DEPTH + 2):
        table = {"of": {"use": "a.b", "of": [table]}, "body": {"use": "a.b", "body": table}, "list": [table]}[key]
    with pytest.raises(SpecError, match="nested more than 32"):
        node_from_table({"use": "a.b", "x": table}, "build")


def test_a_model_needs_a_build_table() -> None:
    with pytest.raises(SpecError, match="needs a `build` table"):
        decode_model({"summary": "x"}, "my.toml: models.m")
    with pytest.raises(SpecError, match="missing required field `family`"):
        decode_model({"summary": "x", "build": {"use": "a.b"}}, "my.toml: models.m")


def test_a_model_is_frozen_and_holds_its_whole_tree() -> None:
    model = decode_model({"summary": "x", "family": "f", "recipe": "r", "build": NESTED}, "m")
    assert isinstance(model, Model)
    assert model.build.to_table() == NESTED
    with pytest.raises(AttributeError):
        model.summary = "y"
    assert msgspec.to_builtins(model)["dataset"] == "cifar10"
