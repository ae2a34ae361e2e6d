"""`zoo bench`, and the scripts in benchmarks/: what they print and write, at the smallest sizes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn
from torch.nn import functional as F

from zoo.catalogue.registry import load_registry
from zoo.cli import bench, cli
from zoo.models.compose import check, sizes_for
from zoo.models.flops import count, flops
from zoo.studies.bench.__main__ import serve
from zoo.studies.bench.apart import outcome
from zoo.studies.bench.benched import WHAT, bench_of
from zoo.studies.bench.gauge import Peak, matrix_rate, spread
from zoo.studies.bench.rounds import BareStep, Job, loop_share, make_plan
from zoo.train.loop import Trainer

ROOT = Path(__file__).resolve().parent.parent
TINY = {"image_size": 8, "batch_size": 16, "steps": 2, "repeats": 2}


def zoo(*words: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *words, "--image-size", "8", "--steps", "2", "--repeats", "2"])


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    # the first cannot halve images of 8 pixels five times
    done = zoo("vgg16", "cnn-baseline", "--batch-size", "16", "--json", "--quiet")
    assert "1 of 2 models could not be measured: vgg16" in str(done.exception)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_json_has_every_measurement_with_its_spread(document: dict[str, Any]) -> None:
    row = document["rows"][1]
    assert row["model"] == "cnn-baseline"
    assert row["parameters"] == 23_506
    assert (row["height"], row["width"], row["batch_size"]) == (8, 8, 16)
    spreads = [
        *(row[name]["images_per_second"] for name in ("train", "infer", "loop")),
        *(row[name]["milliseconds"] for name in ("train", "infer", "latency")),
        row["loop"]["bare_images_per_second"],
        row["loop"]["share"],
        row["matrix"]["flops_per_second"],
    ]
    assert all(0 < s["q1"] <= s["median"] <= s["q3"] for s in spreads)
    assert row["train"]["images_per_second"]["n"] == 2
    assert set(document["environment"]) >= {"torch", "device", "threads", "hybrid-zoo"}
    assert document["settings"]["steps"] == 2


def test_shares_are_of_what_they_say(document: dict[str, Any]) -> None:
    row = document["rows"][1]
    rate = row["train"]["images_per_second"]["median"]
    achieved = row["flops_step"] * rate / row["matrix"]["flops_per_second"]["median"]
    assert row["train"]["share_of_matrix_rate"] == pytest.approx(achieved)
    bare, (first, second) = row["loop"]["rounds"]["bare"], row["loop"]["rounds"]["loop"]
    shares = [first / (bare[0] / 2 + bare[1] / 2), second / (bare[1] / 2 + bare[2] / 2)]
    assert row["loop"]["share"]["median"] == pytest.approx(sum(shares) / 2)


def test_the_csv_has_one_line_for_each_model_and_an_error_column() -> None:
    rows = [
        {"model": "a", "train": {"images_per_second": {"median": 2.5}, "list": [1, 2]}},
        {"model": "b", "error": "out of memory"},
    ]
    first, second = csv.DictReader(bench_of(rows, {}).to_csv().splitlines())
    assert first == {"model": "a", "train.images_per_second.median": "2.5", "error": ""}
    assert second["error"] == "out of memory"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cnn-baselin"], "did you mean cnn-baseline"),
        (["cnn-baseline", "--what", "train,speed"], "allowed: train, infer, latency, loop"),
        (["cnn-baseline", "--json", "--csv"], "give one of them"),
    ],
)
def test_wrong_input_is_named_before_anything_is_measured(words: list[str], said: str) -> None:
    done = zoo(*words)
    assert said in str(done.exception)
    assert done.stdout == ""


def test_a_model_that_fails_is_one_row_and_the_others_go_on(document: dict[str, Any]) -> None:
    failed, done = document["rows"]
    assert set(failed) == {"model", "error"}
    assert failed["model"] == "vgg16"
    assert "8x8" in failed["error"]
    assert "error" not in done


def test_a_model_that_needs_too_much_memory_says_what_to_lower(tmp_path: Path) -> None:
    job = {"model": "cnn-baseline", **TINY, "batch_size": 10**12, "what": ["train"]}
    (tmp_path / "job.json").write_text(json.dumps(job))
    serve(tmp_path / "job.json", tmp_path / "row.json")
    row = json.loads((tmp_path / "row.json").read_text())
    said = r"a batch of 1,000,000,000,000 images of 8x8 pixels takes [\d,.]+ GB, .* give a smaller --image-size or"
    assert row["model"] == "cnn-baseline"
    assert re.match(said, row["error"])


def test_a_process_that_the_system_kills_is_explained(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    row = outcome("huge", command, tmp_path / "row.json")
    assert row["model"] == "huge"
    assert "killed by the system, most likely out of memory" in row["error"]
    command = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGABRT)})"]
    assert "signal 6" in outcome("huge", command, tmp_path / "row.json")["error"]
    failing = outcome("odd", [sys.executable, "-c", "raise ValueError('no')"], tmp_path / "row.json")
    assert failing["error"].endswith("ValueError: no")


def test_parameters_that_enter_a_module_as_inputs_are_counted_too() -> None:
    """A perceiver's latents: torch's counter fails at them unless they ask for no gradient."""
    registry = load_registry()
    model = registry.model("perceiver")
    sizes = sizes_for(model, registry)
    outline = check(model.build, registry, **sizes)
    forward = flops(outline, sizes)
    assert forward == count("perceiver", model, registry, sizes)["flops"] == 310_379_136
    assert all(parameter.requires_grad for parameter in outline.parameters())
    assert flops(outline, sizes, backward=True) > 2.9 * forward


def test_a_batch_larger_than_the_dataset_cannot_be_looped() -> None:
    job = Job(model="cnn-baseline", **{**TINY, "batch_size": 1500})
    with pytest.raises(ValueError, match="digits', which has only 1,437 images; give a larger --dataset"):
        loop_share(job)


def test_the_command_and_the_measurement_know_the_same_parts() -> None:
    assert tuple(bench.WHAT.split(",")) == WHAT


def test_a_bare_step_trains_the_trainers_own_module_on_one_batch(tmp_path: Path) -> None:
    trainer = Trainer(make_plan(Job(model="cnn-baseline", **TINY), 64), tmp_path)
    bare = BareStep(trainer, 16)
    before = [p.detach().clone() for p in trainer.module.parameters()]
    images = bare.images.clone()
    bare()
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.module.parameters(), strict=True))
    assert all(p.grad is None for p in trainer.module.parameters())
    assert torch.equal(bare.images, images)
    assert trainer.at.total == 0
    assert len(BareStep(trainer, 150).images) == 150


def test_the_recipe_is_the_models_own_whatever_the_dataset_adapts() -> None:
    plan = make_plan(Job(model="hybrid-alt-1", batch_size=16, image_size=8), 32)
    assert [type(step).__name__ for step in plan.recipe.augment] == ["Flip", "Jitter"]
    assert len(plan.train) == 32


def test_flops_are_those_of_the_arithmetic() -> None:
    with torch.device("meta"):
        outline = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 36, 7))
    conv, linear = 2 * 5 * 36 * 27, 2 * 180 * 7
    # backward: the weights' gradients of both, and the images' of all but the first layer
    sizes = {"in_channels": 3, "height": 8, "width": 8}
    assert flops(outline, sizes) == conv + linear
    assert flops(outline, sizes, backward=True) == 2 * conv + 3 * linear


class Reader(nn.Module):
    """A transformer's layer, attention of its own and a recurrent layer, over the places of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.again = nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.layer(self.stem(x).flatten(2).transpose(1, 2))
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return torch.as_tensor(self.again(mixed)[0][:, -1])


def test_flops_are_the_same_on_a_cpu_where_torch_has_one_operation_for_a_whole_layer() -> None:
    """Modules that look at values are counted there."""
    with torch.device("meta"):
        outline = Reader()
    sizes, places = {"in_channels": 3, "height": 8, "width": 8}, 16
    layer = places * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * places**2 * 8
    products = places * 12 * 8 + layer + 2 * places**2 * 8 + places * 24 * (8 + 6)
    library = torch.backends.mkldnn
    before = torch.backends.mha.get_fastpath_enabled(), library.enabled
    assert flops(outline, sizes) == flops(Reader(), sizes) == 2 * products
    assert flops(outline, sizes, backward=True) == flops(Reader(), sizes, backward=True)
    assert (torch.backends.mha.get_fastpath_enabled(), library.enabled) == before


def test_the_matrix_rate_is_near_what_a_clock_says() -> None:
    assert all(1e8 < rate < 1e16 for rate in matrix_rate(torch.device("cpu"), "fp32", repeats=1))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what Linux says in /proc")
def test_the_peak_sees_memory_that_was_used_and_given_back() -> None:
    peak = Peak(torch.device("cpu"))
    torch.ones(1 << 30, dtype=torch.uint8)  # far more than an earlier test's threads may give back meanwhile
    growth = peak.growth()
    assert growth is not None
    assert growth > 200 << 20


def test_a_spread_of_one_is_that_one() -> None:
    assert spread([3.0]) == {"median": 3.0, "q1": 3.0, "q3": 3.0, "n": 1}


def script(name: str, *words: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *words]
    variables = os.environ | {"ZOO_CACHE_DIR": str(tmp_path / "cache")}
    return subprocess.run(command, capture_output=True, text=True, timeout=800, cwd=tmp_path, env=variables)


@pytest.mark.slow
def test_the_loops_share_is_written_with_its_rounds(tmp_path: Path) -> None:
    words = ("--models", "cnn-baseline", "--rounds", "1", "--seconds", "0.05", "--json", "out.json")
    done = script("loop_share.py", *words, "--dataset", "digits", "--batch-size", "16", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    assert len(record["rows"][0]["rounds"]["loop"]) == 1
    assert len(record["rows"][0]["rounds"]["bare"]) == 2
    assert record["machine"]["versions"]["torch"]
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_competitor_trains_side_by_side(cifar10_parquet: Path, tmp_path: Path) -> None:
    sizes = {"--rounds": 1, "--images": 96, "--test-images": 64, "--batch-size": 16, "--workers": 1}
    words = [str(word) for pair in {"--models": "resnet18", **sizes, "--threads": 1}.items() for word in pair]
    words += ["--data", str(cifar10_parquet / "plain_text"), "--json", "out.json"]
    words += ["--competitors", "zoo", "timm-train:bf16", "torchvision:fp32", "zoo-jitter", "papers:fp32"]
    done = script("side_by_side.py", *words, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert not [row for row in rows if "error" in row]
    assert {row["parameters"] for row in rows} == {11_181_642}
    assert sum("faster" in row for row in rows) == 3


@pytest.mark.slow
def test_the_speedrun_and_a_peer_run_in_turns(tmp_path: Path) -> None:
    peer = tmp_path / "peer.py"
    peer.write_text(
        "import torch\n"
        "held = torch.load('cifar10/train.pt')\n"
        "assert held['images'].shape[-1] == 3 and len(held['images']) == len(held['labels'])\n"
        "for run in ('warmup', *range(200)):\n"
        "    print(f'|  {run}  |  eval  |  0.9  |  0.93  |  0.9401  |  2.5  |')\n"
    )
    words = ["--smoke", "--peer", str(peer), "--peer", str(tmp_path / "none.py"), "--json", str(tmp_path / "out.json")]
    script = str(Path(__file__).parent.parent / "benchmarks" / "speedrun.py")
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    assert [row["turn"] for row in record["runs"]] == [0, 1]
    assert record["peers"]["peer.py"]["seconds"] == [2.5, 2.5]
    assert record["peers"]["none.py"]["left_out"] == "no such file"
    said = [line.split()[:2] for line in done.stderr.splitlines() if ": " in line]
    assert said[:5] == [["seed", "0:"], ["peer.py:", "0.9401"], ["none.py:", "left"], ["seed", "1:"], said[1]]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["what", "speedrun-94", "peer.py"]
