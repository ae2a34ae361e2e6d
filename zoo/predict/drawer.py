"""Explaining one image after another, with a picture of each in a folder."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from zoo.base.files import WriteError, make_folder, write_bytes
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

    def draw(self, predicted: Predicted) -> Explanation:
        """Explain one image.

        Raises:
            InputError: the method does not suit the model. WriteError: the picture cannot be written.
        """
        target = int(predicted.probabilities.argmax())
        saliency = self.explainer.explain(predicted.pixels, target)
        told = {"class": self.names[target], "method": saliency.method, "layer": saliency.layer}
        data = overlay(predicted.pixels, saliency, {"image": predicted.name, **told})
        path = None if self.folder is None else taken_path(predicted.name, self.folder)
        if path is not None:
            try:
                write_bytes(path, data)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        heat = saliency.heat.numpy()
        return Explanation(predicted.name, told["class"], saliency.method, saliency.layer, heat, data, path)


def taken_path(name: str, folder: Path) -> Path:
    """An empty file for a picture, named after its image; images of one name are numbered, earlier pictures are kept.

    The file is there at once, so that no other process that draws into the folder takes the same name.

    Raises:
        WriteError: it cannot be made.
    """
    base = Path(name).stem[:200] if name != "-" else "stdin"
    make_folder(folder)
    for number in count(1):
        path = folder / f"{base}{f'-{number}' if number > 1 else ''}.explained.png"
        try:
            path.open("xb").close()
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error
    raise AssertionError("numbers do not end")
