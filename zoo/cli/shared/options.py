"""Options that several commands share."""

from __future__ import annotations

import click

data_dir = click.option(
    "--data-dir", type=click.Path(file_okay=False), help="Folder for downloaded datasets."
)
device = click.option(
    "--device", default="auto", show_default=True, help="Device to use: auto, cpu, cuda, cuda:N or mps."
)
device_or_cpu = click.option(
    "--device", default="cpu", show_default=True, help="Device to use: cpu, cuda, cuda:N or mps."
)

checkpoint_seconds = click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds between checkpoints; 0: only at the end or when stopped.",
)
