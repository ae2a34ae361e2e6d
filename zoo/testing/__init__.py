"""The conformance kit for authors of plugins.

In a plugin's tests, this is all:

    from zoo.testing import conformance

    TestWaves = conformance("waves")

Every component and model of the installed plugin `waves` then gets its cases. `zoo plugins check waves`
runs the same ones from the command line.
"""

from zoo.testing.cases import Case, Outcome, cases_of, proves_something
from zoo.testing.conformance import Conformance, cases_like, conformance

__all__ = ["Case", "Conformance", "Outcome", "cases_like", "cases_of", "conformance", "proves_something"]
