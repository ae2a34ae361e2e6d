"""An ensemble as one run: a model that holds all members, and answers with the mean of their probabilities.

Unlike `RUN+RUN` (`zoo.evaluate.ensemble`) it is a run folder like any other: it can be packaged, published and
verified.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import torch
from torch import Tensor

from zoo.base.files import sha256_of
from zoo.base.text import plural
from zoo.catalogue.registry import Registry
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier, open_classifier
from zoo.evaluate.ensemble import no_one_image, order_of, see_different
from zoo.models.compose import check
from zoo.plugin.node import Node
from zoo.runs.folder import read_weights, write_result, write_weights
from zoo.runs.lock import RunLock
from zoo.runs.new import check_free, new_folder
from zoo.runs.record import WEIGHTS, Ingredient, RunRecord, Soup, tree_of, write_record
from zoo.studies.soup import Candidate, Kitchen, read_candidates, result_of
from zoo.train.environment import environment

MODEL: Final = "ensemble"
COMPONENT = "hybrid.ensemble"
SAME = (
    *("fingerprint", "classes", "white", "black", "background", "task", "limit_train", "limit_test"),
    *("validation_fraction", "validation_from", "validation_fingerprint"),
)
"""What the records of all members say alike of their images."""


def ensemble_run(
    named: Sequence[tuple[str, Path]],
    registry: Registry,
    *,
    output: Path | None = None,
    data_dir: str | None = None,
    device: str | None = None,
) -> Path:
    """Make one run of several that answer together, measure it, and write its folder.

    Args:
        named: the runs, each with its name. output: the new run's folder; default: one below runs/.
        data_dir, device: as for `zoo.evaluate.opened.open_run`.
    Raises:
        InputError, RunError: the runs cannot answer together; says why. Else as `zoo.studies.soup.candidates`.
    """
    found = read_candidates(named)
    if output is not None:
        check_free(output)
    members = [open_classifier(one.folder, registry, record=one.record) for one in found]
    tree = _tree(found, members)
    record = _record(found, tree, registry, device)
    check(tree, registry, **msgspec.structs.asdict(record.sizes))
    folder = output or new_folder(MODEL, record.data.spec)
    folder.mkdir(parents=True, exist_ok=True)
    with RunLock(folder):
        write_record(folder, record)
        write_weights(folder, _weights(found), record)
        try:
            kitchen = Kitchen(Candidate(folder.name, folder, record, {}), registry, data_dir, device)
            rule = f"ensemble of {plural(len(found), 'run')}"
            result = result_of(kitchen, record, found, rule, None, {"method": MODEL, "of": len(found)})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        write_result(folder, result)
    return folder


def _tree(found: Sequence[Candidate], members: Sequence[Classifier]) -> Node:
    """The model that holds all members, with what each needs besides its weights.

    Where images have several labels, the mean has thresholds of its own, chosen on the validation images as a
    training chooses them.

    Raises:
        InputError: they have other classes, or see images in other ways.
    """
    names = [one.name for one in found]
    if see_different(members):
        raise no_one_image("+".join(names), "one run of them")
    given = [member.preprocessing for member in members]
    return Node(
        use=COMPONENT,
        args={
            "members": [tree_of(one.record, pretrained=False) for one in found],
            "mean": [[float(value) for value in one.mean] if one.normalize else [0.0] for one in given],
            "std": [[float(value) for value in one.std] if one.normalize else [1.0] for one in given],
            "temperature": [float(member.temperature) for member in members],
            "order": [order_of(members[0], member, name).tolist() for member, name in zip(members, names, strict=True)],
            **({"several_labels": True} if members[0].thresholds else {}),
        },
    )


def _protocol(record: RunRecord) -> tuple[object, ...]:
    return record.protocol, record.settings.tta, record.settings.tta_margin


def _record(found: Sequence[Candidate], tree: Node, registry: Registry, device: str | None) -> RunRecord:
    """The record of the new run.

    Raises:
        InputError: the runs were made with other images, or with code of the user's own.
    """
    first = found[0].record
    for other in found[1:]:
        for key in SAME:
            if getattr(first.data, key) != getattr(other.record.data, key):
                raise InputError(
                    f"{other.name} differs from {found[0].name} in data.{key}; an ensemble that is one run is measured "
                    "on the images of all its members"
                )
        if _protocol(first) != _protocol(other.record):
            raise InputError(
                f"{other.name} differs from {found[0].name} in its protocol or its test-time views (recipe.tta); an "
                "ensemble that is one run has one of each"
            )
    own = [one.name for one in found if one.record.own]
    if own:
        raise InputError(f"{own[0]} is made of code of your own, which an ensemble that is one run cannot take along")
    where = torch.device(device or first.device)
    return msgspec.structs.replace(
        first,
        model=MODEL,
        build=tree.to_table(),
        settings=msgspec.structs.replace(first.settings, normalize="none"),
        plugins={COMPONENT: str(registry.origin("component", COMPONENT)), **_plugins(found)},
        defaults=_defaults(found),
        device=str(where),
        base_model="",
        base_sha256="",
        base_hub="",
        teacher=msgspec.UNSET,
        environment=environment(where),
        soup=Soup(method=MODEL, of=tuple(_ingredient(one, 1 / len(found)) for one in found)),
    )


def _ingredient(one: Candidate, share: float) -> Ingredient:
    return Ingredient(name=one.name, sha256=sha256_of(one.folder / WEIGHTS), weight=share, seed=one.record.seed)


def _plugins(found: Sequence[Candidate]) -> dict[str, str]:
    return {key: value for one in found for key, value in one.record.plugins.items()}


def _defaults(found: Sequence[Candidate]) -> dict[str, str]:
    """The defaults of all components, where every run has the same.

    Raises:
        InputError: a component had other defaults in another run.
    """
    known: dict[str, str] = {}
    for one in found:
        for key, value in (one.record.defaults or {}).items():
            if known.setdefault(key, value) != value:
                raise InputError(
                    f"{one.name}: the component {key} had other defaults when it was trained than in another member; "
                    "RUN+RUN answers together without one run"
                )
    return known


def _weights(found: Sequence[Candidate]) -> dict[str, Tensor]:
    """The weights of all members, each under its number."""
    return {
        f"members.{number}.{key}": value
        for number, one in enumerate(found)
        for key, value in read_weights(one.folder).items()
    }
