"""`zoo calibrate`."""

from __future__ import annotations

from shlex import quote

import click

import zoo
from zoo.base.plain_json import json_text
from zoo.cli.shared import machine_options as options
from zoo.cli.shared import table
from zoo.cli.shared.run_argument import RunName


@click.command()
@click.argument("run", type=RunName())
@click.option("--remove", is_flag=True, help="Take the temperature of RUN away again.")
@click.option(
    "--dataset", metavar="SPEC", help="Where the run's own dataset is on this machine, if not at the recorded path."
)
@options.data_dir
@click.option("--device", default=None, help="Device to measure on. Default: the device of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def calibrate(
    run: str, remove: bool, dataset: str | None, data_dir: str | None, device: str | None, as_json: bool
) -> None:
    """Fit a temperature on the validation images of RUN, so that its probabilities fit its accuracy.

    The temperature is kept in RUN/result.json. `zoo predict`, `zoo serve`, `zoo export` and packages divide the
    logits by it; the predicted classes stay the same. `zoo eval RUN --what calibration` shows the test images before
    and after it.

    Examples:

    \b
      zoo calibrate last
      zoo calibrate runs/cnn-10 --json
      zoo calibrate runs/cnn-10 --remove
    """
    found = zoo.calibrate(run, remove=remove, dataset=dataset, data_dir=data_dir, device=device)
    print(json_text(found.as_dict()) if as_json else found.words)
    if not remove:
        table.say(f"zoo eval {quote(table.clean(run))} --what calibration  # the test images before and after it")
