"""Batches of images, on the device or streamed to it."""
