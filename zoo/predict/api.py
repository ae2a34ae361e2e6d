"""The public calls of this room: `zoo.predict`, `zoo.explain` and `zoo.embed`, and what they give."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from zoo.base.checked_call import checked
from zoo.base.paths import local_path
from zoo.base.reporter import Reporter, callers
from zoo.errors import DataError, InputError, ZooWarning
from zoo.predict.embedding import Embeddings, checked_output
from zoo.predict.prediction import METHODS, Explanation, Method, Prediction
from zoo.predict.prediction_table import checked_table, written
from zoo.runs.api import RunLike, is_run_like, word_of
from zoo.runs.which import is_ensemble, no_ensemble

if TYPE_CHECKING:
    from zoo.evaluate.classifier import Classifier
    from zoo.evaluate.preparing import Picture
    from zoo.predict.drawer import Drawer
    from zoo.predict.embedded_images import Wanted
    from zoo.predict.inputs import Given

__all__ = ["Embeddings", "Explanation", "Prediction", "embed", "explain", "predict"]

Images: TypeAlias = "Picture | Iterable[Picture]"
"""One or many of: a path, a folder (all images below it), a pattern (`**/*.png`), the bytes of a file, a PIL
image, a uint8 array (H, W), (H, W, 3) or (H, W, 4)."""


@overload
def predict(
    run: RunLike | Classifier,
    images: Images = (),
    *,
    top: int = 5,
    batch_size: int = 64,
    threads: int | None = None,
    device: str = "cpu",
    files_from: str | Path | None = None,
    null: bool = False,
    explain: str | Path | None = None,
    explain_method: Method = "auto",
    output: str | Path | None = None,
    skip_bad: bool = False,
    stream: Literal[False] = False,
) -> list[Prediction]: ...
@overload
def predict(
    run: RunLike | Classifier,
    images: Images = (),
    *,
    top: int = 5,
    batch_size: int = 64,
    threads: int | None = None,
    device: str = "cpu",
    files_from: str | Path | None = None,
    null: bool = False,
    explain: str | Path | None = None,
    explain_method: Method = "auto",
    output: str | Path | None = None,
    skip_bad: bool = False,
    stream: Literal[True],
) -> Iterator[Prediction | DataError]: ...
@checked
def predict(
    run: RunLike | Classifier,
    images: Images = (),
    *,
    top: int = 5,
    batch_size: int = 64,
    threads: int | None = None,
    device: str = "cpu",
    files_from: str | Path | None = None,
    null: bool = False,
    explain: str | Path | None = None,
    explain_method: Method = "auto",
    output: str | Path | None = None,
    skip_bad: bool = False,
    stream: bool = False,
) -> list[Prediction] | Iterator[Prediction | DataError]:
    """Classify images by the model of a run.

    Args:
        run: a run folder, a package, a name below runs/, "last", hf://OWNER/NAME[@REVISION], weights of
            the catalogue (NAME@DATASET) or a library ("timm/NAME.TAG", "torchvision/NAME.WEIGHTS"), several of these
            joined by a plus ("RUN+RUN": the mean of their probabilities), FILE.onnx that `zoo.export` wrote, a `Run`,
            or a loaded `Classifier`.
        images: one or many of: a path, a folder (all images below it), a pattern (`**/*.png`), the bytes of a
            file, a PIL image, a uint8 array (H, W), (H, W, 3) or (H, W, 4); "-" reads the bytes of one from stdin.
        top: how many classes of each image are named; its labels, where it may have several, are all named.
        batch_size: images that are classified at once, 1 to 4096.
        threads: that decode images, 1 to 64; default: the number of CPUs, at most 4.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto"; a loaded classifier stays where it is.
        files_from: a file that lists the paths of more images, one a line; "-" is stdin.
        null: the paths of `files_from` end with a zero byte instead.
        explain: a folder; for each image, a picture is written there that marks what led the model to its top class.
        explain_method: "auto" takes the one that suits the architecture.
        output: FILE.csv or FILE.parquet: a table with a row for each image that can be read: `image`, `prediction`,
            `confidence`, and the probability of each class (`p_CLASS`). It is there when all predictions were taken.
        skip_bad: leave images that cannot be read out, each with a `ZooWarning`.
        stream: give an iterator in place of a list, in bounded memory: each image's prediction as it comes, or the
            `DataError` of one that cannot be read in its place.
    Returns:
        A prediction for each image, in the order of the images (sorted within a folder or a pattern).
    Raises:
        DataError: an image cannot be read; names it (neither with `skip_bad` nor with `stream`).
        InputError: no images, no such run, a wrong option, or `output` is another file. RunError, PackageError,
            HubError: the run cannot be used. DeviceError: this machine has no such device. WriteError: a picture or the
            table cannot be written.

    Example:
        >>> for found in zoo.predict("last", ["cat.jpg", "photos/"], top=1):  # doctest: +SKIP
        ...     print(found.image, found.top1, found.probability)
    """
    _check(images, files_from, top, batch_size, threads, null)
    if explain is not None:
        check_explaining(explain_method)
    elif explain_method != "auto":
        raise InputError(
            f"--explain-method {explain_method}: is for the pictures of --explain DIR; add that, or leave it out"
        )
    table = None if output is None else checked_table(output)
    classifier = classifier_of(run, device)
    drawer = None if explain is None else _drawer(classifier, explain_method, local_path(explain))
    given = _given(images, files_from, null)
    found = _predictions(classifier, given, drawer, top, batch_size, threads)
    if table is not None:
        found = written(found, table, classifier.classes, several=bool(classifier.thresholds))
    return found if stream else _all(found, skip_bad)


@checked
def explain(
    run: RunLike | Classifier,
    images: Images,
    *,
    output: str | Path | None = None,
    method: Method = "auto",
    device: str = "cpu",
) -> list[Explanation]:
    """Show where in each image a model saw its most probable class. Needs captum (the extra "explain").

    Args:
        run, images, device: as for `zoo.predict`.
        output: a folder to write the pictures to, each named after its image; earlier ones are kept.
        method: "hires-cam", "grad-cam", "layer-integrated-gradients", "integrated-gradients" or "occlusion"; "auto"
            takes the one that suits the architecture.
    Returns:
        For each image its saliency, float32 (H, W) from 0 to 1, and a PNG that shows it.
    Raises:
        InputError: captum is missing, or the method does not suit the model; and as `zoo.predict`, DataError too.

    Example:
        >>> shown = zoo.explain("last", "cat.jpg", output="pictures")  # doctest: +SKIP
        >>> shown[0].label, shown[0].saliency.shape  # doctest: +SKIP
    """
    _check(images, None, 1, 1, None, null=False)
    check_explaining(method)
    classifier = classifier_of(run, device)
    drawer = _drawer(classifier, method, None if output is None else local_path(output))
    found = _all(_predictions(classifier, _given(images, None, False), drawer, 1, 64, None), skip_bad=False)
    return [one.explanation for one in found if one.explanation is not None]


@checked
def embed(
    run: RunLike | Classifier,
    images: Images = (),
    *,
    on: str | None = None,
    output: str | Path | None = None,
    layer: str | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    device: str = "cpu",
    dataset: str | None = None,
    data_dir: str | Path | None = None,
    files_from: str | Path | None = None,
    null: bool = False,
    skip_bad: bool = False,
    reporter: Reporter | None = None,
) -> Embeddings:
    """Write the features of images to a file: what a model makes of each image before it tells the classes apart.

    The file is written while the images are read, in bounded memory. A call that is made again goes on where a killed
    one stopped, and computes nothing where the file is there.

    Args:
        run: as for `zoo.predict`.
        images: as for `zoo.predict`; they need `output`.
        on: all images of a dataset in place of `images`: a SPEC as for the dataset of `zoo.train`, whose classes need
            not be the run's. Without `images` and `on`: the run's own dataset. Both are divided as for a training.
        output: the file, FILE.parquet or FILE.npy; None: a Parquet file in the cache.
        layer: the name of a module as in `model.module.named_modules()`, whose output is taken; None: what the last
            layer takes. A map is averaged over its places, tokens over the tokens.
        batch_size, threads, device, files_from, null: as for `zoo.predict`.
        dataset: where the run's own dataset is on this machine, if not at the recorded path.
        data_dir: the folder of downloaded datasets.
        skip_bad: leave `images` that cannot be read out, each with a `ZooWarning`.
        reporter: receives the progress.
    Returns:
        The file, read when it is asked for: `features` float32 (N, width), `images`, `splits`, `labels`.
    Raises:
        InputError: no such run or layer, nothing to embed or two things, or the file holds something else.
        RunError: features are not finite numbers.
        BusyError: another process is writing the file. Else as `zoo.predict` and `zoo.evaluate`.

    Example:
        >>> embedded = zoo.embed("last", output="digits.parquet")  # doctest: +SKIP
        >>> embedded.feature, embedded.features.shape, embedded.splits[0]  # doctest: +SKIP
        ('pre_logits', (1797, 1152), 'train')
    """
    where = None if output is None else checked_output(output)
    named = files_from is not None or not (isinstance(images, list | tuple) and not images)
    if named and (on is not None or dataset is not None):
        raise InputError("give images, or the SPEC of a dataset (--on, --dataset), not both")
    if on is not None and dataset is not None:
        raise InputError("--dataset says where the run's own images are, --on names other ones; give one of them")
    if named and where is None:
        raise InputError("images that are of no dataset need a file for their features: --output FILE.parquet")
    _check(images if named else [None], files_from, 1, batch_size, threads, null)
    told = reporter or Reporter()
    classifier = classifier_of(run, device, features=True)
    from zoo.predict.embedded_images import named_images
    from zoo.predict.extraction import extracted

    try:
        folder = None if data_dir is None else str(data_dir)
        if named:
            given = _given(images, files_from, null)
            wanted: Wanted = named_images(given, classifier, threads=threads or 0, skip_bad=skip_bad)
        else:
            wanted = _dataset_of(classifier, on, dataset, folder)
        return extracted(classifier, wanted, output=where, layer=layer, batch_size=batch_size, reporter=told)
    finally:
        told.close()


def _dataset_of(classifier: Classifier, on: str | None, dataset: str | None, data_dir: str | None) -> Wanted:
    from zoo.catalogue.registry import load_registry
    from zoo.predict.embedded_images import dataset_images, own_images

    registry, record = load_registry(), classifier.record
    if on is not None:
        return dataset_images(on, classifier, registry, data_dir=data_dir)
    if record is None:
        raise InputError(f"{classifier.name} is no run: no images of its own are recorded; name some, or --on SPEC")
    return own_images(record, classifier, registry, data_dir=data_dir, dataset=dataset)


# ---- what the calls of this and later rooms share --------------------------------------------------------


def classifier_of(run: RunLike | Classifier, device: str = "cpu", *, features: bool = False) -> Classifier:
    """The model of a run, on a device; a classifier is given back as it is.

    Args:
        features: only its features are wanted: a run without labels has them too, and an ensemble has none.
    Raises:
        InputError: no such run or device, a classifier that lies on another device, or an ensemble where one run is
        needed. RunError, PackageError, HubError, DeviceError: as `zoo.load`.
    """
    word = word_of(run, weights=True) if is_run_like(run) else None  # said before torch takes its seconds
    is_ensemble(word or "", allowed=not features)
    from zoo.catalogue.registry import load_registry
    from zoo.evaluate.classifier import Classifier
    from zoo.evaluate.ensemble import EnsembleClassifier
    from zoo.hub.ask_library import open_word

    if isinstance(run, EnsembleClassifier) and features:
        raise no_ensemble(run.name, len(run.members))
    if isinstance(run, Classifier):
        _refuse_what_lacks(run, run.name, features=features)
        if device not in ("cpu", str(run.device), run.device.type):
            raise InputError(
                f"device {device!r}: the classifier lies on {run.device}; classifier.to({device!r}) moves it"
            )
        return run
    if word is None:
        raise InputError(f"{type(run).__name__} is no run: give its folder or name, a zoo.Run or a zoo.Classifier")
    opened = open_word(word, load_registry(), device)
    _refuse_what_lacks(opened, str(word), features=features)
    return opened


def _refuse_what_lacks(classifier: Classifier, name: str, *, features: bool) -> None:
    """Refuse a model that lacks what is wanted of it: its features, or its classes."""
    from zoo.evaluate.exported_file import refuse_onnx
    from zoo.runs.without_labels import refuse_without_labels

    if features:
        refuse_onnx(classifier, "an embedding")
    else:
        refuse_without_labels(classifier.record, name)


def check_within(name: str, value: float | None, least: float, most: float | None = None) -> None:
    """Refuse a number that is out of its range; None is not.

    Raises:
        InputError: names the option and what is allowed.
    """
    if value is None or (value >= least and (most is None or value <= most)):
        return
    allowed = f"at least {least:,}" if most is None else f"{least:,} to {most:,}"
    raise InputError(f"{name} {value}: allowed: {allowed}")


def check_explaining(method: str) -> None:
    """Refuse early what cannot be explained: before torch takes its seconds.

    Raises:
        InputError: captum is not installed, or there is no such method.
    """
    if method not in METHODS:
        raise InputError(f"--explain-method {method!r}; allowed: {', '.join(METHODS)}")
    if find_spec("captum") is None:
        from zoo.base.install import install_line

        raise InputError(f"--explain needs captum: {install_line('explain')}")


# ---- the parts of a prediction -----------------------------------------------------------------------


def _check(
    images: Any, files_from: str | Path | None, top: int, batch_size: int, threads: int | None, null: bool
) -> None:
    some = [images] if isinstance(images, str | Path) else images if isinstance(images, list | tuple) else None
    if files_from is None and some is not None and not some:
        raise InputError("no images given: name files, folders, patterns or -, or give --files-from FILE")
    if str(files_from) == "-" and some is not None and any(isinstance(one, str) and one == "-" for one in some):
        raise InputError("stdin is either one image (-) or a list of paths (--files-from -), not both")
    if null and files_from is None:
        raise InputError("--null says how the paths of --files-from end; add --files-from FILE, or leave it out")
    check_within("top", top, 1)
    check_within("batch_size", batch_size, 1, 4096)
    check_within("threads", threads, 1, 64)


def _given(images: Images, files_from: str | Path | None, null: bool) -> Iterator[Given | DataError]:
    from zoo.predict.inputs import listed_images, several_images

    stdin = getattr(sys.stdin, "buffer", None) or BytesIO()  # a notebook has none
    yield from several_images(images, stdin)
    if files_from is not None:
        yield from listed_images(str(files_from), stdin, null=null)


def _drawer(classifier: Classifier, method: Method, folder: Path | None) -> Drawer:
    from zoo.evaluate.ensemble import EnsembleClassifier
    from zoo.evaluate.exported_file import refuse_onnx
    from zoo.predict.drawer import Drawer

    if isinstance(classifier, EnsembleClassifier):
        classifier.refuse_mixed("an explanation")
    refuse_onnx(classifier, "an explanation")
    return Drawer(classifier, method, folder)


def _predictions(
    classifier: Classifier,
    given: Iterator[Given | DataError],
    drawer: Drawer | None,
    top: int,
    batch_size: int,
    threads: int | None,
) -> Generator[Prediction | DataError]:
    from zoo.predict.stream import predict as classify

    with closing(classify(classifier, given, batch_size=batch_size, threads=threads or 0)) as stream:
        for found in stream:
            if isinstance(found, DataError):
                yield found
                continue
            best = tuple(classifier.scores(found.ranking, top))
            drawn = None if drawer is None else drawer.draw(found)
            labels = tuple(classifier.labels(found.probabilities)) if classifier.thresholds else None
            yield Prediction(found.name, best, found.probabilities.numpy(), drawn, labels)


def _all(found: Generator[Prediction | DataError], skip_bad: bool) -> list[Prediction]:
    """The predictions as a list.

    Raises:
        DataError: an image cannot be read.
    """
    predictions: list[Prediction] = []
    with closing(found):  # whoever keeps the error would keep the threads that decode
        for one in found:
            if isinstance(one, Prediction):
                predictions.append(one)
            elif skip_bad:
                warnings.warn(f"{one}; left out", ZooWarning, stacklevel=callers())
            else:
                raise one
    return predictions
