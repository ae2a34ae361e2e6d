"""Configs that a hostile stranger could publish: bytes, structure, and trees that ask for too much."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomli_w

from zoo.hub.package import tree_sha256
from zoo.hub.sums import CONFIG
from zoo.runs.record import RECORD

NUMBERS = (
    0,
    -1,
    1,
    2,
    3,
    7,
    1 << 20,
    10**6,
    10**9,
    1 << 62,
    -(1 << 62),
    1 << 80,
    0.0,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
)
STRINGS = (
    "",
    "x" * 100_000,
    "../../etc/passwd",
    "/etc/passwd",
    "os.system",
    "builtins.eval",
    "hf-hub:evil/model",
    "hf://evil/model",
    "http://evil.example/x.bin",
    "\0",
    "\u202e\ud800",
    "{{7*7}}",
    "%s%s%n",
    "__import__('os')",
    "resnet18.a1_in1k",
)
COMPONENTS = (
    "hybrid.classifier",
    "hybrid.alternate",
    "hybrid.joint",
    "cnn.residual",
    "vit.image",
    "vit.classifier",
    "timm.model",
    "torchvision.model",
)
ARGUMENTS = (
    "repeat",
    "widths",
    "depth",
    "heads",
    "mlp",
    "dropout",
    "patch",
    "embed",
    "body",
    "name",
    "pretrained",
    "of",
    "channels",
    "use",
)


def bad_configs(folder: Path, whole: dict[str, bytes], count: int, seed: int) -> Iterator[Callable[[], str]]:
    """Functions that each write one hostile pair of config.json and run.toml, and say what it is."""
    for n in range(count):
        draw = random.Random(seed * 1_000_003 + n)
        kind = draw.choice((_bytes, _structure, _tree, _tree, _sizes, _nesting))

        def write(draw: random.Random = draw, kind: Any = kind, n: int = n) -> str:
            for name, data in whole.items():
                (folder / name).write_bytes(data)
            return f"case {n}, {kind(folder, whole, draw)}"

        yield write


def _value(draw: random.Random, depth: int = 0) -> Any:
    choice = draw.randrange(8 if depth < 3 else 3)
    if choice == 0:
        return draw.choice(NUMBERS)
    if choice == 1:
        return draw.choice(STRINGS)
    if choice == 2:
        return draw.choice((True, False, draw.randrange(-3, 40)))
    if choice in (3, 4):
        return [_value(draw, depth + 1) for _ in range(draw.choice((0, 1, 4, 40)))]
    if choice == 5:
        return [draw.randrange(1, 300)] * draw.choice((1, 3, 5000))
    return {draw.choice(ARGUMENTS): _value(draw, depth + 1) for _ in range(draw.randrange(4))}


def _bytes(folder: Path, whole: dict[str, bytes], draw: random.Random) -> str:
    data = bytearray(whole[CONFIG])
    for _ in range(draw.choice((1, 3, 50))):
        at = draw.randrange(len(data))
        edit = draw.randrange(3)
        if edit == 0:
            data[at] = draw.randrange(256)
        elif edit == 1:
            del data[at : at + draw.randrange(20)]
        else:
            data[at:at] = draw.choice((b"[" * 3000, b"{" * 9, b'"', b"\xff\xfe", b"9" * 400, b"null", b"NaN"))
    (folder / CONFIG).write_bytes(bytes(data))
    return f"bytes {bytes(data)[:80]!r}"


def _structure(folder: Path, whole: dict[str, bytes], draw: random.Random) -> str:
    table = json.loads(whole[CONFIG])
    place: Any = table
    path = []
    while isinstance(place, dict | list) and place and (not path or draw.random() < 0.8):
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        path.append((place, key))
        place = place[key]
    holder, key = path[-1]
    holder[key] = _value(draw)
    (folder / CONFIG).write_text(json.dumps(table), "utf-8", "surrogatepass")
    return f"structure {[k for _, k in path]}: {str(holder[key])[:80]!r}"


def _tree(folder: Path, whole: dict[str, bytes], draw: random.Random) -> str:
    build = json.loads(whole[CONFIG])["zoo"]["build"]
    nodes = [build, build["body"], *build["body"]["of"]]
    for _ in range(draw.randrange(1, 4)):
        node = draw.choice(nodes)
        edit = draw.randrange(4)
        if edit == 0:
            node["use"] = draw.choice((*COMPONENTS, "evil.net", "os.system", *STRINGS[:6]))
        elif edit == 1:
            key = draw.choice([k for k in node if k not in ("use", "of", "body")] or ["depth"])
            node[key] = draw.choice((draw.choice(NUMBERS), draw.randrange(1, 5000), _value(draw)))
        elif edit == 2:
            node[draw.choice(ARGUMENTS)] = _value(draw)
        else:
            node["of"] = [json.loads(json.dumps(draw.choice(nodes))) for _ in range(draw.choice((0, 1, 30, 300)))]
    return f"tree {agreeing(folder, whole, {'build': build})[:300]}"


def _sizes(folder: Path, whole: dict[str, bytes], draw: random.Random) -> str:
    changes: dict[str, Any] = {}
    for _ in range(draw.randrange(1, 3)):
        key = draw.choice(("sizes", "classes", "mean", "std", "parameters", "plugins", "format", "model", "normalize"))
        if key == "sizes":
            sides = [draw.choice((*NUMBERS, 8, 8, 10, 224)) for _ in range(4)]
            changes[key] = dict(zip(("in_channels", "height", "width", "num_classes"), sides, strict=True))
        else:
            changes[key] = _value(draw)
    return f"sizes {agreeing(folder, whole, changes)[:200]}"


def _nesting(folder: Path, whole: dict[str, bytes], draw: random.Random) -> str:
    depth = draw.choice((5, 33, 60, 200))
    build: Any = {"use": "cnn.residual", "widths": [4, 4, 8, 8]}
    for _ in range(depth):
        build = {
            "use": draw.choice(COMPONENTS[1:3]),
            "repeat": draw.choice((1, 2, 9)),
            "of": [build] * draw.choice((1, 1, 2)),
        }
        if len(json.dumps(build)) > 200_000:
            break
    return f"nesting {depth} {agreeing(folder, whole, {'build': {'use': COMPONENTS[0], 'body': build}})[:100]}"


def agreeing(folder: Path, whole: dict[str, bytes], changes: dict[str, Any]) -> str:
    """Write both files so that they tell the same story, where that can be written."""
    table = json.loads(whole[CONFIG])
    table["zoo"] |= changes
    record = tomllib.loads(whole[RECORD].decode())
    try:
        table["zoo"]["tree_sha256"] = tree_sha256(table["zoo"]["build"])
        record |= {k: v for k, v in table["zoo"].items() if k in ("model", "build", "sizes")}
        record["data"] |= {k: v for k, v in table["zoo"].items() if k in ("classes", "mean", "std")}
        (folder / RECORD).write_text(tomli_w.dumps(record), "utf-8")
    except Exception:  # some of it has no TOML at all: the config alone is hostile then
        (folder / RECORD).write_bytes(whole[RECORD])
    (folder / CONFIG).write_text(json.dumps(table), "utf-8", "surrogatepass")
    return json.dumps(changes)
