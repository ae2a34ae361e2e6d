"""The training loop. It reads top to bottom: fit, epoch, step.

Randomness has no state: the order of an epoch is a function of (seed, epoch), what a step draws
(augmentation, dropout) of (seed, epoch, step).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zoo import run
from zoo.data import Split, augment
from zoo.data.resident import Resident, generator, mix_seed, order
from zoo.evaluate import Metrics, evaluate
from zoo.train import checkpoint
from zoo.train.device import autocast
from zoo.train.events import Listener, Tick
from zoo.train.guard import Guard
from zoo.train.optim import lr_at, make_optimizer
from zoo.train.plan import Plan

AUGMENT, NOISE = 1, 2
"""Tags of a step's two streams of random numbers: augmentation, and what the model draws."""

TICK_SECONDS = 0.5
EVAL_PIXELS = 512 * 32 * 32


class Stop(Exception):
    """Raised between two steps when the run was asked to stop; carries the signal's number."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Saving(NamedTuple):
    """How often a checkpoint is written inside an epoch: by time, by steps; 0 is never."""

    seconds: float = 60.0
    steps: int = 0


@dataclass
class Position:
    """Where a run is: all of its state that is neither a tensor nor derived."""

    epoch: int = 0
    step: int = 0
    total: int = 0
    images: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_epoch: int = 0
    best_score: float = -math.inf
    stale: int = 0


class Trainer:
    """One run: `fit` trains, selects, and reads the test split once at the end."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        listener: Listener | None = None,
        stop: Callable[[], int] = lambda: 0,
        saving: Saving | None = None,
    ) -> None:
        """Prepare everything on the device.

        Args:
            folder: the run folder; it exists and holds `run.toml`.
            stop: asked before each step: a signal's number ends the run between two steps, after a
                checkpoint; -1 asks for a checkpoint alone.
            saving: how often a checkpoint is written.
        """
        self.plan, self.folder, self.stop, self.saving = plan, folder, stop, saving or Saving()
        self.listener = listener or Listener()
        recipe, self.device = plan.recipe, plan.hardware.device
        self.module = plan.build().train()
        self.optimizer = make_optimizer(self.module, recipe, self.device)
        self.average = _averaged(self.module, recipe.ema)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=plan.hardware.precision == "fp16")
        self.guard = Guard(self.module, self.optimizer, recipe, self.device)
        self.data = self._resident(plan.train)
        self.batch = min(recipe.batch_size, len(plan.train))
        self.steps = math.ceil(len(plan.train) / self.batch)
        self.total = min(recipe.epochs * self.steps, plan.record.max_steps or sys.maxsize)
        self.augment = make_augment(plan.record, self.device)
        self.at = Position()
        self.sums = torch.zeros(2, device=self.device)  # loss and hits of the epoch so far
        self.best: dict[str, Tensor] = {}
        self.best_file: str | None = None  # where checkpoints keep `best`; None: not written yet
        self.rows: list[dict[str, Any]] = []
        self.saved_at = time.monotonic()

    # ---- the loop --------------------------------------------------------------------------

    def fit(self) -> dict[str, Any]:
        """Train to the end, or until stopped; then select, test and write the result.

        Returns:
            What `result.json` holds.
        Raises:
            Stop: asked to; the best weights so far are written.
            TrainingError: a loss or gradients that are not finite.
        """
        parameters = sum(p.numel() for p in self.module.parameters())
        self.listener.start(self.plan, parameters)
        run.rewrite_metrics(self.folder, self.rows)
        self.started = time.perf_counter() - self.at.seconds
        try:
            while self.at.total < self.total and not self._patience_is_over():
                self._train_epoch()
                self._end_epoch()
        except Stop:
            self.save()
            raise
        self.save()
        result = self._result(parameters)
        run.draw_curves(self.folder)
        run.write_result(self.folder, result)  # last: a run with a result is finished
        self.listener.end(result)
        return result

    def _train_epoch(self) -> None:
        at = self.at
        rows = order(self.plan.record.seed, at.epoch, len(self.data)).to(self.device)
        rows = torch.cat((rows, rows[: self.steps * self.batch - len(rows)]))  # whole batches only
        batches = rows.view(self.steps, self.batch)
        last_tick = start = time.perf_counter()
        spent = at.epoch_seconds
        while at.step < self.steps and at.total < self.total:
            if (asked := self.stop()) > 0:
                raise Stop(asked)
            if asked or self._save_is_due():
                self.save()
            self._step(batches[at.step])
            at.step, at.total, at.images = at.step + 1, at.total + 1, at.images + self.batch
            now = time.perf_counter()
            at.epoch_seconds = spent + now - start
            if now - last_tick > TICK_SECONDS:
                last_tick = now
                self._tick()
        self._check_finite()  # waits for the device, so that the time below is true
        at.epoch_seconds = spent + time.perf_counter() - start
        at.step_seconds += at.epoch_seconds

    def _step(self, rows: Tensor) -> None:
        at, recipe, seed = self.at, self.plan.recipe, self.plan.record.seed
        torch.manual_seed(mix_seed(seed, at.epoch, at.step, NOISE))
        drawn = generator(seed, at.epoch, at.step, AUGMENT)
        lr = lr_at(recipe, at.total, self.total, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        total = torch.zeros_like(self.sums)
        self.guard.before()
        for part in rows.chunk(recipe.accumulate):
            images, labels = self.data.take(part)
            images, targets = self.augment(images, labels, drawn, indices=part, epoch=at.epoch)
            with self.plan.hardware.autocast():
                logits = self.module(images)
                loss = F.cross_entropy(logits.float(), targets, label_smoothing=recipe.label_smoothing)
            share = len(part) / len(rows)
            self.scaler.scale(loss * share if share < 1 else loss).backward()
            hits = (logits.detach().argmax(1) == labels).sum()
            total += torch.stack((loss.detach() * len(part), hits.float()))
        if self._may_step(total, lr, rows):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.sums += total
            if self.average is not None:
                self.average.update_parameters(self.module)
        self.optimizer.zero_grad(set_to_none=True)

    def _may_step(self, total: Tensor, lr: float, rows: Tensor) -> bool:
        if self.scaler.is_enabled():  # fp16: the scaler itself leaves out steps that overflow
            self.scaler.unscale_(self.optimizer)
            if self.plan.recipe.clip_grad_norm:
                nn.utils.clip_grad_norm_(self.module.parameters(), self.plan.recipe.clip_grad_norm)
            return True
        return self.guard.allows(total[0], self.at.total, lr, rows)

    def _end_epoch(self) -> None:
        at, clean = self.at, self.plan.record.protocol == "clean"
        loss, hits = (self.sums / (at.step * self.batch)).tolist()
        metrics = self.measure(self.plan.selecting)
        at.epoch += 1
        at.seconds = time.perf_counter() - self.started
        split = "val" if clean else "test"
        row = {
            "epoch": at.epoch,
            "step": at.total,
            "lr": lr_at(self.plan.recipe, at.total - 1, self.total, self.steps),
            "train_loss": loss,
            "train_top1": hits,
            f"{split}_loss": metrics.loss,
            f"{split}_top1": metrics.top1,
            "images_per_second": at.step * self.batch / at.epoch_seconds,
            "seconds": at.seconds,
        }
        better = self._select(metrics)
        at.step, at.epoch_seconds = 0, 0.0
        self.sums.zero_()
        self.rows.append(row)
        run.append_metrics(self.folder, row)
        self.listener.epoch(row, better)

    # ---- selection and evaluation -----------------------------------------------------------

    def _select(self, metrics: Metrics) -> bool:
        at, rule = self.at, self.plan.recipe.select
        score = {"top1": metrics.top1, "loss": -metrics.loss, "last": float(at.epoch)}[rule]
        if score <= at.best_score:
            at.stale += 1
            return False
        at.best_score, at.best_epoch, at.stale = score, at.epoch, 0
        self.best = {name: t.detach().to("cpu", copy=True) for name, t in self.chosen().state_dict().items()}
        self.best_file = None
        return True

    def _patience_is_over(self) -> bool:
        return 0 < self.plan.recipe.patience <= self.at.stale

    def chosen(self) -> nn.Module:
        """The module that is evaluated and kept: the averaged one where the recipe averages."""
        return self.module if self.average is None else self.average.module

    def measure(self, split: Split, *, exact: bool = False) -> Metrics:
        """Evaluate the chosen module; `exact`: in fp32, as recorded results are."""
        precision = "fp32" if exact else self.plan.hardware.precision
        resident = self._resident(split)
        return evaluate(
            self.chosen(),
            resident.batches(eval_batch(self.plan.record)),
            self.augment.prepare,
            autocast=lambda: autocast(self.device, precision),
        )

    def _resident(self, split: Split) -> Resident:
        return Resident(split, self.device, channels_last=self.plan.hardware.channels_last)

    def _check_finite(self) -> None:
        self.guard.check(lr_at(self.plan.recipe, max(0, self.at.total - 1), self.total, self.steps))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _tick(self) -> None:
        at = self.at
        self.guard.check(lr_at(self.plan.recipe, at.total, self.total, self.steps))
        loss, hits = (self.sums / (at.step * self.batch)).tolist()
        rate = at.step * self.batch / at.epoch_seconds
        epochs = math.ceil(self.total / self.steps)
        self.listener.tick(
            Tick(at.epoch + 1, epochs, at.step, self.steps, loss, hits, rate, at.total, int(self.total))
        )

    # ---- what is written ----------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        every = self.saving
        if every.steps and self.at.total % every.steps == 0 and self.at.total > 0:
            return True
        return bool(every.seconds) and time.monotonic() - self.saved_at > every.seconds

    def save(self) -> None:
        """Write a checkpoint, and the selected weights where they changed."""
        folder = self.folder / run.CHECKPOINTS
        self.at.seconds = time.perf_counter() - self.started
        if self.best and self.best_file is None:
            run.write_weights(self.folder, self.best, self.plan.record)
            self.best_file = checkpoint.save_best(folder, self.best)
        checkpoint.save(folder, self.at.total, self.state())
        self.saved_at = time.monotonic()

    def state(self) -> dict[str, Any]:
        """All that decides how the run goes on, but the selected weights, which have a file of their own."""
        return {
            "position": asdict(self.at),
            "module": dict(self.module.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else dict(self.average.state_dict()),
            "scaler": self.scaler.state_dict(),
            "sums": self.sums,
            "skipped_steps": self.guard.skipped,
            "configuration": run.configuration(self.plan.record),
            "best": self.best_file,
            "rows": self.rows,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.at = Position(**state["position"])
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        _match_layout(self.optimizer)
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.sums.copy_(state["sums"])
        self.guard.skipped = state["skipped_steps"]
        self.best, self.best_file = state.get("best_weights", {}), state["best"]
        self.rows = state["rows"]

    def _result(self, parameters: int) -> dict[str, Any]:
        record, at = self.plan.record, self.at
        self.chosen().load_state_dict(self.best)
        test = self.measure(self.plan.test, exact=True)
        clean = record.protocol == "clean"
        validation = self.measure(self.plan.selecting, exact=True) if clean else None
        return {
            "format": run.FORMAT,
            "model": record.model,
            "recipe": record.recipe,
            "dataset": record.data.spec,
            "fingerprint": record.data.fingerprint,
            "protocol": record.protocol,
            "selection": {
                "rule": record.settings.select,
                "split": "validation" if clean else "test",
                "epoch": at.best_epoch,
            },
            "seed": record.seed,
            "parameters": parameters,
            "test": test.as_dict(),
            "validation": validation.as_dict() if validation else None,
            "train": {
                "epochs": at.epoch,
                "steps": at.total,
                "images": at.images,
                "skipped_steps": self.guard.skipped,
                "seconds": at.seconds,
                "images_per_second": at.images / at.step_seconds,
            },
            "device": record.device,
            "precision": record.precision,
            "environment": record.environment,
        }


def eval_batch(record: run.RunRecord) -> int:
    """How many images one batch of an evaluation has: 512 at 32x32, fewer where they are larger."""
    return max(64, min(512, EVAL_PIXELS // (record.sizes.height * record.sizes.width)))


def make_augment(record: run.RunRecord, device: torch.device) -> augment.Augment:
    """The recipe's augmentation for the images of a run."""
    sizes, data = record.sizes, record.data
    return augment.build(
        record.settings.augment,
        data.mean,
        data.std,
        record.settings.normalize,
        size=(sizes.height, sizes.width),
        num_classes=sizes.num_classes,
        device=device,
    )


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give restored moments the memory layout of their parameters, as they had when they were made."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _averaged(module: nn.Module, decay: float) -> AveragedModel | None:
    if decay == 0:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
