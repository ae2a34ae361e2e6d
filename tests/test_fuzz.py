"""Registry files and trees from strangers: nothing but our errors, always with the place, never for long."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.catalogue.recipe import Recipe
from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import Dataset, Model, Node, Source
from zoo.errors import SpecError, ZooError
from zoo.models.compose import check

MANY = int(os.environ.get("ZOO_FUZZ_EXAMPLES", "0"))


def examples(quick: int) -> settings:
    return settings(
        max_examples=MANY or quick,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not MANY,
        database=None,
    )


scalars = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(["hybrid.classifier", "cnn.residual", "digits", "default", "flip", "adam"]),
    st.dates(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
FIELDS = {
    "models": list(Model.__struct_fields__),
    "recipes": [*Recipe.__struct_fields__, "extends"],
    "datasets": list(Dataset.__struct_fields__),
    "sources": list(Source.__struct_fields__),
}
names = st.one_of(st.sampled_from(["mine", "other", "hybrid-alt-1", "Bad Name", ""]), st.text(max_size=8))


def table(kind: str) -> st.SearchStrategy[Any]:
    keys = st.one_of(st.sampled_from(FIELDS[kind]), st.text(max_size=6))
    return st.one_of(values, st.dictionaries(keys, values, max_size=6))


files = st.fixed_dictionaries(
    {}, optional={kind: st.one_of(values, st.dictionaries(names, table(kind), max_size=3)) for kind in FIELDS}
)


def read(text: bytes, folder: Path) -> Registry | None:
    """Load the catalogue with this file; None where it was refused, with the file's name."""
    path = folder / "strange.toml"
    path.write_bytes(text)
    try:
        return load_registry(extra=(path,))
    except SpecError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strange")


@examples(150)
@given(tables=files)
def test_tables_of_any_shape_are_read_or_refused_by_name(tables: dict[str, Any], folder: Path) -> None:
    read(tomli_w.dumps(tables).encode(), folder)


@examples(100)
@given(text=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode(errors="replace"))))
def test_bytes_of_any_kind_are_read_or_refused_by_name(text: bytes, folder: Path) -> None:
    read(text, folder)


@pytest.mark.parametrize("opening", ["[", "{ a = ", "[[", "x = ["])
def test_deep_nesting_is_refused_and_never_crashes(opening: str, folder: Path) -> None:
    assert read(("a = " + opening * 5000).encode(), folder) is None


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


arguments = st.dictionaries(
    st.sampled_from(["widths", "depth", "heads", "mlp", "dropout", "repeat", "patch", "embed", "norm", "x"]),
    st.one_of(scalars, st.lists(st.integers(-2, 2**62), max_size=3)),
    max_size=4,
)
leaves = st.builds(
    lambda use, args: Node(use=use, args=args),
    st.sampled_from(["cnn.residual", "vit.image", "mixer.image", "perceiver.image", "cnn.nothing", "cnn.stem"]),
    arguments,
)
trees = st.recursive(
    leaves,
    lambda inner: st.builds(
        lambda use, args, of: Node(use=use, args=args, of=tuple(of)),
        st.sampled_from(["hybrid.alternate", "hybrid.joint", "cnn.residual"]),
        arguments,
        st.lists(inner, max_size=2),
    ),
    max_leaves=3,
)


@examples(60)
@given(body=trees)
def test_trees_of_any_shape_compose_or_are_refused_with_their_place(body: Node, registry: Registry) -> None:
    tree = Node(use="hybrid.classifier", args={"body": body})
    try:
        module = check(
            tree, registry, in_channels=3, height=16, width=16, num_classes=10, limit=10**9, where="models.x.build"
        )
    except ZooError as error:
        assert "models.x.build" in str(error)
        assert "\n" not in str(error)
    else:
        assert all(p.device == torch.device("meta") for p in module.parameters())
