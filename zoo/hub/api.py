"""The public calls of this room: what the Hub's commands do.

Each call raises the errors of its command, prints nothing, and leaves no temporary file behind, also after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, overload

from zoo.base.checked_call import checked
from zoo.base.paths import local_path
from zoo.base.reporter import Reporter
from zoo.base.structs import Precision
from zoo.errors import InputError
from zoo.hub.publication import Planned, Published
from zoo.hub.releasing import release as release
from zoo.runs.api import HUB, RunLike, word_of
from zoo.runs.which import is_name_of_weights

if TYPE_CHECKING:
    from zoo.hub.copy import Pulled
    from zoo.hub.search import Hits
    from zoo.hub.signature import Sign
    from zoo.hub.verify import Verification


# ---- publishing ----------------------------------------------------------------------------------------


@checked
def package(
    run: RunLike,
    output: str | Path | None = None,
    *,
    licence: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    predictions: bool = True,
    precision: Precision | None = None,
    sign: str | Path | None = None,
    onnx: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Make a package of a finished run: weights, config, card and pictures, with the hash of each file.

    Args:
        run: a run on this machine. output: the package's folder; default: `package` in the run's folder. A package
            that is there is replaced as a whole.
        licence: the licence of the weights, as the Hub names it; default: that of the run's package, if there is one
            already or `run` is one, else apache-2.0.
        data_dir: folder for downloaded datasets.
        device: on which the test split is measured; default: the run's.
        predictions: measure the test split again, for `confusion.png` and the card's table of classes; needs the data.
        precision: number type in which the parameters are stored; None: as in the run, usually fp32. In 16 bits, the
            file has half the size. The stored weights are measured again, and the package states their numbers; more
            than 5 of 10,000 test images must not be lost.
        sign: sign the package: a file with a private key, or "sigstore"; needs the extra `sign`.
        onnx: add `onnx/model.onnx` and `preprocessor_config.json` for ONNX Runtime and transformers.js; needs the
            extra "export".
        reporter: receives what there is to say.
    Returns:
        The package's folder.
    Raises:
        InputError: no such run, it is on the Hub, `output` holds something else, 16 bits without `predictions`, no
            key, or a library is missing.
        RunError: the run is unfinished or damaged, or measuring it again gives another number.
        ExportError: the model has no ONNX form, or the file does not agree with it.
        PackageError: the weights are not finite or do not fit, or too much is lost in 16 bits.
        DataError: the test images are not available.

    Example:
        >>> zoo.package("last", predictions=False)  # doctest: +SKIP
        PosixPath('runs/hybrid-alt-1-digits-20261121-120000/package')
    """
    from zoo.hub.pack import package as make
    from zoo.hub.sums import SUMS

    source, options = _local(run), _options(licence, data_dir, device, predictions, precision, onnx)
    if output is None and (source / SUMS).is_file():
        raise InputError(f"{run}: is a package already; for another one of it give --output DIR")
    folder = local_path(output) if output is not None else source / "package"
    with closing(reporter or Reporter()):
        return make(source, folder, sign=_signer(sign), **options).folder


@overload
def publish(
    run: RunLike,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    replace_edits: bool = False,
    dry_run: Literal[False] = False,
    licence: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    predictions: bool = True,
    precision: Precision | None = None,
    sign: str | Path | None = None,
    onnx: bool = False,
    space: str | bool = False,
    runtime: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Published: ...
@overload
def publish(
    run: RunLike,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    replace_edits: bool = False,
    dry_run: Literal[True],
    licence: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    predictions: bool = True,
    precision: Precision | None = None,
    sign: str | Path | None = None,
    onnx: bool = False,
    space: str | bool = False,
    runtime: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Planned: ...
@overload
def publish(
    run: RunLike,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    replace_edits: bool = False,
    dry_run: bool,
    licence: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    predictions: bool = True,
    precision: Precision | None = None,
    sign: str | Path | None = None,
    onnx: bool = False,
    space: str | bool = False,
    runtime: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Published | Planned: ...
@checked
def publish(
    run: RunLike,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    replace_edits: bool = False,
    dry_run: bool = False,
    licence: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    predictions: bool = True,
    precision: Precision | None = None,
    sign: str | Path | None = None,
    onnx: bool = False,
    space: str | bool = False,
    runtime: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Published | Planned:
    """Publish a run or a package to the Hub, in one commit with a tag, or not at all.

    Args:
        run: a run or a package on this machine. repo: OWNER/NAME; created if it is absent.
        private: make the repository private if it is created.
        revision: branch to commit to; default: main. create_pr: open a pull request instead of committing.
        replace_edits: replace the card or a picture in the repository even if somebody edited it there.
        dry_run: send nothing, and give what would be sent.
        licence, data_dir, device, predictions, precision, onnx: as for `zoo.package`, if `run` is no package yet; of a
            package, another licence and another precision are refused.
        sign: sign what is sent: a file with a private key, or "sigstore" (which does not sign in a dry run).
        space: also make a static Space of this name, a page that classifies images in the browser; True: as `repo`.
            A run's package gets `onnx` for it; one that is ready must have it.
        runtime: for `space`: a folder with the files of npm's package onnxruntime-web; None: npm fetches it.
        reporter: receives what there is to say, such as which files were edited after the package was made.
    Returns:
        `Published`: the commit and its tag, and the Space; with `dry_run`, `Planned`: title, tag, files and card.
    Raises:
        InputError: no such run, it is on the Hub, a wrong name, two branches, another precision or licence than the
            package's, no key, or the Space's files are missing.
        HubLoginError: there is no token.
        PackageError: symbolic links, damage, weights that are not finite, a secret in a file, or an old signature.
        RunError, DataError: as `zoo.package`. HubError: or a subclass; the repository is then as it was before.

    Example:
        >>> zoo.publish("last", "me/hybrid-digits", dry_run=True).files  # doctest: +SKIP
        >>> zoo.publish("last", "me/hybrid-digits").reference  # doctest: +SKIP
    """
    from zoo.catalogue.registry import load_registry
    from zoo.hub.publish import check_token, prepare, shown
    from zoo.hub.publish import publish as send
    from zoo.hub.publish_space import published_with, shown_with
    from zoo.hub.ref import with_revision
    from zoo.hub.static_space import asked_space, make_space
    from zoo.runs.own_source import refuse_own
    from zoo.runs.record import RECORD, read_record

    source, ref, signed = _local(run), with_revision(repo, revision), _signer(sign, dry_run=dry_run)
    asked = asked_space(space, ref.repo, Path(runtime) if runtime else None, create_pr=create_pr)
    if (source / RECORD).is_file():
        refuse_own(source, read_record(source))  # no token helps then
    if not dry_run:
        check_token()  # before the test split is measured
    options = _options(licence, data_dir, device, predictions, precision, onnx or asked is not None)
    registry = load_registry()
    with closing(reporter or Reporter()) as told, TemporaryDirectory(prefix="zoo-publish-") as temporary:
        plan = prepare(source, ref, Path(temporary), sign=signed, registry=registry, **options)
        _say_edits(told, plan.edited, "it is sent as it is")
        page = asked and make_space(plan.package, asked, ref.repo, Path(temporary) / "space", registry)
        if dry_run:
            return shown_with(shown(plan, ref), page)
        published = send(plan, ref, private=private, create_pr=create_pr, replace_edits=replace_edits)
        return published_with(published, page, private=private, replace_edits=replace_edits)


def _local(run: RunLike) -> Path:
    """The folder of a run that must be on this machine.

    Raises:
        InputError: no such run, or it is a package on the Hub.
    """
    word = word_of(run)
    if word.startswith(HUB):
        raise InputError(f"{word} is a package already; for a copy to publish: zoo pull {word} --output DIR")
    return Path(word)


def _options(
    licence: str | None,
    data_dir: str | Path | None,
    device: str | None,
    predictions: bool,
    precision: Precision | None,
    onnx: bool,
) -> dict[str, Any]:
    how = {"predictions": predictions, "precision": precision, "onnx": onnx}
    return {"licence": licence, "data_dir": _text(data_dir), "device": device, **how}


def _signer(key: str | Path | None, *, dry_run: bool = False) -> Sign | None:
    """What signs; a dry run leaves no trace in Sigstore's public log.

    Raises:
        InputError: no such key, or the library is not installed.
    """
    if key is None:
        return None
    from zoo.hub.signature import KEYLESS, signer

    sign = signer(key)
    return (lambda folder: None) if dry_run and key == KEYLESS else sign


def _say_edits(told: Reporter, names: Iterable[str], what: str) -> None:
    for name in names:
        told.say(f"{name} was edited after the package was made: {what}")


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(local_path(path))


# ---- using what others published -----------------------------------------------------------------------


@checked
def pull(ref: str, output: str | Path | None = None, *, reporter: Reporter | None = None) -> Pulled:
    """Fetch a package from the Hub, and check its hashes and its model.

    Args:
        ref: OWNER/NAME or OWNER/NAME@REVISION, with or without `hf://`.
        output: a folder that does not exist yet, to which the files are copied; default: only the Hub's cache.
        reporter: receives what there is to say, such as which files were edited after the package was made.
    Returns:
        `Pulled`, which stands for its folder wherever a path is taken.
    Raises:
        InputError: a wrong name, or `output` exists. WriteError: it cannot be written.
        PackageError: a damaged package, or none. HubError: or a subclass: it cannot be fetched.
        MissingPluginError: it needs a plugin that is not installed.

    Example:
        >>> pulled = zoo.pull("me/hybrid-digits@v1", "here")  # doctest: +SKIP
        >>> pulled.folder, pulled.reference  # doctest: +SKIP
    """
    from zoo.hub.copy import Pulled, copy_out
    from zoo.hub.download import fetch
    from zoo.hub.ref import parse_ref

    with closing(reporter or Reporter()) as told:
        fetched = fetch(parse_ref(ref), everything=True)
        folder = copy_out(fetched, local_path(output)) if output is not None else fetched.folder
        pulled = Pulled(folder, fetched.pinned, fetched.edited)
        _say_edits(told, pulled.edited, "SHA256SUMS lists another one; weights, config and results are checked")
    return pulled


@checked
def verify(
    source: RunLike,
    *,
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    device: str | None = None,
    key: str | Path | None = None,
    identity: str | None = None,
    identity_provider: str | None = None,
) -> Verification:
    """Hash a package, build its model, evaluate it, and compare the results with the recorded ones.

    Args:
        source: `hf://OWNER/NAME[@REVISION]`, the folder of a package, a run that has its package in it, or
            NAME@DATASET: weights of the catalogue, whose entry there is then compared as well.
        dataset: your copy of the images, as a SPEC; needed if the package was trained on its author's own files.
        data_dir: folder for downloaded datasets.
        device: to measure on; default: the recorded kind of device, if this machine has one.
        key: the file of a public key by whose private key the package must be signed; needs the extra `sign`.
        identity, identity_provider: who must have signed it with Sigstore, and the address of who knows them.
    Returns:
        `Verification`: the checks. One that does not hold raises nothing here: the result is then false, and
        `raise_for_difference()` raises what `zoo verify` ends with.
    Raises:
        PackageError: damaged, with numbers that cannot be, or not signed as it must be. HubError: it cannot be fetched.
        InputError: no such package, no such key, or `dataset` is needed. RunError: other images than the recorded ones.

    Example:
        >>> zoo.verify("hf://me/hybrid-digits").raise_for_difference()  # doctest: +SKIP
    """
    from zoo.hub.signature import trust_of
    from zoo.hub.verify import Verification
    from zoo.hub.verify import verify as check

    word = source if isinstance(source, str) and is_name_of_weights(source) else word_of(source)
    trust = trust_of(key, identity, identity_provider)
    checks = check(word, dataset=dataset, data_dir=_text(data_dir), device=device, trust=trust)
    return Verification(word, tuple(checks))


@checked
def search(query: str = "", *, tags: str | Sequence[str] = (), limit: int = 50, dataset: str = "") -> Hits:
    """Search the Hub for packages of this library whose name contains `query`, by number of downloads.

    Args:
        tags: a package must have all of them, for example "hybrid". limit: the most packages that are asked for, 1 to
            1000. dataset: of these, only those with a result on it.
    Returns:
        A table: `repo`, `downloads`, `tags`, `results`. The accuracies are what the cards claim, 0..1; `zoo.verify`
        measures them again.
    Raises:
        InputError: a limit outside of its range. HubError: the search failed.

    Example:
        >>> zoo.search("digits", tags="hybrid").column("repo")  # doctest: +SKIP
        ['me/hybrid-digits']
    """
    from zoo.hub.search import search as ask

    return ask(query, tags=(tags,) if isinstance(tags, str) else tags, limit=limit, dataset=dataset)
