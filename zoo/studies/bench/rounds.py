"""The overhead of the training loop: the real loop and its bare step, alternately in one process with one model."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.base.structs import Struct
from zoo.base.text import plural
from zoo.catalogue.describe import native_sizes
from zoo.catalogue.registry import find_model, load_registry
from zoo.data.batches.resident import generator
from zoo.data.load import load
from zoo.errors import InputError
from zoo.models.device import mean_seconds
from zoo.models.precision import tf32
from zoo.studies.bench.benched import WHAT
from zoo.studies.bench.gauge import Effort, spread, timed
from zoo.train.events import Listener
from zoo.train.loop import Trainer
from zoo.train.plan import Plan, resolve
from zoo.train.run_options import HowToCompile, Request

LONG = 10_000
"""Epochs of the measured run, so many that `compile = "auto"` decides as for a long run."""

TEST_IMAGES = 64
FEWEST_STEPS = 4
"""The minimum number of steps per epoch of the loop."""


class Job(Struct, kw_only=True):
    """The job of one measurement process.

    Attributes:
        dataset: the source of images; only their number and size matter here.
        image_size: side in pixels; None: that of the model's own dataset.
        seconds: time for one measurement, without warm-up. steps: calls per repeat, instead of `seconds`.
    """

    model: str
    dataset: str = "digits"
    data_dir: str | None = None
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    batch_size: int = 64
    image_size: int | None = None
    device: str = "auto"
    precision: str | None = None
    compile: HowToCompile | None = None
    what: tuple[str, ...] = WHAT
    seconds: float = 5.0
    steps: int | None = None
    repeats: int = 5

    @property
    def effort(self) -> Effort:
        """The effort for one measurement."""
        return Effort(self.seconds, self.repeats, self.steps)


def make_plan(job: Job, images: int) -> Plan:
    """The plan of a long training on `images` images, or on all if the dataset has fewer.

    Raises:
        ZooError: as `zoo.train.plan.resolve`.
    """
    registry, _, model = find_model(job.model)
    sizes = native_sizes(model, registry)
    named = {None: model.recipe, "source": model.recipe, "best": model.best or "best"}
    request = Request(
        model=job.model,
        dataset=job.dataset,
        data_dir=job.data_dir,
        recipe=named.get(job.recipe, job.recipe),  # given by name, so that the dataset does not adapt it
        settings=job.settings,
        epochs=LONG,
        batch_size=job.batch_size,
        image_size=job.image_size or max(sizes["height"], sizes["width"]),
        device=job.device,
        precision=job.precision,
        compile=job.compile,
        protocol="paper",  # no validation split, so that an epoch has exactly the requested images
        limit_train=images,
        limit_test=TEST_IMAGES,
    )
    return resolve(request)


class BareStep:
    """Forward pass, backward pass and optimizer step on one fixed batch, without the rest of the loop.

    Module, compiler, optimizer, precision, layout and loss are the trainer's; the batch is on the device and
    augmented once. There is no gathering, augmentation, check, schedule, averaging or logging.
    """

    def __init__(self, trainer: Trainer, batch: int) -> None:
        self.trainer, self.device, self.batch = trainer, trainer.device, batch
        rows = torch.arange(min(batch, len(trainer.data)), device=trainer.device)
        images, labels = trainer.data.take(rows)
        images, targets = trainer.augment(images, labels, generator(0), indices=rows)
        self.images, self.targets, self.labels = (_grown(part, batch) for part in (images, targets, labels))

    def __call__(self) -> None:
        """Take one step."""
        trainer = self.trainer
        trainer.compiler.next_step()
        with tf32(self.device, True):
            trainer.learn(self.images, self.targets, self.labels, float(len(self.labels)), 1.0, False)
        trainer.scaler.step(trainer.optimizer)
        trainer.scaler.update()
        trainer.optimizer.zero_grad(set_to_none=True)


def _grown(batch: Tensor, size: int) -> Tensor:
    """Repeat the rows up to `size`, in the same layout; fails at once if memory does not suffice."""
    if len(batch) == size:
        return batch
    grown = batch.new_empty((size, *batch.shape[1:]))
    if batch.ndim == 4 and batch.is_contiguous(memory_format=torch.channels_last):
        grown = grown.to(memory_format=torch.channels_last)
    for start in range(0, size, len(batch)):
        grown[start : start + len(batch)] = batch[: size - start]
    return grown


class Enough(Exception):
    """Raised after the last round to end the run early, since its end is not measured."""


class Rounds(Listener):
    """Runs a round of bare steps after each round of the loop.

    A round of the loop consists of whole epochs that took at least `seconds` of training time (without
    evaluation); the bare round has as many steps. The first round of both is the warm-up.

    Attributes:
        loop, bare: images per second of each round; `bare` has one more, before the first of `loop`.
    """

    def __init__(self, batch: int, rounds: int, seconds: float) -> None:
        self.batch, self.rounds, self.least = batch, rounds, seconds
        self.loop: list[float] = []
        self.bare: list[float] = []
        self.steps, self.seconds, self.done = 0, 0.0, 0
        self.step: BareStep | None = None

    def epoch(self, row: dict[str, Any], best: bool) -> None:
        """Count an epoch; at the end of a round, run the bare one."""
        steps, self.done = row["step"] - self.done, row["step"]
        self.steps += steps
        self.seconds += steps * self.batch / row["images_per_second"]
        if self.seconds >= self.least:
            self._end_round()

    def _end_round(self) -> None:
        assert self.step is not None
        if self.bare:
            self.loop.append(self.steps * self.batch / self.seconds)
        else:
            mean_seconds(self.step, 2, self.step.device)
        self.bare.append(self.batch / mean_seconds(self.step, self.steps, self.step.device))
        self.steps, self.seconds = 0, 0.0
        if len(self.loop) == self.rounds:
            raise Enough


def loop_share(job: Job) -> dict[str, Any]:
    """Images per second of the real training loop as a share of its bare step's.

    Returns:
        `images_per_second`, `bare_images_per_second` and `share` with their spreads, and the `rounds`.
    Raises:
        InputError: the dataset has fewer images than a batch. ZooError: as `make_plan`.
    """
    count = len(load(job.dataset, load_registry(), data_dir=job.data_dir).train)
    if job.batch_size > count:
        raise InputError(
            f"--batch-size {job.batch_size}: the loop is measured on {job.dataset!r}, which has only "
            f"{plural(count, 'image')}; give a larger --dataset, or leave `loop` out of --what"
        )
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        bare = BareStep(Trainer(make_plan(job, job.batch_size), Path(folder)), job.batch_size)
        pace = statistics.median(timed(bare, bare.device, Effort(repeats=3, steps=1)))
        del bare  # a second model would compete for the caches
    return share_of(loop_rounds(job, pace, count))


def loop_rounds(job: Job, pace: float, count: int) -> Rounds:
    """Run the real trainer, with rounds of bare steps between its epochs.

    Args:
        pace: seconds per step, which decides the length of an epoch. count: number of available images.
    """
    least = 0.0 if job.steps else job.seconds / job.repeats
    steps = min(job.steps or max(FEWEST_STEPS, round(least / pace)), count // job.batch_size)
    rounds = Rounds(job.batch_size, job.repeats, least)
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        trainer = Trainer(make_plan(job, steps * job.batch_size), Path(folder), rounds)
        rounds.step = BareStep(trainer, job.batch_size)
        try:
            trainer.fit()
        except Enough:
            return rounds
    raise AssertionError("the run ended before its rounds")


def share_of(rounds: Rounds) -> dict[str, Any]:
    """The loop's speed over its bare step's: each round against the mean of the bare rounds around it."""
    around = [(before + after) / 2 for before, after in zip(rounds.bare, rounds.bare[1:], strict=False)]
    shares = [loop / bare for loop, bare in zip(rounds.loop, around, strict=True)]
    return {
        "images_per_second": spread(rounds.loop),
        "bare_images_per_second": spread(rounds.bare),
        "share": spread(shares),
        "rounds": {"loop": rounds.loop, "bare": rounds.bare},
    }
