"""The features of images by a model: which ones, whether they are there already, and how they are computed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from zoo.base.files import make_folder
from zoo.base.paths import cache_dir
from zoo.base.plain_json import json_text
from zoo.base.reporter import Reporter
from zoo.base.version import __version__
from zoo.errors import InputError, RunError
from zoo.evaluate.classifier import Classifier
from zoo.models.features import Feature, feature_of
from zoo.models.tensors import digest
from zoo.predict.embedded_images import Wanted
from zoo.predict.embedding import Embeddings, read_header
from zoo.predict.feature_file import write_features


def extracted(
    classifier: Classifier,
    wanted: Wanted,
    *,
    output: Path | None = None,
    layer: str | None = None,
    batch_size: int = 64,
    reporter: Reporter,
) -> Embeddings:
    """The features of images in a file, which is written unless it is there already.

    They are computed as predictions are: in fp32 and eval mode, of the image alone (not of several views of it).

    Args:
        output: the file; None: one in the cache, whose name is made of what decides the features.
        layer: as for `zoo.models.features.feature_of`.
    Raises:
        InputError: the file exists and holds something else. RunError: features are not finite. Else as `feature_of`
            and `write_features`.
    """
    with classifier.as_tested():
        feature = _feature(classifier, layer)
        header = _header(classifier, wanted, feature)
        decides = hashlib.sha256(json_text(header).encode()).hexdigest()
        path = _in_cache(decides) if output is None else output
        header |= {"versions": {"hybrid-zoo": __version__, "torch": str(torch.__version__)}}
        if path.exists():
            return _present(path, header)
        computed = write_features(
            path,
            wanted,
            lambda pixels: _read(classifier, feature, pixels),
            header,
            identity=decides,
            batch_size=batch_size,
            show=lambda done, total: reporter.progress("features", done, total),
        )
    return Embeddings(path, header, computed)


def _feature(classifier: Classifier, layer: str | None) -> Feature:
    sizes = classifier.sizes
    image = torch.zeros(1, sizes.in_channels, sizes.height, sizes.width, dtype=torch.uint8)
    with torch.inference_mode():
        return feature_of(classifier.module, classifier.prepare(image), sizes.num_classes, layer)


@torch.inference_mode()
def _read(classifier: Classifier, feature: Feature, pixels: Any) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = feature.read(classifier.prepare(pixels)).cpu().numpy()
    refuse_not_finite(classifier.name, feature.name, vectors)
    return vectors


def refuse_not_finite(model: str, feature: str, vectors: NDArray[np.float32]) -> None:
    """Refuse features that are no numbers: nothing can be told or learnt from them.

    Raises:
        RunError: some are not finite.
    """
    if not np.isfinite(vectors).all():
        raise RunError(
            f"{model}: its features ({feature}) are not finite numbers; its weights are damaged, or its training "
            "diverged"
        )


def _header(classifier: Classifier, wanted: Wanted, feature: Feature) -> dict[str, Any]:
    """What decides the features, as plain data."""
    return {
        "model": classifier.name,
        "feature": feature.name,
        "width": feature.width,
        "dataset": wanted.spec,
        "fingerprint": wanted.fingerprint,
        **({"changed": wanted.changed} if wanted.changed else {}),
        "counts": wanted.counts,
        "classes": list(wanted.classes),
        "transform": repr(classifier.transform),
        "colours": repr(classifier.preprocessing.rule.colours),
        "weights_sha256": digest(classifier.module.state_dict()),
        "build": None if classifier.record is None else msgspec.to_builtins(classifier.record.build),
    }


def _in_cache(decides: str) -> Path:
    folder = cache_dir() / "features"
    make_folder(folder)
    return folder / f"{decides[:32]}.parquet"


def _present(path: Path, header: dict[str, Any]) -> Embeddings:
    """The file that is there already, if it holds these very features.

    Raises:
        InputError: it holds something else, or it is an npy file, which does not say of what images it is.
    """
    known = read_header(path) if path.suffix == ".parquet" else None
    if known is None or {**known, "versions": None} != {**header, "versions": None}:
        what = "an npy file, which does not say of what" if path.suffix == ".npy" else "and holds something else"
        raise InputError(f"{path} exists, {what}; delete it, or name another --output")
    return Embeddings(path, known)
