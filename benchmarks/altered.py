"""Top-1 of a run on altered copies of its test images: mirrored, turned upside down, transposed, gray, darker.

python benchmarks/altered.py RUN --alter original flip vertical-flip transpose

The images are the dataset's own, also where the run was tested on altered ones.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import msgspec
import numpy as np
from common import lines

from zoo import run
from zoo.data.alter import alteration
from zoo.data.arrays import Split
from zoo.data.load import find, load
from zoo.data.source import open_source
from zoo.evaluate import evaluate
from zoo.registry import load_registry
from zoo.run import DataRecord
from zoo.train.device import autocast
from zoo.train.images import make_augment
from zoo.train.plan import VALIDATION_SEED, replan


def unaltered(kept: DataRecord) -> Split:
    """All test images of a run's dataset, brought to its size, without `alter_train` and `alter_test`."""
    registry = load_registry()
    _, dataset = find(kept.spec, registry)
    path, mark, query = dataset.source.rpartition("?")
    rest = urlencode([(key, value) for key, value in parse_qsl(query) if not key.startswith("alter_")])
    source = (f"{path}?{rest}" if rest else path) if mark else dataset.source
    options = {key: value for key, value in dataset.options.items() if not key.startswith("alter_")}
    plain = msgspec.structs.replace(dataset, source=source, options=options)
    known = msgspec.structs.replace(registry, datasets={**registry.datasets, "unaltered": plain})
    data = load(
        "unaltered",
        known,
        image_size=kept.image_size,
        seed=VALIDATION_SEED,
        skip_bad=kept.skipped > 0,
        transform=kept.transform,
    )
    return data.test


def main() -> None:
    """Evaluate the run's weights once for each alteration, in fp32, and print a table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path)
    options.add_argument("--alter", nargs="+", default=["original", "flip", "vertical-flip", "transpose"])
    options.add_argument("--json", type=Path)
    chosen = options.parse_args()
    plan = replan(run.read_record(chosen.run))
    module, device = plan.build(), plan.hardware.device
    module.load_state_dict(run.read_weights(chosen.run))
    prepare = make_augment(plan.record, device, cropped=False).prepare
    test = unaltered(plan.record.data)
    found = {}
    for name in chosen.alter:
        images = np.ascontiguousarray(alteration(name)(np.asarray(test.images[:])))
        source = open_source(replace(test, images=images), device, channels_last=plan.hardware.channels_last)
        found[name] = evaluate(
            module, source.batches(500), prepare, autocast=lambda: autocast(device, "fp32")
        ).top1
    print("\n".join(lines(("test images", "top-1"), [[k, f"{v:.2%}"] for k, v in found.items()], left=1)))
    if chosen.json:
        chosen.json.write_text(json.dumps({"model": plan.record.model, "top1": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
