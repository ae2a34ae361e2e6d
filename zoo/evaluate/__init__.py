"""The package behind `zoo.evaluate`, which can be called: see `zoo.evaluate.api`."""

from zoo.base.door import make_callable

make_callable(__name__)
