"""`zoo serve`."""

from __future__ import annotations

import sys

import click

from zoo.cli.shared import options
from zoo.errors import InputError


@click.command()
@click.argument("run")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; another one lets others in.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free.")
@click.option("-k", "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes shown.")
@options.device_or_cpu
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Images at once, at most.",
)
@click.option(
    "--queue", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Waiting images, then 503."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1e6),
    default=100.0,
    show_default=True,
    help="Requests a second for each client, then 429; 0: any.",
)
@click.option(
    "--max-mib", type=click.IntRange(1, 256), default=10, show_default=True, help="Of an upload, then 413."
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1, 64_000_000),
    default=32_000_000,
    show_default=True,
    help="Of an image, then 413.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds for a request to arrive, then 408.",
)
@click.option(
    "--grace",
    type=click.FloatRange(1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds for requests under way after Ctrl-C.",
)
def serve(
    run: str,
    host: str,
    port: int,
    top: int,
    device: str,
    batch_size: int,
    queue: int,
    rate: float,
    max_mib: int,
    max_pixels: int,
    timeout: float,
    grace: float,
) -> None:
    """Serve the model of RUN: a page to drop images on, and POST /predict.

    RUN is a run folder, a package, or hf://OWNER/NAME[@REVISION]. The address is printed once requests
    are taken. Nothing that is uploaded is written to disk.

    Examples:

    \b
      zoo serve runs/resnet18-cifar10-20261121-120000
      zoo serve hf://me/hybrid-digits --port 0
      curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' URL/predict
    """
    try:
        from zoo.serve.app import Service, make_app
        from zoo.serve.limits import Limits
        from zoo.serve.server import is_local, listen, url
        from zoo.serve.server import run as serve_app
    except ImportError as error:
        if (error.name or "").startswith("zoo"):
            raise
        raise InputError(
            f"zoo serve needs {error.name}, which is not installed: pip install 'hybrid-zoo[serve]'"
        ) from None
    from zoo.catalogue.registry import load_registry
    from zoo.evaluate.classifier import open_classifier
    from zoo.hub.fetch import local_folder

    limits = Limits(
        body=max_mib << 20,
        buffered=max(128, 4 * max_mib) << 20,
        pixels=max_pixels,
        rate=rate,
        queue=queue,
        batch=batch_size,
        seconds=timeout,
        grace=grace,
    )
    with listen(host, port) as listening:  # a port that is taken is said before the model is loaded
        classifier = open_classifier(local_folder(run), load_registry(), device=device)
        local = is_local(listening)
        if not local:
            _warn_of(host)
        app = make_app(Service(classifier, limits, top=top, local=local))

        def started() -> None:
            print(f"serving {classifier.name}; Ctrl-C stops", file=sys.stderr)
            print(url(listening), flush=True)

        whole = serve_app(app, listening, limits, started)
    print("stopped" if whole else "stopped; some requests were cut off", file=sys.stderr)


def _warn_of(host: str) -> None:
    print(
        f"warning: whoever can reach {host} can use this server: it has no login and no encryption; "
        "put a proxy with both before it, or leave out --host",
        file=sys.stderr,
    )
