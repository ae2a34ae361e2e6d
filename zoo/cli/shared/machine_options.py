"""Options about the machine that several commands share: device, folders, checkpoints, processes at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from zoo.cli.shared.quiet import ABOUT

F = TypeVar("F", bound=Callable[..., Any])

data_dir = click.option("--data-dir", type=click.Path(file_okay=False), help="Folder for downloaded datasets.")
device = click.option(
    "--device", default="auto", show_default=True, help="Device to use: auto, cpu, cuda, cuda:N or mps."
)
device_or_cpu = click.option(
    "--device", default="cpu", show_default=True, help="Device to use: cpu, cuda, cuda:N or mps."
)

quiet = click.option("-q", "--quiet", **ABOUT)

checkpoint_seconds = click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds between checkpoints; 0: only at the end or when stopped.",
)


def at_once(jobs_help: str) -> Callable[[F], F]:
    """The options `--jobs` and `--engine` of a command that trains several runs at the same time."""
    jobs = click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help=jobs_help)
    engine = click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Where jobs run: local, or as tasks on a Ray cluster (RAY_ADDRESS, else one on this machine).",
    )
    return lambda command: jobs(engine(command))
