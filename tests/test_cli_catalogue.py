"""`zoo list`, `zoo info` and `zoo plugins` as people and scripts meet them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from plugin_site import REGISTRY_HOOK, Site, site_in

from zoo.cli import cli
from zoo.errors import InputError

TOML = """
[sources.paper]
title = "A paper"
authors = "Somebody"

[datasets.squares]
source = "folder:squares"
num_classes = 10
size = [32, 32]

[datasets.hundred]
source = "folder:hundred"
num_classes = 100
size = [32, 32]

[recipes.mine]
epochs = 7
augment = [{ op = "flip", p = 0.25 }]

[models.zz-one]
summary = "%s"
family = "mine"
tags = ["small"]
recipe = "mine"
source = "paper"
dataset = "squares"
parameters = 4719167
build = { use = "hybrid.classifier", body = { use = "hybrid.alternate", repeat = 1, of = [
  { use = "cnn.residual", widths = [32, 32, 128, 128] }, { use = "vit.image", depth = 1, heads = 1 } ] } }
published = [
  { dataset = "squares", top1 = 0.75, params = 4719167 },
  { dataset = "hundred", top1 = 0.95, params = 4995700, params_difference = 37 },
]
measured = [
  { dataset = "squares", top1 = 0.80, seeds = 3, spread = 0.01 },
  { dataset = "hundred", top1 = 0.99, protocol = "paper" },
]

[models.zz-two]
summary = "two"
family = "mine"
recipe = "mine"
dataset = "hundred"
build = { use = "hybrid.classifier", body = { use = "cnn.residual", widths = [8] } }
"""
LONG = "a summary that is a good deal longer than what a terminal of eighty columns has room for"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = site_in(tmp_path)
    site.work.mkdir(parents=True)
    (site.work / "registry.toml").write_text(TOML % LONG)
    return site


def as_json(site: Site, *words: str) -> Any:
    done = site.run(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def names(site: Site, *words: str) -> list[str]:
    return [row["name"] for row in as_json(site, "list", *words)]


def in_terminal(site: Site, columns: int, *words: str, **environment: str) -> str:
    """What `zoo` writes to a real (pseudo) terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    env |= {"PYTHONPATH": f"{site.folder}{os.pathsep}{env.get('PYTHONPATH', '')}", "TERM": "xterm", **environment}
    command = [sys.executable, "-m", "zoo", *words]
    child = subprocess.Popen(command, cwd=site.work, env=env, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    text = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            break
        if not chunk:
            break
        text += chunk
    os.close(ours)
    assert child.wait() == 0
    return text.decode().replace("\r\n", "\n")


# ---- torch stays out ------------------------------------------------------------------------


def test_listing_works_where_torch_cannot_be_imported_with_and_without_the_index(site: Site) -> None:
    site.hide_heavy()
    probe = site.python("-c", "import torch")
    assert "hidden by the test" in probe.stderr
    for _ in range(2):
        for words in (
            ["list"],
            ["list", "--json"],
            ["info", "zz-one"],
            ["info", "zz-one", "--json", "--tree"],
            ["plugins"],
        ):
            done = site.run(*words)
            assert done.returncode == 0, done.stderr
            assert "hidden by the test" not in done.stderr
            assert done.stdout
        assert list(Path(os.environ["ZOO_CACHE_DIR"]).glob("index-*.msgpack"))


def modules_of_a_listing(site: Site) -> set[str]:
    code = (
        "import sys\nfrom zoo.cli import main\n"
        "try:\n    main(['list'])\nexcept SystemExit:\n    print(*sys.modules, file=sys.stderr)\n"
    )
    return set(site.python("-c", code).stderr.splitlines()[-1].split())


def test_a_fresh_listing_imports_no_more_than_click_and_the_lightest_of_the_standard_library(site: Site) -> None:
    (site.work / "registry.toml").unlink()
    site.run("list")
    kept = modules_of_a_listing(site)
    heavy = {"rich", "pluggy", "importlib.metadata", "torch", "numpy", "msgspec", "pathlib", "zoo.catalogue.spec"}
    assert "zoo.cli.listing" in kept
    assert not heavy & kept


def test_a_registry_of_the_users_is_never_listed_from_kept_rows(site: Site) -> None:
    text = (site.work / "registry.toml").read_text()
    assert "zz-one" in site.run("list").stdout
    (site.work / "registry.toml").unlink()
    assert "zz-one" not in site.run("list").stdout
    (site.work / "registry.toml").write_text(text)
    assert "zz-one" in site.run("list").stdout
    assert "pathlib" in modules_of_a_listing(site)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_kept_rows_that_are_damaged_are_made_again(site: Site, damage: str) -> None:
    (site.work / "registry.toml").unlink()
    before = site.run("list", "--json").stdout
    (path,) = Path(os.environ["ZOO_CACHE_DIR"]).glob("listing-*.json")
    whole = path.read_bytes()
    path.write_bytes({"flip": whole.replace(b"cnn", b"cnm", 1), "cut": whole[:-7], "empty": b""}[damage])
    again = site.run("list", "--json").stdout
    assert json.loads(again) == json.loads(before)


def test_kept_rows_answer_as_the_catalogue_does(site: Site) -> None:
    (site.work / "registry.toml").unlink()
    for words in (["list", "--json"], ["list", "hybrid*", "--sort", "published"], ["list", "--tag", "no"]):
        made = site.run(*words, ZOO_CACHE_DIR=str(site.work / "other" / words[1]))
        site.run("list")
        kept = site.run(*words)
        assert (kept.stdout, kept.stderr) == (made.stdout, made.stderr)


# ---- list -----------------------------------------------------------------------------------


def test_the_json_of_the_list_has_what_scripts_rely_on(site: Site) -> None:
    (row,) = as_json(site, "list", "zz-one")
    assert row["name"] == "zz-one"
    assert row["family"] == "mine"
    assert row["parameters"] == 4719167
    assert row["plugin"] == "hybrid"
    assert row["plugins"] == ["hybrid", "cnn", "vit"]
    assert row["summary"] == LONG
    assert row["source"] == "paper"
    assert row["tags"] == ["small"]
    assert row["recipe"] == "mine"
    assert row["best"] is None
    assert [r["top1"] for r in row["published"]] == [0.75, 0.95]
    assert row["measured"][1]["protocol"] == "paper"
    assert row["origin"]["file"].endswith("registry.toml")


def test_patterns_and_filters_choose_models(site: Site) -> None:
    assert names(site, "zz-*") == ["zz-one", "zz-two"]
    assert names(site, "z-tw") == ["zz-two"]
    assert names(site, "--family", "mine") == ["zz-one", "zz-two"]
    assert names(site, "--tag", "small") == ["zz-one"]
    assert names(site, "--dataset", "squares") == ["zz-one"]
    assert names(site, "--dataset", "hundred") == ["zz-one", "zz-two"]
    assert {"hybrid-alt-1", "zz-one"} <= set(names(site))


def test_sorting_puts_the_best_first_and_the_unknown_last(site: Site) -> None:
    for key in ("published", "own", "parameters"):
        assert names(site, "zz-*", "--sort", key) == ["zz-one", "zz-two"]
    rows = as_json(site, "list", "--sort", "own")
    ours = [[m for m in (*row["measured"], *row["weights"]) if m["dataset"] == row["dataset"]] for row in rows]
    own = [max((m["top1"] for m in results), default=0) for results in ours]
    assert own == sorted(own, reverse=True)
    assert own[0] > own[1] > own[-1] == 0
    done = site.run("list", "--sort", "size")
    assert done.returncode == 2
    assert "'published'" in done.stderr


def test_a_list_of_nothing_is_empty_json_and_a_hint(site: Site) -> None:
    done = site.run("list", "zz-onee", "--json")
    assert json.loads(done.stdout) == []
    assert done.returncode == 2, "as `zoo info` ends for a name that is not there"
    assert "did you mean zz-one" in done.stderr
    done = site.run("list", "--family", "hybird")
    assert done.stdout == ""
    assert "no family named 'hybird'; did you mean hybrid?" in done.stderr


def test_a_list_that_is_piped_shows_the_best_on_its_own_dataset_and_whole_summaries(site: Site) -> None:
    done = site.run("list", "zz-one")
    title, row = done.stdout.splitlines()
    assert title.split() == ["NAME", "FAMILY", "PARAMS", "PUBL.", "OWN", "DATASET", "WEIGHTS", "SOURCE", "SUMMARY"]
    cells = ["zz-one", "mine", "4.72M", "75.00%", "80.00% clean", "squares", "-", "paper"]
    assert re.split(r"\s{2,}", row)[:8] == cells
    assert row.endswith(LONG)
    assert "\033" not in done.stdout


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_list_in_a_terminal_fits_its_width(site: Site, columns: int) -> None:
    text = in_terminal(site, columns, "list", NO_COLOR="1")
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    row = next(line for line in lines if line.startswith("zz-one"))
    assert "4.72M" in row
    assert "75.00%" in row
    if columns >= 80:
        assert "a summary" in row
        assert row.endswith("…")


def test_titles_are_bold_in_a_terminal_unless_no_color_is_set(site: Site) -> None:
    assert in_terminal(site, 80, "list").startswith("\033[1m")
    assert "\033" not in in_terminal(site, 80, "list", NO_COLOR="1")


def test_what_a_file_says_cannot_steer_the_terminal(site: Site) -> None:
    (site.work / "registry.toml").write_text(TOML % r"red \u001b[31m and \n a new line")
    for words in (["list", "zz-one"], ["info", "zz-one"]):
        done = site.run(*words)
        assert "\033" not in done.stdout
        assert "red  [31m" in done.stdout or "red [31m" in done.stdout


def test_an_output_without_unicode_is_no_error(site: Site) -> None:
    done = site.run("info", "zz-one", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "`- vit.image" in done.stdout


def test_a_reader_that_leaves_early_is_no_error(site: Site) -> None:
    command = f"{sys.executable} -m zoo list --json | head -c 10"
    done = subprocess.run(command, shell=True, cwd=site.work, capture_output=True, text=True, check=False)
    assert "rror" not in done.stderr


# ---- info -----------------------------------------------------------------------------------


def test_info_draws_the_tree_and_says_where_each_component_comes_from(site: Site) -> None:
    done = site.run("info", "zz-one", "--tree")
    lines = [line.split("  hybrid-zoo ")[0].rstrip() for line in done.stdout.splitlines()]
    assert lines == [
        "hybrid.classifier",
        "└─ body: hybrid.alternate  repeat=1",
        "   ├─ cnn.residual  widths=[32, 32, 128, 128]",
        "   └─ vit.image  depth=1 heads=1",
    ]
    assert done.stdout.count("hybrid-zoo ") == 4


def test_info_shows_recipe_results_and_source(site: Site) -> None:
    text = site.run("info", "zz-one").stdout
    assert "4,719,167 parameters" in text
    assert re.search(r"epochs +7", text)
    assert "op=flip p=0.25" in text
    assert "batch_size" not in text, "a default"
    assert re.search(r"squares +published +75.00%", text)
    assert re.search(r"squares +own +80.00% ± 1.00%  clean, 3 seeds", text)
    assert re.search(r"hundred +own +99.00%  paper, 1 seed$", text, re.MULTILINE)
    assert "A paper" in text
    assert "Somebody" in text


def test_the_json_of_info_has_tree_components_and_the_whole_recipe(site: Site) -> None:
    row = as_json(site, "info", "zz-one")
    assert row["build"]["body"]["of"][0] == {"use": "cnn.residual", "widths": [32, 32, 128, 128]}
    assert {c["name"]: c["distribution"] for c in row["components"]}["vit.image"] == "hybrid-zoo"
    assert row["recipe"]["name"] == "mine"
    assert row["recipe"]["batch_size"] == 64
    assert row["source"]["title"] == "A paper"
    assert "flops" not in row


def test_building_counts_parameters_and_flops_and_compares_with_what_is_printed(site: Site) -> None:
    row = as_json(site, "info", "zz-one", "--build")
    assert row["parameters"] == 4_719_167
    assert isinstance(row["flops"], int)
    assert row["flops"] > 2 * 1024 * 1024
    assert row["published_counts"] == [
        {
            "dataset": "squares",
            "printed": 4719167,
            "num_classes": 10,
            "built": 4719167,
            "difference": 0,
            "expected_difference": 0,
        },
        {
            "dataset": "hundred",
            "printed": 4995700,
            "num_classes": 100,
            "built": 4995737,
            "difference": 37,
            "expected_difference": 37,
        },
    ]


def test_building_with_other_classes_counts_those(site: Site) -> None:
    row = as_json(site, "info", "zz-one", "--build", "--num-classes", "100")
    assert row["parameters"] == 4_995_737
    refused = site.run("info", "zz-one", "--num-classes", "100")
    assert refused.returncode == 2
    assert "require --build" in refused.stderr


def test_info_reads_a_model_of_a_file(site: Site) -> None:
    (site.work / "registry.toml").rename(site.work / "my.toml")
    assert as_json(site, "info", "my.toml#zz-two")["family"] == "mine"


def test_info_of_an_unknown_name_suggests_the_nearest(site: Site) -> None:
    done = site.run("info", "zz-oen")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no model named 'zz-oen'; did you mean")
    assert len(done.stderr.splitlines()) == 1


def test_info_shows_a_model_whose_component_is_missing(site: Site) -> None:
    text = (TOML % "x").replace("cnn.residual", "gone.part")
    (site.work / "registry.toml").write_text(text)
    done = site.run("info", "zz-one")
    assert done.returncode == 0
    assert "no plugin offers it" in done.stdout


def test_info_ends_with_an_error_where_a_component_is_misspelled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.work.mkdir(exist_ok=True)
    (site.work / "registry.toml").write_text((TOML % "x").replace("cnn.residual", "cnn.residul"))
    monkeypatch.chdir(site.work)
    done = CliRunner().invoke(cli, ["info", "zz-one"])
    assert "cnn.residul" in done.stdout
    assert isinstance(done.exception, InputError)
    assert re.search(r"zz-one: build\.body\.of\[0\]\.use: no component named 'cnn\.residul'", str(done.exception))


# ---- plugins --------------------------------------------------------------------------------


def test_plugins_lists_each_entry_point_with_what_it_offers(site: Site) -> None:
    site.add("extra", REGISTRY_HOOK, toml='[recipes.extra]\nepochs = 2\n[sources.s]\ntitle = "t"\n')
    rows = {row["name"]: row for row in as_json(site, "plugins")}
    assert rows["extra"]["distribution"] == "zoo-extra"
    assert rows["extra"]["version"] == "1.0"
    assert rows["extra"]["recipes"] == ["extra"]
    assert rows["hybrid"]["builtin"] is True
    assert "hybrid.alternate" in rows["hybrid"]["components"]
    assert "hybrid-alt-1" in rows["hybrid"]["models"]
    text = site.run("plugins").stdout
    assert re.search(r"extra +zoo-extra +1\.0 +loaded", text)
