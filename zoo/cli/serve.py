"""`zoo serve`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from zoo.cli.shared import machine_options as options
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.table import say
from zoo.errors import InputError

if TYPE_CHECKING:
    from zoo.serve.limits import Limits


@click.command()
@click.argument("run", type=RunName())
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Anything but 127.0.0.1 lets other machines connect.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Also accept requests whose Host header is NAME, for use behind a proxy that keeps it. May be repeated.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on (0: any free port).",
)
@click.option("-k", "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Number of classes shown.")
@options.device_or_cpu
@click.option(
    "--batch-size",
    type=click.IntRange(1, 1024),
    default=16,
    show_default=True,
    help="Maximum number of images classified at once.",
)
@click.option(
    "--queue",
    type=click.IntRange(1, 10_000),
    default=64,
    show_default=True,
    help="Images that may wait; further ones are answered with 503.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1e6),
    default=100.0,
    show_default=True,
    help="Requests a second that each client may send before it is answered with 429 (0: no limit).",
)
@click.option(
    "--max-mib",
    type=click.IntRange(1, 256),
    default=10,
    show_default=True,
    help="Largest upload in MiB; a larger one is answered 413.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1, 64_000_000),
    default=32_000_000,
    show_default=True,
    help="Maximum number of pixels of an image; a larger one is answered with 413.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds within which a request must arrive; a later one is answered with 408.",
)
@click.option(
    "--grace",
    type=click.FloatRange(1, 3600),
    default=10.0,
    show_default=True,
    help="Seconds to wait after Ctrl-C for running requests to finish.",
)
def serve(
    run: str,
    host: str,
    hosts: tuple[str, ...],
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

    RUN is a run folder, a package, the name of a run below runs/, `last` for the newest one there, or
    hf://OWNER/NAME[@REVISION]. The address is printed as soon as the server accepts requests. Nothing that is
    uploaded is written to disk.

    Examples:

    \b
      zoo serve runs/resnet18-cifar10-20261121-120000
      zoo serve hf://me/hybrid-digits --port 0
      curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' URL/predict
    """
    _check_libraries()
    from zoo.serve.limits import Limits

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
    whole = _until_stopped(run, host, port, device, top, limits, hosts)
    say("stopped" if whole else "stopped; some requests were cut off")


def _check_libraries() -> None:
    """Refuse early where the extra is not installed."""
    try:
        import zoo.serve.app
        import zoo.serve.server  # noqa: F401
    except ImportError as error:
        if (error.name or "").startswith("zoo"):
            raise
        from zoo.base.install import install_line

        raise InputError(f"zoo serve needs {error.name}, which is not installed: {install_line('serve')}") from None


def _until_stopped(
    run: str, host: str, port: int, device: str, top: int, limits: Limits, hosts: tuple[str, ...]
) -> bool:
    """Serve until a signal; whether all requests under way were answered."""
    from zoo.catalogue.registry import load_registry
    from zoo.evaluate.classifier import open_classifier
    from zoo.hub.download import local_folder
    from zoo.serve.app import Service, make_app
    from zoo.serve.server import is_local, listen, url
    from zoo.serve.server import run as serve_app

    with listen(host, port) as listening:  # a port that is taken is said before the model is loaded
        registry = load_registry()
        classifier = open_classifier(local_folder(run, registry=registry), registry, device=device)
        local = is_local(listening)
        if not local:
            _warn_of(host)
        app = make_app(Service(classifier, limits, top=top, local=local, hosts=hosts))

        def started() -> None:
            say(f"serving {classifier.name}; Ctrl-C stops")
            print(url(listening), flush=True)

        return serve_app(app, listening, limits, started)


def _warn_of(host: str) -> None:
    print(
        f"warning: whoever can reach {host} can use this server: it has no login and no encryption; "
        "put a proxy with both before it, or leave out --host",
        file=sys.stderr,
    )
