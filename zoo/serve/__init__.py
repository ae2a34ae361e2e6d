"""The package behind `zoo.serve`, which can be called: see `zoo.serve.api`."""

from zoo.base.door import make_callable

make_callable(__name__)
