"""Where in an image a model saw the class that it named: captum's methods, chosen for the architecture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.base.quiet_imports import ignoring
from zoo.data.types import Images
from zoo.errors import InputError
from zoo.evaluate.classifier import Classifier
from zoo.evaluate.ensemble import EnsembleClassifier
from zoo.evaluate.module_state import evaluating
from zoo.models.precision import usual_torch
from zoo.predict.places import Layer, layers_with_places
from zoo.predict.prediction import Method

BY_LAYER: tuple[Method, ...] = ("auto", "hires-cam", "grad-cam", "layer-integrated-gradients")

AUTO: tuple[Method, Method] = ("hires-cam", "layer-integrated-gradients")
"""The method for maps, and the one for tokens."""
PICTURE = 320
"""Least side of a picture in pixels: what a model sees may be as small as 8x8."""
STEPS = 32
"""Steps of the integral of the gradients."""


class Saliency(NamedTuple):
    """How much each pixel spoke for a class.

    Attributes:
        heat: float32 (H, W), from 0 to 1. layer: the module whose output was looked at; "" for the image.
    """

    heat: Tensor
    method: str
    layer: str


@dataclass
class Explainer:
    """Draws what a model looked at.

    With "auto" the method follows the architecture, whoever wrote it. What counts is the last layer that
    keeps the places of the image (see `zoo.predict.places`) and on which the class depends there:

    - A map (a CNN, a hybrid whose last parts keep places): "hires-cam", gradient times activation of that
      map. Before a mean over places it is Grad-CAM, and unlike it also right before a layer that weighs
      places differently, as the hybrids' heads do.
    - Tokens (a ViT, a Mixer, a hybrid that ends in one): attention has mixed the places by then, so the
      first layer of those tokens is taken, by "layer-integrated-gradients" from an image of the mean colour.
    - No such layer, or one in each of several members: "integrated-gradients" of the image itself, which suits any
      module.

    Source:
        Draelos & Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
        neural networks"; Selvaraju et al., "Grad-CAM"; Sundararajan et al., "Axiomatic Attribution for
        Deep Networks"; Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks" (occlusion).
    """

    classifier: Classifier
    method: Method = "auto"
    layers: tuple[Layer, ...] | None = None

    def explain(self, pixels: Images, target: int) -> Saliency:
        """Look at one image, uint8 (3, H, W), for the class of that number.

        Raises:
            InputError: a method by layers was asked for and no layer keeps places.
        """
        with usual_torch(), evaluating(self.classifier), _only_images(self.classifier.module):
            return self._explained(pixels, target)

    def _explained(self, pixels: Images, target: int) -> Saliency:
        image = self.classifier.prepare(pixels[None])
        record = self.classifier.record
        has_members = isinstance(self.classifier, EnsembleClassifier) or (record is not None and record.is_ensemble)
        if self.method in BY_LAYER:
            saliency = None if has_members else self._by_layer(image, target)
            if saliency is not None:
                return saliency
            if self.method != "auto":
                why = "looks at one layer, and each member of" if has_members else "no layer of"
                what = "has its own" if has_members else "keeps the places of the image"
                raise InputError(
                    f"--explain-method {self.method}: {why} {self.classifier.name} {what}; use auto, "
                    "integrated-gradients or occlusion"
                )
        by_image = self._occlusion if self.method == "occlusion" else self._integrated
        return _saliency(by_image(image, target), image, by_image.__name__)

    def _by_layer(self, image: Tensor, target: int) -> Saliency | None:
        if self.layers is None:
            self.layers = tuple(layers_with_places(self.classifier.module, image))
        for last in reversed(self.layers):
            method = self.method if self.method != "auto" else AUTO[last.tokens]
            if method == "grad-cam" and last.tokens:  # its means are over the places of maps
                continue
            layer = self._first_like(last) if method == "layer-integrated-gradients" else last
            heat = self._attributed(method, layer, image, target)
            # a ViT reads its class token: after the last attention nothing depends on the other tokens
            if heat is not None and heat.amax() > 0:
                on = f"{layer.name} ({'tokens' if layer.tokens else 'map'} {layer.rows}x{layer.columns})"
                return _saliency(heat, image, method, on)
        return None

    def _first_like(self, last: Layer) -> Layer:
        kind = (last.tokens, last.rows, last.columns)
        return next(x for x in self.layers or () if (x.tokens, x.rows, x.columns) == kind)

    def _attributed(self, method: str, layer: Layer, image: Tensor, target: int) -> Tensor | None:
        """(1, rows, columns), or None where the class does not depend on the layer."""
        from captum.attr import LayerGradCam, LayerGradientXActivation, LayerIntegratedGradients

        model, options = self.classifier.module, {}
        make = LayerGradCam if method == "grad-cam" else LayerGradientXActivation
        if method == "layer-integrated-gradients":
            make, options = LayerIntegratedGradients, {"n_steps": STEPS, "internal_batch_size": STEPS}
        try:
            with torch.enable_grad(), ignoring():
                heat = make(model, layer.module).attribute(image.clone().requires_grad_(), target=target, **options)
        except RuntimeError as error:
            if "unused" not in str(error) and "does not require grad" not in str(error):
                raise
            return None
        return layer.grid(heat.detach()) if isinstance(heat, Tensor) else None

    def _integrated(self, image: Tensor, target: int) -> Tensor:
        from captum.attr import IntegratedGradients

        with torch.enable_grad():
            heat: Tensor = IntegratedGradients(self.classifier.module).attribute(
                image.clone().requires_grad_(), target=target, n_steps=STEPS, internal_batch_size=STEPS
            )
        return heat.detach().sum(1)

    def _occlusion(self, image: Tensor, target: int) -> Tensor:
        from captum.attr import Occlusion

        height, width = image.shape[-2:]
        window = (image.shape[1], max(1, height // 8), max(1, width // 8))
        stride = (image.shape[1], max(1, height // 16), max(1, width // 16))
        with torch.no_grad():
            heat: Tensor = Occlusion(self.classifier.module).attribute(
                image, window, strides=stride, target=target, perturbations_per_eval=16
            )
        return heat.sum(1)


@contextmanager
def _only_images(module: nn.Module) -> Iterator[None]:
    """Ready a model for hooks on its layers, and for gradients of images alone; afterwards it is as it was."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # such a layer would overwrite the output that is looked at
    inplace = [part for part in module.modules() if getattr(part, "inplace", False)]
    for parameter in learning:
        parameter.requires_grad_(False)
    for part in inplace:
        part.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for part in inplace:
            part.inplace = True  # type: ignore[assignment]


def _saliency(grid: Tensor, image: Tensor, method: str, layer: str = "") -> Saliency:
    """What speaks for the class, scaled to 1 and to the image's size."""
    names = {"_integrated": "integrated-gradients", "_occlusion": "occlusion"}
    size = (image.shape[-2], image.shape[-1])
    heat = F.interpolate(grid[None].float().clamp(min=0), size, mode="bilinear", align_corners=False)[0, 0]
    most = heat.amax()
    return Saliency((heat / most if most > 0 else heat).cpu(), names.get(method, method), layer)


def overlay(pixels: Images, saliency: Saliency, text: dict[str, str]) -> bytes:
    """A PNG of what the model saw with the heat over it, `text` in its metadata.

    Args:
        pixels: uint8 (3, H, W).
    """
    from matplotlib import colormaps

    height, width = pixels.shape[1:]
    factor = max(1, -(-PICTURE // min(height, width)))
    size = (width * factor, height * factor)
    seen = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).resize(size, Image.Resampling.NEAREST)
    heat = Image.fromarray(saliency.heat.numpy()).resize(size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(heat), 0, 1)
    colours = colormaps["inferno"](strength)[..., :3] * 255
    share = 0.25 + 0.5 * strength[..., None]
    mixed = np.asarray(seen.convert("L"), np.float32)[..., None] * (1 - share) + colours * share
    notes = PngInfo()
    for key, value in text.items():
        notes.add_itxt(key, value.encode("utf-8", "replace").decode())
    file = BytesIO()
    Image.fromarray(mixed.astype(np.uint8)).save(file, "PNG", pnginfo=notes)
    return file.getvalue()
