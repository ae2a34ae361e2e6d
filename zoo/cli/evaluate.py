"""`zoo eval` and `zoo predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from zoo.errors import DataError, RunError


@click.command()
@click.argument("run")
@click.option(
    "--dataset", metavar="SPEC", help="Where the same images are here, if not at the recorded place."
)
@click.option("--data-dir", type=click.Path(file_okay=False), help="Where downloaded datasets are kept.")
@click.option("--device", default=None, help="Default: the device of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(run: str, dataset: str | None, data_dir: str | None, device: str | None, as_json: bool) -> None:
    """Evaluate RUN on its test split: the recorded top-1, measured again.

    RUN is a run folder, a package, or hf://OWNER/NAME[@REVISION].

    Examples:

    \b
      zoo eval runs/hybrid-alt-1-digits-20261121-120000
      zoo eval hf://me/hybrid-digits
    """
    from zoo.hub import local_folder
    from zoo.hub.ref import is_ref
    from zoo.rerun import evaluate_run
    from zoo.run import read_record
    from zoo.verify import usable_device

    folder = local_folder(run)
    if is_ref(run) and device is None:
        device = usable_device(read_record(folder).device)
    measured, recorded = evaluate_run(folder, data_dir=data_dir, device=device, dataset=dataset)
    tta = read_record(folder).settings.tta
    out: dict[str, Any] = {"run": str(run), "split": "test", "tta": tta, **measured}
    if as_json:
        print(json.dumps(out))
    else:
        print(
            f"test top-1 {out['top1']:.4%} ({out['correct']} of {out['count']}), top-5 {out['top5']:.4%}, "
            f"loss {out['loss']:.4f}" + (f", over the views {tta}" if tta != "none" else "")
        )
    if recorded is None:
        print("the run was not finished: no result is recorded to compare with", file=sys.stderr)
    elif recorded["correct"] != measured["correct"] or recorded["count"] != measured["count"]:
        raise RunError(
            f"{run}: result.json records {recorded['correct']} of {recorded['count']} correct, "
            f"measured {measured['correct']} of {measured['count']}"
        )
    else:
        print("the same as recorded", file=sys.stderr)


@click.command()
@click.argument("run")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-k", "--top", type=click.IntRange(min=1), default=3, show_default=True, help="Classes shown.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(run: str, images: tuple[Path, ...], top: int, device: str, as_json: bool) -> None:
    """Print the top classes of each IMAGE by the model of RUN.

    RUN is a run folder, a package, or hf://OWNER/NAME[@REVISION].

    Examples:

    \b
      zoo predict runs/resnet18-cifar10-20261121-120000 cat.jpg dog.png
      zoo predict hf://me/hybrid-digits digit.png
    """
    from zoo.cli.table import clean
    from zoo.hub import local_folder
    from zoo.rerun import predict_images

    failed = 0
    for path, found in predict_images(local_folder(run), images, top=top, device=device):
        if isinstance(found, DataError):
            failed += 1
            print(f"error: {found}", file=sys.stderr)
        elif as_json:
            print(
                json.dumps({"image": str(path), "classes": [{"name": n, "probability": p} for n, p in found]})
            )
        else:
            print(f"{path}: " + ", ".join(f"{clean(name)} {p:.1%}" for name, p in found))
    if failed:
        raise DataError(f"{failed} of {len(images)} images could not be read")
