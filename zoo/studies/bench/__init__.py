"""Benchmarks of a model on this machine: speed of training and inference, memory, overhead of the loop.

Precision, memory layout, compiler, optimizer and augmentation come from the plan of a training, and the
end-to-end speed is that of the real `Trainer`.
"""
