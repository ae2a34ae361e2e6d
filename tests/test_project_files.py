"""What a hosting service reads of the repository: workflows, issue forms and the citation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click_tree import commands

from zoo.base.version import __version__

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SOURCES = tomllib.loads((ROOT / "registry.toml").read_text("utf-8"))["sources"]
MAJOR = re.compile(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)")
INPUTS = {"input", "textarea", "dropdown", "checkboxes"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def workflow(name: str) -> Any:
    return read(GITHUB / "workflows" / f"{name}.yml")


def triggers(content: Any) -> Any:
    return content[True]  # YAML 1.1 reads the key `on` as true


def steps(job: Any) -> Iterator[Any]:
    yield from job.get("steps", ())


def supported() -> list[str]:
    """The Pythons of the classifiers, oldest first."""
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c) for c in PROJECT["classifiers"]]
    return sorted((m[1] for m in found if m), key=lambda version: int(version.partition(".")[2]))


# ---- workflows --------------------------------------------------------------------------------


def test_ci_runs_the_whole_check_on_the_oldest_and_the_newest_python() -> None:
    job = workflow("ci")["jobs"]["check"]
    commands = [step["run"] for step in steps(job) if "run" in step]
    assert commands == ["bash .ci/run"]
    assert (ROOT / ".ci" / "run").is_file()
    versions = job["strategy"]["matrix"]["python"]
    assert versions == [supported()[0], supported()[-1]]
    assert PROJECT["requires-python"] == f">={versions[0]}"
    (python,) = [step["with"]["python-version"] for step in steps(job) if "setup-python" in step.get("uses", "")]
    assert python == "${{ matrix.python }}"
    assert job["timeout-minutes"] == 90


def test_ci_runs_the_tests_with_the_lowest_versions_that_are_allowed() -> None:
    jobs = workflow("ci")["jobs"]
    assert jobs.keys() == {"check", "lowest"}
    (commands,) = [step["run"].splitlines() for step in steps(jobs["lowest"]) if "run" in step]
    recipe = (ROOT / "justfile").read_text("utf-8").partition("\ntest-lowest *args:\n")[2].partition("\n\n")[0]
    lines = [line.strip().replace(" --clear", "").replace(" {{ args }}", "") for line in recipe.splitlines()]
    assert commands[1:] == lines
    assert any("--resolution lowest-direct" in line for line in lines)


@pytest.mark.parametrize("table", ["dependencies", *PROJECT["optional-dependencies"]])
def test_every_dependency_says_from_which_version_on_it_works(table: str) -> None:
    listed = PROJECT["dependencies"] if table == "dependencies" else PROJECT["optional-dependencies"][table]
    assert [d for d in listed if ">=" not in d and not d.startswith("hybrid-zoo[")] == []


def test_ci_runs_for_pushes_pull_requests_and_releases() -> None:
    assert triggers(workflow("ci")).keys() == {"push", "pull_request", "workflow_call"}
    assert triggers(workflow("release")) == {"push": {"tags": ["v*"]}}
    assert workflow("release")["jobs"]["check"] == {"uses": "./.github/workflows/ci.yml"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_only_and_ends(path: Path) -> None:
    content = read(path)
    assert content["permissions"] == {"contents": "read"}
    assert "group" in content["concurrency"]
    for name, job in content["jobs"].items():
        assert job.get("uses") or job["timeout-minutes"] <= 90, name
        for step in steps(job):
            assert "uses" not in step or MAJOR.fullmatch(step["uses"]), step
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_may_publish_runs_no_code_of_ours(path: Path) -> None:
    jobs = read(path)["jobs"]
    publishing = {name: job for name, job in jobs.items() if "permissions" in job}
    assert publishing.keys() == ({"publish", "pages"} if path.name == "release.yml" else set())
    for name, job in publishing.items():
        assert "environment" in job, name
        assert set(job["permissions"]) <= {"id-token", "pages"}
        for step in steps(job):
            assert "run" not in step
            assert "checkout" not in step["uses"]


def test_nothing_is_published_before_all_checks_passed() -> None:
    jobs = workflow("release")["jobs"]
    assert set(jobs["publish"]["needs"]) == {"check", "build", "try"}
    assert "publish" in jobs["pages"]["needs"]
    assert jobs["try"]["strategy"]["matrix"]["python"] == [supported()[0], supported()[-1]]
    assert not [step for step in steps(jobs["try"]) if "checkout" in step.get("uses", "")]
    (commands,) = [step["run"] for step in steps(jobs["try"]) if "run" in step]
    assert "clean/bin/zoo list" in commands


@pytest.mark.skipif(shutil.which("bash") is None, reason="runs a step of the workflow")
@pytest.mark.parametrize(("tag", "code"), [(f"v{__version__}", 0), ("v9.9.9", 1), (__version__, 1)])
def test_a_tag_that_is_not_the_version_is_refused(tag: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    (script,) = [
        s["run"] for s in workflow("release")["jobs"]["build"]["steps"] if s.get("name") == "the tag is the version"
    ]
    env = os.environ | {"GITHUB_REF_NAME": tag, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert (__version__ in done.stdout) == bool(code)


# ---- issue forms ------------------------------------------------------------------------------


def test_there_is_a_form_for_each_kind_of_issue() -> None:
    assert [path.stem for path in FORMS] == ["architecture", "bug", "wrong-number"]
    assert read(GITHUB / "ISSUE_TEMPLATE" / "config.yml") == {"blank_issues_enabled": True}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one_that_github_shows(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "body"} <= form.keys() <= {"name", "description", "labels", "title", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert fields
    assert {field["type"] for field in fields} <= INPUTS
    assert len({field["id"] for field in fields}) == len(fields)
    assert len({field["attributes"]["label"] for field in fields}) == len(fields)
    assert all(re.fullmatch(r"[\w-]+", field["id"]) for field in fields)
    for field in fields:
        assert field["type"] not in ("dropdown", "checkboxes") or field["attributes"]["options"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_names_commands_and_options_that_there_are(path: Path) -> None:
    known = {context.command_path for context in commands()}
    options = {word for context in commands() for option in context.command.params for word in option.opts}
    text = path.read_text("utf-8")
    for named in re.findall(r"`(zoo [^`]+)`", text):
        words = [word for word in named.split() if not word.startswith("-")]
        assert words == ["zoo"] or any(" ".join(words[:n]) in known for n in (2, 3)), named
        assert {word for word in named.split() if word.startswith("--")} <= options


def test_a_bug_report_asks_for_what_is_needed() -> None:
    form = read(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")
    required = {field["id"]: str(field) for field in form["body"] if field.get("validations", {}).get("required")}
    assert "zoo doctor" in required["doctor"]
    assert "--debug" in required["command"]


# ---- citation ---------------------------------------------------------------------------------


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])
    assert citation["authors"] == PROJECT["authors"]
    assert citation["keywords"] == PROJECT["keywords"]


def test_the_citation_names_the_sources_as_the_registry_does() -> None:
    references = read(ROOT / "CITATION.cff")["references"]
    cited = {
        reference["title"]: ", ".join(f"{a['given-names']} {a['family-names']}" for a in reference["authors"])
        for reference in references
    }
    assert all(reference["type"] == "report" for reference in references)
    assert cited == {s["title"]: s["authors"].partition(" (")[0] for s in SOURCES.values() if s["authors"]}
