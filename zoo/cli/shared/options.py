"""Options that mean the same in several commands."""

from __future__ import annotations

import click

data_dir = click.option(
    "--data-dir", type=click.Path(file_okay=False), help="Where downloaded datasets are kept."
)
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
device_or_cpu = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:N or mps.")

checkpoint_seconds = click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Write a checkpoint this often; 0: only at the end or when stopped.",
)
