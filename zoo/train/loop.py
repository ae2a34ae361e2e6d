"""The training loop. It reads top to bottom: fit, epoch, step.

Randomness has no state: the order of an epoch is a function of (seed, epoch), and the random numbers of a
step (augmentation, dropout) are a function of (seed, epoch, step).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.batches.open import Batch
from zoo.data.batches.resident import generator
from zoo.data.batches.sampler import split_order
from zoo.data.seeds import mix_seed
from zoo.data.split import Split
from zoo.evaluate.multi_label import LabelPredictions, measured
from zoo.evaluate.one_pass import Figures
from zoo.evaluate.views import views
from zoo.models.device import seed_noise, synchronize
from zoo.models.precision import autocast, tf32
from zoo.runs.curves import draw_curves
from zoo.runs.folder import append_metrics, has_weights, rewrite_metrics, write_result, write_weights
from zoo.runs.images import eval_batch, make_augment
from zoo.runs.place import Place
from zoo.runs.record import CHECKPOINTS, configuration
from zoo.train import checkpoint
from zoo.train.events import Listener, Tick
from zoo.train.fit_to_images import fit_to_images
from zoo.train.loss import ImageWeights, weighed
from zoo.train.masked_images import lesson_of
from zoo.train.not_finite import Guard
from zoo.train.optim.averaging import Averaging
from zoo.train.optim.freeze import freeze
from zoo.train.optim.optimizers import make_optimizer, match_layout
from zoo.train.optim.schedule import lr_at, set_rates
from zoo.train.plan import Plan
from zoo.train.position import Position, is_extended, restored
from zoo.train.precise_bn import renew_for_evaluation
from zoo.train.processes.world import World
from zoo.train.result import epoch_row, figure_of, final_metrics, result_table
from zoo.train.selection import Selection
from zoo.train.set_loss import loss_of
from zoo.train.speed.compiled import Compiler
from zoo.train.speed.recomputed import recomputed

AUGMENT, NOISE = 1, 2
"""Seed tags of the two random streams of a step: for augmentation, and for the model."""

TICK_SECONDS = 0.5

Count = float | Tensor


class Stop(Exception):
    """Raised between two steps if a signal asked the run to stop; holds the signal's number."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Saving(NamedTuple):
    """How often checkpoints are written within an epoch: by time and by steps; 0 means never."""

    seconds: float = 60.0
    steps: int = 0


class Trainer:
    """One run: `fit` trains, selects the best epoch, and evaluates the test split once at the end."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        listener: Listener | None = None,
        stop: Callable[[], int] = lambda: 0,
        saving: Saving | None = None,
        world: World | None = None,
    ) -> None:
        """Prepare everything on the device.

        Args:
            folder: the run folder; it exists and holds `run.toml`.
            stop: called before each step: returns the number of a signal to end the run after a
                checkpoint, -1 to write only a checkpoint, or 0.
            saving: how often a checkpoint is written.
            world: the processes that train together; all of them must call every method.
        """
        self.plan, self.folder, self.stop, self.saving = plan, folder, stop, saving or Saving()
        self.place = Place(folder)
        self.listener = listener or Listener()
        recipe, self.device = plan.recipe, plan.hardware.device
        self.world = world or World()
        self.module = recomputed(freeze(self.world.build(plan).train(), recipe.freeze), recipe.checkpointing)
        self.average = Averaging(self.module, recipe)
        self.world.shard(self.module, *self.average.copies())
        self.compiler = Compiler(plan.hardware.compile, self.device)
        self.lesson = lesson_of(plan, self.module, self.world, self.compiler)
        self.forward = self.compiler(self.world.wrap(self.lesson.whole), graphs=self.world.size == 1)
        self.optimizer = self.lesson.optimizer(make_optimizer(self.module, recipe, self.device))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=plan.hardware.precision == "fp16")
        self.guard = Guard(self.module, self.optimizer, recipe, self.device)
        self.data = self.plan.source(plan.train)
        self.loss = loss_of(recipe, plan.train, plan.record.data.classes, self.device)
        self.weights = ImageWeights(plan.train, self.device)
        self.batch = min(recipe.batch_size, len(plan.train))
        self.world.check(self.batch, recipe.accumulate)
        self.steps = math.ceil(len(plan.train) / self.batch)
        self.total = min(recipe.epochs * self.steps, plan.record.max_steps or sys.maxsize)
        self.augment = make_augment(plan.record, self.device, cropped=self.data.cropped)
        change = self.augment.apply
        self.change = self.compiler.recorded(self.compiler(change)) if self.augment.compilable else change
        trained = [p for p in (*self.module.parameters(), *self.lesson.parameters()) if p.requires_grad]
        self.judges = plan.hardware.compile == "graph" and self.world.size == 1 and not self.scaler.is_enabled()
        self.rests = self.world.size == 1 and plan.hardware.compile == "off" and not recipe.clip_grad_norm
        self.finite: Tensor | None = None  # of a step that was judged where it was recorded
        self.learn = self.compiler.recorded(self._learn, trained)
        self.predict = self.compiler.whole(self.chosen(), eval_batch(plan.record))
        self.at = Position()
        self.sums = torch.zeros(2, device=self.device)  # summed loss and number of hits in this epoch
        self.selection = Selection(recipe)
        self.rows: list[dict[str, Any]] = []
        self.figure = figure_of(plan.record)
        self.saved_at, self.started = time.monotonic(), 0.0  # not started yet

    # ---- the loop --------------------------------------------------------------------------

    def fit(self) -> dict[str, Any]:
        """Train to the end, or until stopped; then select, test and write the result.

        Returns:
            What `result.json` holds.
        Raises:
            Stop: a signal asked to stop; the best weights so far are saved.
            TrainingError: the loss or the gradients are not finite.
        """
        parameters = sum(p.numel() for p in self.module.parameters())
        self.listener.start(self.plan, parameters)
        if self.rows:
            self.listener.resumed(self.rows)
        if self.world.first:
            rewrite_metrics(self.folder, self.rows)
        with tf32(self.device, True):
            self.warm_seconds = self._warm_up() if self.compiler.on or self.device.type == "cuda" else 0.0
        self.started = time.perf_counter() - self.at.seconds
        if self.at.total == 0:
            self._begin()
            if self.plan.begins_here_alone:
                self.save()  # a run that is killed at once goes on from here
        try:
            with tf32(self.device, True):
                while self.at.total < self.total and not self.selection.is_over(self.at):
                    self._train_epoch()
                    self._end_epoch()
        except Stop:
            self.save()
            raise
        self.save()
        result = self._result(parameters)
        if self.world.first:
            self.place.check()
            draw_curves(self.folder)
            write_result(self.folder, result)  # written last, because a run with a result counts as finished
        self.listener.end(result)
        return result

    def _warm_up(self) -> float:
        """Run one training batch and one evaluation batch, without any effect on the weights.

        Kernels are selected or compiled here, and memory is shown to suffice, before the run's clock starts.
        """
        start = time.perf_counter()
        buffers = [buffer.clone() for buffer in self.module.buffers()]
        rows = torch.arange(self.batch, device=self.device)
        for part in rows.chunk(self.plan.recipe.accumulate):
            taken = self.data.take(self.world.share(len(part))(part))
            self._pass(part, *taken, self._counted(rows), generator(0)).zero_()
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, before in zip(self.module.buffers(), buffers, strict=True):
            buffer.copy_(before)
        size = min(len(self.plan.selecting), eval_batch(self.plan.record))
        self.measure(self.plan.selecting.select(np.arange(size)))
        synchronize(self.device)
        return time.perf_counter() - start

    def _begin(self) -> None:
        """Work that is done once before the first step, and counts as training time."""
        start = time.perf_counter()
        if not self.plan.record.base_model:
            fit_to_images(self.module, self.data, len(self.data), self.augment.prepare, self.device)
        self.average.begin()
        self.at.step_seconds += time.perf_counter() - start

    def _train_epoch(self) -> None:
        at, plan = self.at, self.plan
        rows = split_order(plan.recipe.sampler, plan.record.seed, at.epoch, plan.train).to(self.device)
        rows = torch.cat((rows, rows[: self.steps * self.batch - len(rows)]))  # whole batches only
        batches = rows.view(self.steps, self.batch)
        delivered = self.data.steps(self.world.columns(batches, plan.recipe.accumulate), at.step, epoch=at.epoch)
        last_tick = start = time.perf_counter()
        spent = at.epoch_seconds
        while at.step < self.steps and at.total < self.total:
            request = self.world.agree(self.stop() or -self._is_time_to_save())
            if request > 0:
                raise Stop(request)
            if request or self._is_step_to_save():
                self.save()
            _, images, labels = next(delivered)
            self._step((batches[at.step], images, labels))
            at.step, at.total, at.images = at.step + 1, at.total + 1, at.images + self.batch
            now = time.perf_counter()
            at.epoch_seconds = spent + now - start
            if now - last_tick > TICK_SECONDS:
                last_tick = now
                self._tick()
        self._check_finite()  # waits for the device, so that the time below is correct
        at.epoch_seconds = spent + time.perf_counter() - start
        at.step_seconds += at.epoch_seconds

    def _step(self, batch: Batch) -> None:
        """Take one step on a batch: the sample numbers of the whole batch, and this process's images and labels."""
        rows, images, labels = batch
        at, recipe, seed = self.at, self.plan.recipe, self.plan.record.seed
        seed_noise(mix_seed(seed, at.epoch, at.step, NOISE, *self.world.apart), self.device)
        drawn = generator(seed, at.epoch, at.step, AUGMENT)
        lr = set_rates(self.optimizer.param_groups, recipe, at.total, self.total, self.steps, rest=self.rests)
        total, whole = torch.zeros_like(self.sums), self._counted(rows)
        self.guard.before()
        parts = rows.chunk(recipe.accumulate)
        sizes = [len(self.world.share(len(part))(part)) for part in parts]
        for part, inputs, classes in zip(parts, images.split(sizes), labels.split(sizes), strict=True):
            with self.world.collecting(part is parts[-1]):
                total += self._pass(part, inputs, classes, whole, drawn)
        total = self.world.sum(total)
        self.lesson.exchange(self.world)
        if self._may_step(total, lr, rows % len(self.data)):
            self.scaler.step(self.optimizer)
            self.sums += total
            self.average.update(at.total, self.total)
        else:
            at.left_out += 1
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _counted(self, rows: Tensor) -> float | Tensor:
        """What these samples count in the mean loss of their batch: see `zoo.train.loss.Loss.count`."""
        weights = self.weights.of(rows)
        known = weights or self.loss.weighted
        return self.loss.count(self.data.labels[rows % len(self.data)], *weights) if known else len(rows)

    def _pass(
        self, rows: Tensor, images: Tensor, labels: Tensor, whole: float | Tensor, drawn: torch.Generator
    ) -> Tensor:
        """Add the gradients of this process's share of the rows; returns summed loss and hits, float32 (2,).

        Args:
            whole: what the images of the whole batch count.
        """
        mine = self.world.share(len(rows))
        weights = self.weights.of(mine(rows))
        share = self.loss.count(labels, *weights) / whole * self.world.size  # gradients are averaged over the processes
        draws = self.augment.draw(len(rows), drawn, indices=rows, epoch=self.at.epoch)
        if self.plan.augment is not None:
            images, labels = self.plan.augment(images, labels, self.plan.record.sizes.num_classes)
        count = self.loss.count(labels, *weights)
        known = weights if self.loss.shares else ()  # of several classes an image, shares do not sum to 1
        images, targets = self.change(images, weighed(labels, known, self.augment), draws.of(mine))
        targets = self.lesson.targets(targets, mine, len(rows), drawn)
        self.compiler.next_step()
        sums, self.finite = self.learn(images, targets, labels, count, share, self.judges, *weights)
        return sums

    def _learn(
        self, images: Tensor, targets: Tensor, labels: Tensor, count: Count, share: Count, judge: bool, *weights: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Add the gradients of `share` times the mean loss; returns summed loss and hits, and whether all is finite.

        Args:
            count: what all images count; weights: each of them, float32 (B,). judge: whether to call `Guard.judged`.
        """
        own = weights[0] if weights else None
        with self.plan.hardware.autocast():
            loss, hits = self.lesson.judge(self.forward, self.loss, images, targets, labels, count, own)
        plain = not isinstance(share, Tensor)
        self.scaler.scale(loss if plain and share == 1 else loss * share).backward()
        part = len(labels) if plain else share * (self.batch / self.world.size)  # of the batch's mean loss
        sums = torch.stack((loss.detach() * part, hits.float()))
        return sums, self.guard.judged(sums[0]) if judge else None

    def _may_step(self, total: Tensor, lr: float, rows: Tensor) -> bool:
        if self.scaler.is_enabled():  # fp16: the scaler itself skips steps that overflow
            self.scaler.unscale_(self.optimizer)
            if self.plan.recipe.clip_grad_norm:
                nn.utils.clip_grad_norm_(self.module.parameters(), self.plan.recipe.clip_grad_norm)
            return self.guard.passes(total[0].isfinite(), total[0], self.at.total, lr, rows)
        finite = self.guard.judged(total[0]) if self.finite is None else self.finite
        return self.guard.allows(finite, total[0], self.at.total, lr, rows)

    def _end_epoch(self) -> None:
        at, means = self.at, self._means()
        renew_for_evaluation(self.chosen(), self.plan, self.augment.prepare)
        metrics = self.measure(self.plan.selecting)
        at.epoch += 1
        at.seconds = time.perf_counter() - self.started
        lr = lr_at(self.plan.recipe, at.total - 1, self.total, self.steps)
        row = epoch_row(self.plan.record, at, means, metrics, lr=lr, rate=at.step * self.batch / at.epoch_seconds)
        better = self.selection.is_better(at, metrics)
        if better:
            self.selection.keep(self.world.full(dict(self.chosen().state_dict())))
        at.step, at.left_out, at.epoch_seconds = 0, 0, 0.0
        self.sums.zero_()
        self.rows.append(row)
        if self.world.first:
            self.place.check()
            append_metrics(self.folder, row)
        self.listener.epoch(row, better and self.plan.recipe.select != "last")  # the last one is not a better one

    # ---- evaluation -----------------------------------------------------------

    def chosen(self) -> nn.Module:
        """The module that is evaluated and saved: the averaged one if the recipe averages."""
        return self.average.chosen()

    def measure(self, split: Split, *, exact: bool = False, thresholds: Tensor | None = None) -> Figures:
        """Evaluate the chosen module; `exact`: in fp32 and with the recipe's views, as for results."""
        return self.predictions(split, exact, thresholds)[0]

    def predictions(
        self, split: Split, exact: bool = True, thresholds: Tensor | None = None
    ) -> tuple[Figures, LabelPredictions | None]:
        """As `measure`, with the predictions of images that have several labels."""
        source, recipe = self.plan.source(self.world.part(split)), self.plan.recipe
        self.world.align(self.chosen())
        batches = self.world.batches(source, len(split), eval_batch(self.plan.record))
        precise = (lambda: autocast(self.device, "fp32")) if exact else self.plan.hardware.autocast
        first, prepare, total = self.world.bounds(len(split))[0], self.augment.prepare, self.world.total
        other = self.lesson.measured(
            self.chosen(), batches, first=first, prepare=prepare, autocast=precise, total=total
        )
        if other is not None:
            return other, None
        return measured(
            self.chosen(),
            batches,
            prepare,
            split.labels,
            autocast=precise,
            forward=views(self.chosen(), recipe.tta, recipe.tta_margin) if exact else self.predict,
            total=total,
            classes=self.plan.record.sizes.num_classes,
            gather=lambda rows: self.world.gathered(rows, len(split)),
            thresholds=thresholds,
        )

    def _means(self) -> list[float]:
        """Mean loss and accuracy over the steps of this epoch that were not skipped; NaN if there are none."""
        return (self.sums / ((self.at.step - self.at.left_out) * self.batch)).tolist()

    def _check_finite(self) -> None:
        self.guard.check(lr_at(self.plan.recipe, max(0, self.at.total - 1), self.total, self.steps))
        synchronize(self.device)

    def _tick(self) -> None:
        at, now = self.at, time.perf_counter() - self.started
        lr = lr_at(self.plan.recipe, at.total, self.total, self.steps)
        self.guard.check(lr)
        loss, hits = self._means()
        rate, epochs, total = at.step * self.batch / at.epoch_seconds, math.ceil(self.total / self.steps), self.total
        self.listener.tick(
            Tick(at.epoch + 1, epochs, at.step, self.steps, loss, hits, rate, at.total, total, lr, now, self.figure)
        )

    # ---- checkpoints --------------------------------------------------------------------------

    def _is_step_to_save(self) -> bool:
        return self.saving.steps > 0 and self.at.total > 0 and self.at.total % self.saving.steps == 0

    def _is_time_to_save(self) -> bool:
        return 0 < self.saving.seconds < time.monotonic() - self.saved_at

    def save(self) -> None:
        """Write a checkpoint, and the selected weights if they changed."""
        folder = self.folder / CHECKPOINTS
        if self.world.first:
            self.place.check()
        self.at.seconds = time.perf_counter() - self.started
        best = self.selection
        if best.weights and self.world.first and not (best.shown and has_weights(self.folder)):
            write_weights(self.folder, best.weights, self.plan.record)
            best.file, best.shown = checkpoint.save_best(folder, best.weights), True
        state = self.world.full(self.state())
        if self.world.first:
            checkpoint.save(folder, self.at.total, state)
        self.saved_at = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, except for the selected weights, which have their own file."""
        return {
            "position": asdict(self.at),
            "module": dict(self.module.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            **self.lesson.state(),
            "average": self.average.state(),
            "scaler": self.scaler.state_dict(),
            "sums": self.sums,
            "skipped_steps": self.guard.skipped,
            "configuration": configuration(self.plan.record),
            "epochs": self.plan.recipe.epochs,
            "best": self.selection.file,
            "rows": self.rows,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.at = restored(state, self.plan.record, self.total)
        parts = self.world.parts
        self.module.load_state_dict(parts(dict(self.module.state_dict()), state["module"]))
        self.lesson.restore(state)
        self.optimizer.load_state_dict(state["optimizer"])
        match_layout(self.optimizer)
        self.average.load(parts(self.average.state(), state["average"]))
        self.scaler.load_state_dict(state["scaler"])
        self.sums.copy_(state["sums"])
        self.guard.skipped = state["skipped_steps"]
        self.selection.restore(state)
        self.rows = state["rows"]
        if self.selection.is_over(self.at) and is_extended(state, self.plan.record):
            self.at.stale = 0

    def _result(self, parameters: int) -> dict[str, Any]:
        record, at = self.plan.record, self.at
        self.chosen().load_state_dict(self.world.parts(dict(self.chosen().state_dict()), self.selection.weights))
        test, validation, thresholds = final_metrics(self.predictions, self.plan)
        cost: dict[str, Any] = {"skipped_steps": self.guard.skipped, "warm_up_seconds": self.warm_seconds}
        return result_table(record, at, test, validation, parameters=parameters, thresholds=thresholds, **cost)
