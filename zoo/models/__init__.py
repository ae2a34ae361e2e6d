"""The package behind `zoo.models`, which can be called: see `zoo.models.api`."""

from zoo.base.door import make_callable

make_callable(__name__)
