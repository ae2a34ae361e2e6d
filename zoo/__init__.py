"""hybrid-zoo: a plugin-based model zoo for image classification.

Each command of `zoo` is a call here: `zoo.train`, `zoo.evaluate`, `zoo.predict`, `zoo.publish`, ...; see docs/api.md.
Nothing heavy is imported before a call is used, so that `import zoo` is cheap.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from zoo.base.version import __version__
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.base.reporter import Reporter
    from zoo.base.tables import Table
    from zoo.catalogue.api import alternate, datasets, info, joint, models, new_plugin, part, plugins
    from zoo.catalogue.registry import load_registry
    from zoo.data.api import check_dataset
    from zoo.evaluate.api import Evaluation, calibrate, compare, evaluate, from_pretrained, load
    from zoo.evaluate.classifier import Classifier
    from zoo.export.api import export
    from zoo.hub.api import package, publish, pull, release, search, verify
    from zoo.models.api import create
    from zoo.predict.api import Embeddings, Prediction, embed, explain, predict
    from zoo.runs.api import Run, Runs, plot, runs
    from zoo.serve.api import serve
    from zoo.studies.api import Sweep, bench, report, reproduce, sweep
    from zoo.studies.probe.api import Probe, probe
    from zoo.train.api import resume, soup, train

HOMES = MappingProxyType(
    {
        "Classifier": "zoo.evaluate.classifier",
        "Embeddings": "zoo.predict.api",
        "Evaluation": "zoo.evaluate.api",
        "Prediction": "zoo.predict.api",
        "Probe": "zoo.studies.probe.api",
        "Reporter": "zoo.base.reporter",
        "Run": "zoo.runs.api",
        "Runs": "zoo.runs.api",
        "Sweep": "zoo.studies.api",
        "Table": "zoo.base.tables",
        "alternate": "zoo.catalogue.api",
        "bench": "zoo.studies.api",
        "calibrate": "zoo.evaluate.api",
        "check_dataset": "zoo.data.api",
        "compare": "zoo.evaluate.api",
        "create": "zoo.models.api",
        "datasets": "zoo.catalogue.api",
        "embed": "zoo.predict.api",
        "evaluate": "",
        "explain": "zoo.predict.api",
        "export": "",
        "from_pretrained": "zoo.evaluate.api",
        "info": "zoo.catalogue.api",
        "joint": "zoo.catalogue.api",
        "load": "zoo.evaluate.api",
        "load_registry": "zoo.catalogue.registry",
        "models": "",
        "new_plugin": "zoo.catalogue.api",
        "package": "zoo.hub.api",
        "part": "zoo.catalogue.api",
        "plot": "zoo.runs.api",
        "plugins": "zoo.catalogue.api",
        "predict": "",
        "probe": "zoo.studies.probe.api",
        "publish": "zoo.hub.api",
        "pull": "zoo.hub.api",
        "release": "zoo.hub.api",
        "report": "zoo.studies.api",
        "reproduce": "zoo.studies.api",
        "resume": "zoo.train.api",
        "runs": "",
        "search": "zoo.hub.api",
        "serve": "",
        "soup": "zoo.train.api",
        "sweep": "zoo.studies.api",
        "train": "",
        "verify": "zoo.hub.api",
    }
)
"""Public names and the modules that they come from; "": the package of that name, which can be called."""

__all__ = [
    "Classifier",
    "Embeddings",
    "Evaluation",
    "Prediction",
    "Probe",
    "Reporter",
    "Run",
    "Runs",
    "Sweep",
    "Table",
    "ZooError",
    "__version__",
    "alternate",
    "bench",
    "calibrate",
    "check_dataset",
    "compare",
    "create",
    "datasets",
    "embed",
    "evaluate",
    "explain",
    "export",
    "from_pretrained",
    "info",
    "joint",
    "load",
    "load_registry",
    "models",
    "new_plugin",
    "package",
    "part",
    "plot",
    "plugins",
    "predict",
    "probe",
    "publish",
    "pull",
    "release",
    "report",
    "reproduce",
    "resume",
    "runs",
    "search",
    "serve",
    "soup",
    "sweep",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    home = HOMES[name]
    return getattr(import_module(home), name) if home else import_module(f"zoo.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
