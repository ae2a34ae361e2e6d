"""From a tree to a module: what is built, and that each mistake names its place and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_site import Site, components, site_in

from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import node_from_table
from zoo.errors import InputError, PluginError, ShapeError, UnknownNameError, ZooError
from zoo.models.compose import check, compose, create

SIZES = {"in_channels": 3, "height": 8, "width": 8, "num_classes": 5}

FACTORIES = """
from typing import Literal
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, channels, start):
        super().__init__()
        self.gain = nn.Parameter(torch.full((1, channels, 1, 1), start))

    def forward(self, x):
        return x * self.gain

def scale(
    *, channels, height, width, start: float = 1.0,
    mode: Literal["soft", "hard"] = "soft", widths: list[int] = ()
):
    return Scale(channels, start)

def needs(*, channels, height, width, depth: int):
    return nn.Identity()

def halves(*, channels, height, width):
    return nn.AvgPool2d(2)

def narrow(*, channels, height, width):
    return nn.Conv2d(7, 7, 1)

def wrong(*, channels, height, width):
    return "no module"

def raises(*, channels, height, width):
    raise ValueError("cannot do that")

def pair(*, channels, height, width):
    class Two(nn.Module):
        def forward(self, x):
            return x, x
    return Two()

def chain(*, parts, channels, height, width):
    return nn.Sequential(*(build(channels=channels, height=height, width=width) for build in parts))

def odd(*, parts, channels, height, width):
    return nn.Sequential(*(build(size=3) for build in parts))

def stem(*, in_channels, height, width, out: int = 6):
    return nn.Conv2d(in_channels, out, 2, stride=2)

def top(*, in_channels, height, width, num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_channels, num_classes))

def whole(*, in_channels, height, width, num_classes, body=None, stem=None, head=None, extra: int = 0):
    first = stem(in_channels=in_channels, height=height, width=width) if stem else nn.Identity()
    c, h, w = first.out_shape if stem else (in_channels, height, width)
    middle = body(channels=c, height=h, width=w) if body else nn.Identity()
    last = (head or top)(in_channels=c, height=h, width=w, num_classes=num_classes + extra)
    return nn.Sequential(first, middle, last)
"""
KINDS = {
    "part": ("scale", "needs", "halves", "narrow", "wrong", "raises", "pair"),
    "combinator": ("chain", "odd"),
    "stem": ("stem",),
    "head": ("top",),
    "classifier": ("whole",),
}


def plugin_source() -> str:
    rows = [(name, kind) for kind, names in KINDS.items() for name in names]
    source = components("x", factory="{module}_parts:absent")
    listing = f"[Component(name=n, kind=k, factory='{{module}}_parts:' + n) for n, k in {rows!r}]"
    missing = "[Component(name='absent', kind='part', factory='{module}_parts:absent')]"
    return source[: source.index("    return")] + f"    return {listing} + {missing}\n"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    site: Site = site_in(tmp_path)
    # a module keeps its name in this process for ever, so each test's plugin has one of its own
    name = f"tiny{abs(hash(tmp_path.name)):x}"
    site.add(name, plugin_source(), entry="tiny", parts=FACTORIES)
    monkeypatch.syspath_prepend(str(site.folder))
    return load_registry()


def tree(**table: Any) -> Any:
    return node_from_table(table, "build")


def test_a_tree_of_stem_parts_and_head_gives_logits(registry: Registry) -> None:
    scale = {"use": "tiny.scale", "start": 2}
    node = tree(
        use="tiny.whole",
        stem={"use": "tiny.stem", "out": 4},
        body={"use": "tiny.chain", "of": [scale, {"use": "tiny.chain", "of": [scale]}]},
        head={"use": "tiny.top"},
    )
    module = compose(node, registry, **SIZES)
    assert module(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert module.training
    gains = [p for n, p in module.named_parameters() if n.endswith("gain")]
    assert [g.shape[1] for g in gains] == [4, 4]
    assert gains[0].data_ptr() != gains[1].data_ptr()
    assert float(gains[0].detach().mean()) == 2.0
    assert all(p.device.type == "cpu" for p in module.parameters())


def test_checking_takes_no_memory_and_draws_no_random_numbers(registry: Registry) -> None:
    before = torch.get_rng_state()
    module = check(tree(use="tiny.whole", body={"use": "tiny.scale"}), registry, **SIZES)
    assert all(p.device.type == "meta" for p in module.parameters())
    assert torch.equal(before, torch.get_rng_state())


def test_the_same_seed_gives_the_same_weights(registry: Registry) -> None:
    node = tree(use="tiny.whole", stem={"use": "tiny.stem"})
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(compose(node, registry, **SIZES).state_dict())
    assert all(torch.equal(made[0][k], made[1][k]) for k in made[0])


BODY = "build.body (tiny."
WRONG: dict[str, tuple[dict[str, Any], type[ZooError], list[str]]] = {
    "unknown component": (
        {"use": "tiny.scala"},
        InputError,
        ["build.body.use: no component named 'tiny.scala'", "tiny.scale"],
    ),
    "unknown plugin": (
        {"use": "nope.scale"},
        InputError,
        ["build.body.use: no component named 'nope.scale'"],
    ),
    "unknown argument": (
        {"use": "tiny.scale", "gain": 1},
        InputError,
        ["build.body: 'tiny.scale' takes no argument 'gain'", "allowed: start, mode, widths"],
    ),
    "argument that compose gives": (
        {"use": "tiny.scale", "channels": 4},
        InputError,
        ["takes no argument 'channels'", "allowed: start"],
    ),
    "wrong type": (
        {"use": "tiny.scale", "start": "big"},
        InputError,
        ["build.body.start: ", "`float`", "given 'big'"],
    ),
    "wrong choice": (
        {"use": "tiny.scale", "mode": "x"},
        InputError,
        ["build.body.mode: ", "given 'x'", "'soft', 'hard'"],
    ),
    "wrong item": (
        {"use": "tiny.scale", "widths": [1, "a"]},
        InputError,
        ["build.body.widths[1]: ", "`int`", "given 'a'"],
    ),
    "missing argument": (
        {"use": "tiny.needs"},
        InputError,
        ["build.body: 'tiny.needs' needs the argument 'depth'"],
    ),
    "shape not kept": (
        {"use": "tiny.halves"},
        ShapeError,
        [BODY + "halves)", "must keep its shape", "(3, 4, 4)", "(3, 8, 8)"],
    ),
    "size not taken": (
        {"use": "tiny.narrow"},
        ShapeError,
        [BODY + "narrow)", "cannot take 3 channels of 8x8"],
    ),
    "not a module": (
        {"use": "tiny.wrong"},
        PluginError,
        [BODY + "wrong)", "returned str, not a torch module"],
    ),
    "raises": ({"use": "tiny.raises"}, InputError, [BODY + "raises): cannot do that"]),
    "two tensors": ({"use": "tiny.pair"}, PluginError, [BODY + "pair)", "must return one tensor"]),
    "wrong kind": (
        {"use": "tiny.stem"},
        InputError,
        ["build.body.use: 'tiny.stem' is a stem; expected a part or a combinator"],
    ),
    "children of a part": (
        {"use": "tiny.scale", "of": [{"use": "tiny.scale"}]},
        InputError,
        [BODY + "scale): `of` is for combinators", "a part"],
    ),
    "factory not there": ({"use": "tiny.absent"}, PluginError, ["component 'tiny.absent': cannot import"]),
    "deep": (
        {
            "use": "tiny.chain",
            "of": [{"use": "tiny.scale"}, {"use": "tiny.chain", "of": [{"use": "tiny.halves"}]}],
        },
        ShapeError,
        ["build.body.of[1].of[0] (tiny.halves): a part must keep its shape"],
    ),
    "deep raise": (
        {"use": "tiny.chain", "of": [{"use": "tiny.raises"}]},
        InputError,
        ["build.body.of[0] (tiny.raises): cannot do that"],
    ),
    "contract of a builder": (
        {"use": "tiny.odd", "of": [{"use": "tiny.scale"}]},
        PluginError,
        ["build.body.of[0]", "['size']"],
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "-"))
def test_a_mistake_in_the_tree_names_its_place_and_what_is_allowed(case: str, registry: Registry) -> None:
    body, kind, parts = WRONG[case]
    with pytest.raises(kind) as caught:
        compose(tree(use="tiny.whole", body=body), registry, **SIZES)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert message.count("build.body") <= 1, "the place is named once"


def test_the_root_must_be_a_classifier(registry: Registry) -> None:
    with pytest.raises(InputError, match=r"build\.use: 'tiny\.scale' is a part; expected a classifier"):
        compose(tree(use="tiny.scale"), registry, **SIZES)


def test_a_classifier_that_gives_other_logits_is_refused(registry: Registry) -> None:
    with pytest.raises(ShapeError, match=r"gives \(7,\) for each image, expected \(5,\)"):
        compose(tree(use="tiny.whole", extra=2), registry, **SIZES)


def test_a_combinator_needs_children(registry: Registry) -> None:
    with pytest.raises(InputError, match=r"build\.body.*of"):
        compose(tree(use="tiny.whole", body={"use": "tiny.chain"}), registry, **SIZES)


@pytest.mark.parametrize("key", ["in_channels", "height", "width", "num_classes"])
def test_sizes_must_be_at_least_one(key: str, registry: Registry) -> None:
    with pytest.raises(ShapeError, match="at least 1"):
        compose(tree(use="tiny.whole"), registry, **{**SIZES, key: 0})


def test_a_model_above_the_limit_is_refused_before_it_takes_memory(registry: Registry) -> None:
    node = tree(use="tiny.whole", stem={"use": "tiny.stem", "out": 1_000_000})
    with pytest.raises(InputError, match="more than 1,000,000 parameters"):
        compose(node, registry, **SIZES, limit=1_000_000)


def test_create_builds_a_model_of_the_catalogue_at_the_size_asked_for() -> None:
    with torch.device("meta"):
        module = create("hybrid-alt-1", num_classes=100, image_size=32)
    assert sum(p.numel() for p in module.parameters()) == 4_995_737
    with pytest.raises(UnknownNameError, match="did you mean hybrid-alt-1"):
        create("hybrid-alt1")


def test_create_says_which_size_a_model_cannot_take() -> None:
    with pytest.raises(ZooError, match=r"models\.vit-d2h4\.build"), torch.device("meta"):
        create("vit-d2h4", num_classes=10, image_size=31)
