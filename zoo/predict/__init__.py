"""The package behind `zoo.predict`, which can be called: see `zoo.predict.api`."""

from zoo.base.door import make_callable

make_callable(__name__)
