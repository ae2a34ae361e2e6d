"""Optimizers, their parameter groups and schedules, and averages of weights."""
