"""A training in words: what every display of one says, whether on a terminal or in a notebook."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zoo.base.headline import headline
from zoo.base.text import duration, plural
from zoo.catalogue.recipe import SELECTED_BY

if TYPE_CHECKING:
    from zoo.train.events import Tick
    from zoo.train.plan import Plan


NAMED = MappingProxyType({"balanced-top1": "balanced top-1", "macro-f1": "macro F1"})
"""What people read of the rules by which an epoch is selected for another metric than those that are always shown."""


def summary(plan: Plan, parameters: int) -> str:
    """Four lines: the model, the images, those of each class, and the settings."""
    record, data = plan.record, plan.record.data
    sizes = record.sizes
    counts = f"{data.train:,} train + {data.validation:,} validation" if data.validation else f"{data.train:,} train"
    layout = "channels-last" if record.channels_last else "contiguous"
    return (
        f"{record.model}: {parameters:,} parameters, {sizes.height}x{sizes.width}, "
        f"{plural(sizes.num_classes, 'class')}\n"
        f"{data.spec}: {counts} + {plural(data.test, 'test image')}\n"
        f"training images per class: {plan.images_per_class}\n"
        f"recipe {record.recipe}, seed {record.seed}, {record.protocol} protocol, "
        f"{record.device} {record.precision} {layout}"
    )


def selecting(row: dict[str, Any]) -> str:
    """The split that the epochs of a run are measured on: "val", or "test" by the protocol `paper`."""
    return "val" if "val_loss" in row else "test"


def epoch_line(row: dict[str, Any], epochs: int, best: bool, rule: str = "top1") -> str:
    """One epoch in one line, with the metric that `rule` selects by."""
    split, figure = selecting(row), headline(row)
    share = row.get(f"{split}_{figure.key}")
    right = "" if share is None else f"{split} {figure.name} {share:7.2%}  "
    by = f"{split} {NAMED[rule]} {row[f'{split}_{SELECTED_BY[rule]}']:7.2%}  " if rule in NAMED else ""
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  loss {row['train_loss']:.4f}  "
        f"{split} loss {row[f'{split}_loss']:.4f}  {right}{by}"
        f"{row['images_per_second']:,.0f} img/s{'  *' if best else ''}"
    )


def best_note(row: dict[str, Any], rule: str) -> str:
    """The best epoch so far, by the rule that selects it: "best 92.1% (epoch 3)"."""
    split = selecting(row)
    if rule == "loss":
        return f"lowest loss {row[f'{split}_loss']:.4f} (epoch {row['epoch']})"
    if f"{split}_{headline(row).key}" not in row:  # without labels
        return f"{split} loss {row[f'{split}_loss']:.4f} (epoch {row['epoch']})"
    metric, named = SELECTED_BY.get(rule, headline(row).key), f"{NAMED[rule]} " if rule in NAMED else ""
    return f"best {named}{row[f'{split}_{metric}']:.1%} (epoch {row['epoch']})"


def step_note(tick: Tick) -> str:
    """What the steps of the epoch gave so far."""
    right = f"{tick.figure} {tick.top1:.1%}  " if tick.figure else ""
    return f"loss {tick.loss:.3f}  {right}lr {tick.lr:.2g}  {tick.images_per_second:,.0f} img/s"


def time_left(tick: Tick) -> str:
    """How long it has taken, and about how long it will take: "12 s, about 40 s left"."""
    if not tick.total_step:
        return duration(tick.seconds)
    left = tick.seconds / tick.total_step * (tick.total_steps - tick.total_step)
    return f"{duration(tick.seconds)}, about {duration(left)} left"


def result_line(result: dict[str, Any]) -> str:
    """What came out: the test accuracy, where there are test images, and the time."""
    test, trained = result.get("test"), result["train"]
    accuracy = f"test {headline(test).counted(test)}" if test else "finished"
    return f"{accuracy} after {trained['seconds']:.1f} s of training, {trained['images_per_second']:,.0f} img/s"
