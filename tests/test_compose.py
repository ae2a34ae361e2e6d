"""From a tree to a module: what is built, and that each mistake names its place and what is allowed."""

from __future__ import annotations

import copy
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_site import Site, components, site_in
from torch import nn

from zoo.catalogue.registry import Registry, load_registry
from zoo.catalogue.spec import node_from_table
from zoo.errors import InputError, PluginError, ShapeError, UnknownNameError, ZooError
from zoo.models.api import create
from zoo.models.compose import check, compose, copies_its_input
from zoo.models.flops import flops
from zoo_hybrid.mixtures import joint

SIZES = {"in_channels": 3, "height": 8, "width": 8, "num_classes": 5}

FACTORIES = """
from typing import Literal
import numpy as np
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

def exits(*, channels, height, width):
    raise SystemExit(3)


def raises(*, channels, height, width):
    raise ValueError("cannot do that")

def imports(*, channels, height, width):
    import nowhere

def pair(*, channels, height, width):
    class Two(nn.Module):
        def forward(self, x):
            return x, x
    return Two()

def chain(*, parts, channels, height, width):
    return nn.Sequential(*(build(channels=channels, height=height, width=width) for build in parts))

def odd(*, parts, channels, height, width):
    return nn.Sequential(*(build(size=3) for build in parts))

class Values(nn.Module):
    def __init__(self, kind, channels):
        super().__init__()
        self.kind, self.conv = kind, nn.Conv2d(channels, channels, 1)
        if kind == "buffer":
            self.register_buffer("ones", torch.from_numpy(np.ones((channels, 1, 1), np.float32)))
        if kind == "device":
            self.ones = nn.Parameter(torch.ones(channels, 1, 1, device="cpu"))

    def forward(self, x):
        x = self.conv(x)
        if self.kind == "item":
            return x / max(x.abs().max().item(), 1e-6)
        if self.kind == "if":
            return x if torch.isfinite(x).all() else torch.nan_to_num(x)
        if self.kind == "wide":
            x.sum().item()
            return x.repeat(1, 100_000, 1, 1)[:, : x.shape[1]]
        return x * self.ones if self.kind in ("buffer", "device") else x

def values(*, channels, height, width, kind: str):
    if kind == "rates":
        rates = [x.item() for x in torch.linspace(0, 0.1, 4)]
        return nn.Sequential(*(nn.Dropout(rate) for rate in rates), nn.Linear(width, width))
    if kind == "list":
        assert torch.arange(channels).tolist() == list(range(channels))
    if kind == "many":
        torch.zeros(1).item()
        return nn.Sequential(*(nn.Linear(width, 100_000) for _ in range(20)))
    if kind == "halves":
        torch.zeros(1).item()
        return nn.AvgPool2d(2)
    return Values(kind, channels)

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
    "part": ("scale", "needs", "halves", "narrow", "wrong", "raises", "exits", "pair", "values", "inplace", "imports"),
    "combinator": ("chain", "odd", "added"),
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
    site.add(name, plugin_source(), entry="tiny", parts=FACTORIES + IN_PLACE)
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


@pytest.mark.parametrize("kind", ["rates", "item", "if", "buffer", "list", "device"])
def test_a_module_that_looks_at_values_is_tried_out_on_the_cpu(kind: str, registry: Registry) -> None:
    node = tree(use="tiny.whole", stem={"use": "tiny.stem"}, body={"use": "tiny.values", "kind": kind})
    torch.manual_seed(3)
    before = torch.get_rng_state()
    outline = check(node, registry, **SIZES)
    assert torch.equal(before, torch.get_rng_state()), "trying out must not change what the seed gives"
    module = compose(node, registry, **SIZES)
    assert module(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert sum(p.numel() for p in outline.parameters()) == sum(p.numel() for p in module.parameters())
    assert flops(outline, SIZES) > 0
    with torch.device("meta"):
        assert {p.device.type for p in compose(node, registry, **SIZES).parameters()} == {"meta"}


def test_what_is_wrong_on_the_cpu_too_is_said_as_it_is_there(registry: Registry) -> None:
    node = tree(use="tiny.whole", body={"use": "tiny.values", "kind": "halves"})
    with pytest.raises(ShapeError, match=r"\(tiny\.values\): a part must keep its shape; it makes \(3, 4, 4\)"):
        compose(node, registry, **SIZES)


@pytest.mark.parametrize("kind", ["many", "wide"])
def test_memory_is_limited_before_it_is_taken_on_the_cpu(kind: str, registry: Registry) -> None:
    node = tree(use="tiny.whole", body={"use": "tiny.values", "kind": kind})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"takes more than 0\.0 GiB of memory .* meta device it fails: build\.body"):
        check(node, registry, memory=10_000_000, **SIZES)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 40_000, "kilobytes"


BODY = "build.body (tiny."
WRONG: dict[str, tuple[dict[str, Any], type[ZooError], list[str]]] = {
    "unknown component": (
        {"use": "tiny.scala"},
        InputError,
        ["build.body.use: no component named 'tiny.scala'", "tiny.scale"],
    ),
    "unknown plugin": ({"use": "nope.scale"}, InputError, ["build.body.use: no component named 'nope.scale'"]),
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
    "wrong type": ({"use": "tiny.scale", "start": "big"}, InputError, ["build.body.start: ", "`float`", "given 'big'"]),
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
    "missing argument": ({"use": "tiny.needs"}, InputError, ["build.body: 'tiny.needs' needs the argument 'depth'"]),
    "shape not kept": (
        {"use": "tiny.halves"},
        ShapeError,
        [BODY + "halves)", "must keep its shape", "(3, 4, 4)", "(3, 8, 8)"],
    ),
    "size not taken": ({"use": "tiny.narrow"}, ShapeError, [BODY + "narrow)", "cannot take 3 channels of 8x8"]),
    "not a module": ({"use": "tiny.wrong"}, PluginError, [BODY + "wrong)", "returned str, not a torch module"]),
    "raises": (
        {"use": "tiny.raises"},
        InputError,
        [BODY + "raises): cannot do that", "(ValueError in ", ", line ", "; --debug shows the traceback)"],
    ),
    "exits": ({"use": "tiny.exits"}, InputError, [BODY + "exits): 3", "(SystemExit in ", ", line "]),
    "imports": (
        {"use": "tiny.imports"},
        PluginError,
        [BODY + "imports)", "cannot import nowhere; install the package that provides the module nowhere"],
    ),
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
        {"use": "tiny.chain", "of": [{"use": "tiny.scale"}, {"use": "tiny.chain", "of": [{"use": "tiny.halves"}]}]},
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


IN_PLACE = """

class InPlace(nn.Module):
    def __init__(self, channels, way):
        super().__init__()
        self.way, self.conv = way, nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        if self.way == "view":
            x.flatten(1).relu_()
        x = nn.functional.relu(x, inplace=True) if self.way == "relu" else x
        return self.conv(nn.functional.dropout(x, 0.5, self.training, inplace=self.way == "dropout"))

def inplace(*, channels, height, width, way: str):
    return InPlace(channels, way)

class Added(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return x + sum(part(x) for part in self.parts)

def added(*, parts, channels, height, width):
    return Added([build(channels=channels, height=height, width=width) for build in parts])
"""


@pytest.mark.parametrize("way", ["relu", "dropout", "view"])
@pytest.mark.parametrize(
    ("combinator", "arguments"),
    [
        ("hybrid.joint", {"residual": True}),
        ("hybrid.joint", {"fuse": "gate"}),
        ("hybrid.alternate", {"residual": True}),
        ("tiny.added", {}),
    ],
)
def test_a_part_that_works_in_place_changes_nothing_for_others(
    way: str, combinator: str, arguments: dict[str, Any], registry: Registry
) -> None:
    """The same as with each part on a copy of its own, which the first module of a chain makes."""
    of = [{"use": "tiny.inplace", "way": way}, {"use": "tiny.scale"}]
    body = tree(use="hybrid.classifier", body={"use": combinator, "of": of, **arguments})
    module = compose(body, registry, **SIZES).get_submodule("body")
    expected = copy.deepcopy(module)
    for part in expected.modules():
        if type(part).__name__ == "InPlace":
            part._forward_pre_hooks.clear()
            part.forward = lambda x, given=part.forward: given(x.clone())
    x = torch.randn(2, 3, 8, 8)
    given = x.clone()
    torch.manual_seed(1)
    out = module(given)
    torch.manual_seed(1)
    assert torch.equal(out, expected(x))
    assert torch.equal(given, x)


def test_a_part_that_leaves_its_input_alone_is_given_no_copy(registry: Registry) -> None:
    body = {"use": "hybrid.joint", "of": [{"use": "tiny.scale"}, {"use": "cnn.residual"}], "residual": True}
    module = compose(tree(use="hybrid.classifier", body=body), registry, **SIZES)
    assert not copies_its_input(module)


def test_mixtures_refuse_a_part_that_was_not_seen_to_work_in_place() -> None:
    sizes = {"channels": 3, "height": 8, "width": 8}
    mixture = joint(parts=[lambda **size: nn.ReLU(inplace=True), lambda **size: nn.Identity()], **sizes)
    with pytest.raises(PluginError, match="ReLU changes its input in place, which other parts read too"):
        mixture(torch.zeros(2, 3, 8, 8))
    with torch.inference_mode():
        assert mixture(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)
