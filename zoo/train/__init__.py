"""The package behind `zoo.train`, which can be called: see `zoo.train.api`."""

from zoo.base.door import make_callable

make_callable(__name__)
