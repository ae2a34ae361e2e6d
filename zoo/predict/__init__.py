"""Classes of images by a trained model: what was given on the command line, decoded while the model works."""
