"""The package behind `zoo.models`, which can be called and then lists models: see `zoo.catalogue.api`."""

from zoo.base.door import make_callable

make_callable(__name__, "zoo.catalogue.api:models")  # listing models does not import what builds them
