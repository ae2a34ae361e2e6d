"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from zoo.base.version import __version__

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """A registry of its own for each server, so that two in one process do not mix."""

    def __init__(self, model: str, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        labels = ["path", "method", "status"]
        self.requests = Counter(
            "zoo_requests", "Answered requests by path, method and status.", labels, registry=self.registry
        )
        self.seconds = Histogram(
            "zoo_predict_seconds",
            "Seconds from a prediction's request to its answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "zoo_batch_size", "Images that the model took at once.", buckets=SIZES, registry=self.registry
        )
        gauge = Gauge("zoo_under_way", "Images that wait for the model or are in it.", registry=self.registry)
        gauge.set_function(waiting)
        facts = Gauge("zoo_model_info", "The model that is served.", ["model", "version"], registry=self.registry)
        facts.labels(model, __version__).set(1)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)
