"""Augmentation of batches: one function for each kind of step, and their order."""
