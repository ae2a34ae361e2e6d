"""Explaining one image after another, with a picture of each in a folder."""

from __future__ import annotations

from pathlib import Path

from zoo.base.files import write_bytes
from zoo.evaluate.classifier import Classifier
from zoo.predict.prediction import Explanation, Method
from zoo.predict.saliency import Explainer, overlay
from zoo.predict.stream import Predicted


class Drawer:
    """Draws what led a model to the first class of each image.

    Args:
        folder: where the pictures are written, named after their images; None: they are not.
    """

    def __init__(self, classifier: Classifier, method: Method = "auto", folder: Path | None = None) -> None:
        self.names, self.folder = classifier.class_names, folder
        self.explainer = Explainer(classifier, method)
        self.taken: set[str] = set()

    def draw(self, predicted: Predicted) -> Explanation:
        """Explain one image.

        Raises:
            InputError: the method does not suit the model. WriteError: the picture cannot be written.
        """
        target = int(predicted.probabilities.argmax())
        saliency = self.explainer.explain(predicted.pixels, target)
        told = {"class": self.names[target], "method": saliency.method, "layer": saliency.layer}
        data = overlay(predicted.pixels, saliency, {"image": predicted.name, **told})
        path = None if self.folder is None else self.folder / free_name(predicted.name, self.folder, self.taken)
        if path is not None:
            write_bytes(path, data)
        heat = saliency.heat.numpy()
        return Explanation(predicted.name, told["class"], saliency.method, saliency.layer, heat, data, path)


def free_name(name: str, folder: Path, taken: set[str]) -> str:
    """A picture's file name after its image's; images of one name are numbered, and earlier pictures are kept."""
    base = Path(name).stem[:200] if name != "-" else "stdin"
    number, chosen = 1, f"{base}.explained.png"
    while chosen in taken or (folder / chosen).exists():
        number += 1
        chosen = f"{base}-{number}.explained.png"
    taken.add(chosen)
    return chosen
