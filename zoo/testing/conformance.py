"""The kit's cases as a pytest class, and those of several plugins that a glob chooses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from zoo.base.text import plural
from zoo.errors import InputError
from zoo.testing.cases import Case, Outcome, cases_of, proves_something


class Conformance:
    """Cases of one plugin, one test each; see `conformance`.

    Attributes:
        plugin: the entry point's name.
        examples: component to the arguments that it is checked with, where it has some without default.
        outcomes: what the cases that ran came to.
    """

    plugin: ClassVar[str]
    examples: ClassVar[Mapping[str, Mapping[str, Any]]]
    outcomes: ClassVar[list[Outcome]]

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Make one test of each case."""
        if "case" in metafunc.fixturenames:
            cases = cases_of(self.plugin, self.examples)
            metafunc.parametrize("case", cases, ids=[case.id for case in cases])

    def test_conforms(self, case: Case) -> None:
        """One case."""
        import pytest

        outcome = case.run()
        self.outcomes.append(outcome)
        if outcome.result == "skipped":
            pytest.skip(outcome.note)
        assert outcome.result == "passed", f"{case.id}: {outcome.note}\n{outcome.detail}"

    def test_some_checks_ran(self, capsys: Any) -> None:
        """Say how many ran, and be red when none did: an empty suite proves nothing."""
        import pytest

        skipped = sum(outcome.result == "skipped" for outcome in self.outcomes)
        ran = len(self.outcomes) - skipped
        if not self.outcomes and "PYTEST_XDIST_WORKER" in os.environ:
            pytest.skip("the checks ran in other processes")
        with capsys.disabled():
            print(f"\nzoo.testing: plugin {self.plugin}: {plural(ran, 'check')} ran, {skipped} skipped")
        assert proves_something(self.outcomes), f"not one check of what {self.plugin!r} builds ran"


def conformance(plugin: str, examples: Mapping[str, Mapping[str, Any]] | None = None) -> type[Conformance]:
    """A pytest class with the cases of an installed plugin.

    Args:
        plugin: the entry point's name: the prefix of its components.
        examples: arguments for components ("waves.shift") that cannot be built without; a model in the
            catalogue that uses the component serves as well.
    """
    fields = {"plugin": plugin, "examples": dict(examples or {}), "outcomes": []}
    return type("TestConformance", (Conformance,), fields)


def cases_like(plugins: Sequence[str], only: str = "*") -> list[Case]:
    """The cases of several plugins whose subject matches a glob.

    Raises:
        InputError: none does. ZooError: as `cases_of`.
    """
    found = [case for name in plugins for case in cases_of(name) if fnmatchcase(case.subject, only)]
    if not found:
        raise InputError(f"--only {only}: nothing in {', '.join(plugins)} matches that pattern")
    return found
