"""Classes of images by a trained model: what was given on the command line, decoded while the model works."""

from zoo.predict.classifier import Classifier, Found
from zoo.predict.inputs import Given, given_images, listed_paths
from zoo.predict.stream import Predicted, predict

__all__ = ["Classifier", "Found", "Given", "Predicted", "given_images", "listed_paths", "predict"]
