"""The package behind `zoo.runs`, which can be called: see `zoo.runs.api`."""

from zoo.base.door import make_callable

make_callable(__name__)
