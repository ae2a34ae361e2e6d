"""Faster training steps: compiling, CUDA graphs, and memory that is not given back."""
