"""What a word means that is used like a run: a run, a package, or weights that a library released.

timm's and torchvision's weights, and those of any plugin whose component has a namespace, have no run folder. Their
plugin describes them (`zoo.plugin.Pretrained`) and loads them, from wherever its library has them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import torch

from zoo.base.streams import printing_to
from zoo.base.text import first_line, one_line, plural
from zoo.catalogue.plugins import import_factory
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import COLOURS, Node, wrong_normalisation
from zoo.data.files.decode import transform_rule
from zoo.errors import HubConnectionError, HubError, InputError, PluginError
from zoo.evaluate.classifier import Classifier, open_classifier
from zoo.evaluate.ensemble import Ensemble
from zoo.evaluate.exported_file import exported_file
from zoo.evaluate.library_weights import LibraryWeights
from zoo.evaluate.preparing import Preprocessing
from zoo.hub.download import local_folder
from zoo.hub.ref import is_ref
from zoo.hub.session import talking
from zoo.plugin.contract import Pretrained
from zoo.runs.record import Sizes
from zoo.runs.which import is_exported_file, known, members_of

OTHERS = "or take others: a run, hf://OWNER/NAME, or weights that are on this machine"
"""What to do where weights that are to be used cannot be had."""


def meant(word: str, registry: Registry) -> Path | LibraryWeights | Ensemble:
    """What a word means: one run, package or weights of a library, as `meant_alone`, or an ensemble, "RUN+RUN"."""
    if members := members_of(word):
        return Ensemble(tuple(meant_alone(member, registry) for member in members), members)
    return meant_alone(word, registry)


def meant_alone(word: str, registry: Registry) -> Path | LibraryWeights:
    """The folder of a run or package that a word means, or the weights of a library or of an exported file.

    A run comes first.

    Args:
        word: as `zoo.runs.api.word_of` gives it with `weights=True`.
    Raises:
        InputError: as `library_weights`. Else as `zoo.hub.download.local_folder`.
    """
    if is_exported_file(word):
        return exported_file(word)
    if known(word) is not None or not registry.offers_weights(word):
        return local_folder(word, registry=registry)
    declared = registry.component(registry.model(word).build.use).pretrained or ""
    return local_folder(declared, registry=registry) if is_ref(declared) else library_weights(word, registry)


def open_word(word: str, registry: Registry, device: str | torch.device | None = None) -> Classifier:
    """The model that a word means, with its weights.

    Raises:
        As `meant`, and as `open_classifier`, `LibraryWeights.open` or `Ensemble.open`.
    """
    found = meant(word, registry)
    if not isinstance(found, Path):
        return found.open(registry, device)
    return open_classifier(found, registry, device=device)


def library_weights(reference: str, registry: Registry) -> LibraryWeights:
    """The weights that "NAMESPACE/NAME" means, as their plugin describes them; nothing is downloaded.

    Raises:
        InputError: there are none of this name, or they have no head that tells classes apart.
        PluginError: the description is not whole.
    """
    build = registry.model(reference).build
    declared = registry.component(build.use).pretrained or ""
    given = ask(reference, build, declared, OTHERS)
    count = len(given.classes) if given.num_classes is None else given.num_classes
    if given.num_classes == 0:
        raise InputError(
            f"{reference}: these weights give features and no classes: they have no head; "
            f"`zoo train {reference} --pretrained --dataset SPEC` trains one, or take weights that have one"
        )
    if not count or given.transform is None:
        what = "how images are brought to their size" if count else "how many classes they tell apart"
        raise PluginError(f"{reference}: {declared} does not say {what}, so that they can only be trained on")
    if given.classes and len(given.classes) != count:
        raise PluginError(f"{reference}: {declared} names {len(given.classes)} of {plural(count, 'class')}")
    height, width = given.transform.size
    return LibraryWeights(
        reference=reference,
        name=given.origin,
        build=build,
        sizes=Sizes(in_channels=COLOURS, height=height, width=width, num_classes=count),
        preprocessing=_preprocessing(given),
        classes=tuple(given.classes),
        other_names=given.other_names or tuple,
        load=partial(fetched, reference, given.where, given.load, OTHERS),
    )


def _preprocessing(given: Pretrained) -> Preprocessing:
    assert given.transform is not None
    rule = transform_rule(given.transform)
    return Preprocessing(rule, tuple(given.mean), tuple(given.std), True) if given.mean else Preprocessing(rule)


def ask(reference: str, build: Node, declared: str, advice: str) -> Pretrained:
    """Ask the function that a component names for the weights of a tree.

    Args:
        declared: "module:function". advice: what to do where they cannot be had.
    Raises:
        InputError: there are none, or the answer is no description of weights. HubError: as `fetched`.
    """
    function = import_factory(declared, build.use)
    plain = {key: value for key, value in build.args.items() if not isinstance(value, Node)}
    given = fetched(reference, "", function, advice, **plain)
    if not isinstance(given, Pretrained):
        raise InputError(f"{reference}: {declared} must return zoo.plugin.Pretrained, not {type(given).__name__}")
    problem = wrong_normalisation(given.mean or (0.5,), given.std or (0.5,))
    if problem or bool(given.mean) != bool(given.std):
        raise InputError(f"{reference}: {declared}: {problem or 'mean and std belong together'}")
    return given


def fetched(reference: str, where: str, call: Callable[..., Any], advice: str, /, **options: Any) -> Any:
    """Call a function of a plugin that may have to download something.

    What it prints (torch.hub names what it downloads) goes to stderr: stdout is for a command's result.

    Raises:
        ZooError: it failed; says what was requested, where it was looked for, and what to do.
    """
    try:
        with talking(reference), printing_to(sys.stderr):
            return call(**options)
    except HubError as error:
        cause = error.__cause__
        if isinstance(cause, URLError):  # of another server than the Hub
            reason = one_line(getattr(cause.reason, "strerror", None) or cause.reason)
            reason = f"HTTP {cause.code}" if isinstance(cause, HTTPError) else reason
            tried = f"tried {where or 'its server'} and the cache"
            raise HubConnectionError(
                f"the weights of {reference} cannot be downloaded: {reason} ({tried}); check the network, {advice}"
            ) from error
        if type(error) is HubError and cause is not None and not isinstance(cause, OSError):
            reason = first_line(cause)
            raise PluginError(f"the weights of {reference} cannot be loaded: {reason}; {advice}") from cause
        tried = f" (tried {where} and the cache)" if where else ""
        raise type(error)(f"the weights of {error}{tried}; {advice}") from error
