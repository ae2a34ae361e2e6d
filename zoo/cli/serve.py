"""`zoo serve`."""

from __future__ import annotations

import click

import zoo
from zoo.cli.shared import machine_options as options
from zoo.cli.shared.run_argument import RunName
from zoo.cli.shared.table import say
from zoo.cli.shared.terminal import Terminal


@click.command()
@click.argument("run", type=RunName(weights=True))
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

    RUN is a run folder, a package, the name of a run below runs/, `last` for the newest one there,
    hf://OWNER/NAME[@REVISION], weights of the catalogue (NAME@DATASET) or of a library (timm/NAME.TAG,
    torchvision/NAME.WEIGHTS), or a FILE.onnx that `zoo export` wrote. The address is printed as soon as the server
    accepts requests. Nothing that is uploaded is written to disk.

    Examples:

    \b
      zoo serve runs/resnet18-cifar10-20261121-120000
      zoo serve hf://me/hybrid-digits --port 0
      curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' URL/predict
    """
    done = zoo.serve(
        run,
        host=host,
        allow_host=hosts,
        port=port,
        top=top,
        device=device,
        batch_size=batch_size,
        queue=queue,
        rate=rate,
        max_mib=max_mib,
        max_pixels=max_pixels,
        timeout=timeout,
        grace=grace,
        handle_signals=True,
        ready=lambda url: print(url, flush=True),
        reporter=Terminal(),
    )
    say("stopped" if done.whole else "stopped; some requests were cut off")
