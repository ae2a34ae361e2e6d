"""How fast a model trains and infers here, what it needs, and what the loop adds to its bare step.

What decides speed (precision, memory layout, compiler, optimizer, augmentation) comes from the plan of a
training, and the end-to-end number is that of the real `Trainer`.
"""

from zoo.studies.bench.gauge import Effort, matrix_rate, spread, timed
from zoo.studies.bench.model import described, measure
from zoo.studies.bench.rounds import BareStep, Job, loop_share, make_plan

__all__ = [
    "BareStep",
    "Effort",
    "Job",
    "described",
    "loop_share",
    "make_plan",
    "matrix_rate",
    "measure",
    "spread",
    "timed",
]
