"""Plugin `hybrid`: combinators that mix parts, and the classifier around them."""

from __future__ import annotations

from zoo.plugin import Component, named, offers

zoo_components = offers(
    Component(
        name="classifier",
        kind="classifier",
        factory="zoo_hybrid.classifiers:classifier",
        summary="stem, body, head; the default head is linear on the flattened map",
    ),
    Component(
        name="ensemble",
        kind="classifier",
        factory="zoo_hybrid.ensembles:ensemble",
        summary="several classifiers: the mean of their probabilities",
    ),
    Component(
        name="alternate",
        kind="combinator",
        factory="zoo_hybrid.mixtures:alternate",
        summary="parts one after the other, repeated",
    ),
    Component(
        name="joint",
        kind="combinator",
        factory="zoo_hybrid.mixtures:joint",
        summary="parts on the same input, normalised or not, then fused",
        branches=True,
    ),
    Component(
        name="flatten",
        kind="head",
        factory="zoo_hybrid.classifiers:flatten_head",
        summary="linear layer on the flattened map",
    ),
    Component(
        name="pool",
        kind="head",
        factory="zoo_hybrid.classifiers:pool_head",
        summary="global pooling, layer norm, linear",
    ),
)

__getattr__, __dir__ = named(__name__, "hybrid", zoo_components)
