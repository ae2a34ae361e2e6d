"""A file that `zoo export` wrote as ONNX, used in the place of its run: ONNX Runtime computes what torch did.

The file says what its images and classes are, so that neither the run nor the plugin of its architecture is needed.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
import torch
from torch import Tensor, nn

from zoo.base.install import install_line
from zoo.base.paths import local_path
from zoo.base.text import first_line
from zoo.catalogue.recipe import TestTimeViews
from zoo.catalogue.registry import Registry
from zoo.catalogue.spec import Node
from zoo.data.files.decode import Rule
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier
from zoo.evaluate.library_weights import LibraryWeights
from zoo.evaluate.preparing import Preprocessing
from zoo.runs.record import Sizes

AGAIN = "export the run again"


@dataclass(frozen=True, kw_only=True)
class OnnxFile(LibraryWeights):
    """An exported file, which stands where weights of a library do: no run folder belongs to it.

    Attributes:
        session: of ONNX Runtime, on the CPU. facts: what `zoo export` wrote into the file.
    """

    session: Any
    facts: Mapping[str, str]
    usual_device: ClassVar[str] = "cpu"

    def open(self, registry: Registry, device: str | torch.device | None = None) -> OnnxClassifier:
        """The file as a classifier, on the CPU.

        Raises:
            InputError: another device was asked for.
        """
        classifier = OnnxClassifier(self)
        return classifier if device is None else classifier.to(device)


class Session(nn.Module):
    """The graph of a file as a torch module without parameters: prepared floats (B, C, H, W) to logits (B, K).

    Args:
        takes: the name of the graph's input, see `zoo.export.facts`. batch: images of each call; None: any number.
        temperature: that the graph divides its logits by, which is undone here.
    """

    def __init__(self, session: Any, takes: str, batch: int | None, temperature: float) -> None:
        super().__init__()
        self.session, self.takes, self.batch, self.temperature = session, takes, batch, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Run the graph; gradients do not flow."""
        given = self._given(images.detach().float())
        if self.batch is None:
            return self._run(given)
        parts = [part for part in given.split(self.batch) if len(part)]
        filled = [torch.cat((part, part[:1].expand(self.batch - len(part), *part.shape[1:]))) for part in parts]
        return torch.cat([self._run(part) for part in filled])[: len(images)]

    def _given(self, images: Tensor) -> Tensor:
        if self.takes == "images":
            return images
        values = (images * 255).round()
        return values if self.takes == "pixel_values" else values.to(torch.uint8).permute(0, 2, 3, 1)

    def _run(self, given: Tensor) -> Tensor:
        (logits,) = self.session.run(["logits"], {self.takes: given.contiguous().numpy()})
        found = torch.from_numpy(logits)
        return found if self.temperature == 1 else found * self.temperature


class OnnxClassifier(Classifier):
    """A classifier whose network is an exported file: it predicts, is served and measured, and has no layers."""

    def __init__(self, file: OnnxFile) -> None:
        facts = file.facts
        takes = json.loads(facts["zoo.input"])
        rows = takes["shape"][0]
        inside = takes["name"] == "pixel_values"  # also the views, and after them the temperature
        temperature = 1.0 if inside else float(facts.get("zoo.temperature", 1))
        if not 0 < temperature < math.inf:
            raise ValueError(f"a temperature of {temperature}")
        super().__init__(
            name=file.name,
            module=Session(file.session, takes["name"], rows if isinstance(rows, int) else None, temperature).eval(),
            sizes=file.sizes,
            preprocessing=file.preprocessing,
            classes=file.classes,
            tta="none" if inside else msgspec.convert(facts.get("zoo.tta", "none"), TestTimeViews),
            tta_margin=None if inside or "zoo.tta_margin" not in facts else float(facts["zoo.tta_margin"]),
            dataset=facts.get("zoo.dataset", ""),
            thresholds=tuple(json.loads(facts.get("zoo.thresholds", "[]"))),
            temperature=temperature,
        )
        self.file = file

    @property
    def parameter_count(self) -> int:
        """How many parameters the exported module had."""
        return int(self.file.facts["zoo.parameters"])

    def to(self, *args: Any, **options: Any) -> Self:
        """Stay on the CPU.

        Raises:
            InputError: another device was asked for.
        """
        for given in (*args, *options.values()):
            if str(given) not in ("auto", "cpu", "None") and isinstance(given, str | torch.device):
                raise InputError(f"{self.file.reference} is run by ONNX Runtime on the CPU, not on {given}")
        return self


def exported_file(word: str | Path) -> OnnxFile:
    """Open an exported file.

    Raises:
        InputError: ONNX Runtime is not installed or cannot load it, or `zoo export` has not written it.
    """
    session = _session(str(word))
    facts = dict(session.get_modelmeta().custom_metadata_map)
    if "zoo.input" not in facts:
        raise InputError(f"{word} was not written by zoo export: nothing in it says how images are prepared for it")
    if "zoo.rule" not in facts:
        raise InputError(f"{word} was written by hybrid-zoo {facts.get('zoo.version', '')}, an older one; {AGAIN}")
    try:
        file = _described(str(word), session, facts)
        OnnxClassifier(file)  # reads what `_described` leaves
        return file
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise InputError(f"{word}: what zoo export wrote into it is damaged ({first_line(error)}); {AGAIN}") from error


def _session(path: str) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise InputError(f"{path} needs onnxruntime, which is not installed: {install_line('export')}") from None
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return runtime.InferenceSession(str(local_path(path)), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"{path}: ONNX Runtime cannot load it: {first_line(error)}") from error


def _described(word: str, session: Any, facts: Mapping[str, str]) -> OnnxFile:
    takes, classes = json.loads(facts["zoo.input"]), tuple(map(str, json.loads(facts["zoo.classes"])))
    _, *shape = takes["shape"]
    channels, height, width = (shape[2], shape[0], shape[1]) if takes["layout"] == "NHWC" else shape
    normal = takes.get("normalize")
    rule = msgspec.convert(json.loads(facts["zoo.rule"]), Rule)
    count = int(json.loads(facts["zoo.output"])["shape"][1])
    return OnnxFile(
        reference=word,
        name=facts["zoo.model"],
        build=Node(use="onnx"),
        sizes=Sizes(in_channels=channels, height=height, width=width, num_classes=count),
        preprocessing=Preprocessing(rule, tuple(normal["mean"]), tuple(normal["std"]), True)
        if normal
        else Preprocessing(rule),
        classes=classes,
        other_names=tuple,
        load=dict,
        session=session,
        facts=facts,
    )


def refuse_onnx(found: object, what: str) -> None:
    """Refuse an exported file where a model's layers are needed.

    Args:
        found: what a word means, or a classifier. what: that needs them: "an explanation".
    Raises:
        InputError: it is one.
    """
    if isinstance(found, OnnxFile | OnnxClassifier):
        file = found if isinstance(found, OnnxFile) else found.file
        raise InputError(f"{file.reference} is an exported file, whose layers are not known; {what} needs the run")
