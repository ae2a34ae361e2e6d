"""Probes: how well simple classifiers do on the features of models, all on the same images."""
