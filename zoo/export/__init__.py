"""The package behind `zoo.export`, which can be called: see `zoo.export.api`."""

from zoo.base.door import make_callable

make_callable(__name__)
