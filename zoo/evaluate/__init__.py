"""Judging a model beyond its accuracy: classes, calibration, paired tests, corruptions, latency.

Nothing is imported here: the processes that corrupt images must not pay for torch.
"""
