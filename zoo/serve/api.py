"""The public call of this room: `zoo.serve`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from zoo.base.checked_call import checked
from zoo.base.reporter import Reporter
from zoo.errors import InputError
from zoo.predict.api import check_within, classifier_of
from zoo.runs.api import RunLike

if TYPE_CHECKING:
    from zoo.evaluate.classifier import Classifier
    from zoo.serve.limits import Limits
    from zoo.serve.serving import Serving


@checked
def serve(
    run: RunLike | Classifier,
    *,
    host: str = "127.0.0.1",
    allow_host: str | Sequence[str] = (),
    port: int = 8000,
    top: int = 5,
    device: str = "cpu",
    batch_size: int = 16,
    queue: int = 64,
    rate: float = 100.0,
    max_mib: int = 10,
    max_pixels: int = 32_000_000,
    timeout: float = 10.0,
    grace: float = 10.0,
    block: bool = True,
    handle_signals: bool = False,
    ready: Callable[[str], None] | None = None,
    reporter: Reporter | None = None,
) -> Serving:
    """Serve a model: a page to drop images on, and POST /predict. Needs the extra "serve".

    Nothing that is uploaded is written to disk, and there is neither a login nor encryption.

    Args:
        run: a run folder, a package, a name below runs/, "last", hf://OWNER/NAME[@REVISION], weights of
            the catalogue (NAME@DATASET) or a library ("timm/NAME.TAG", "torchvision/NAME.WEIGHTS"), FILE.onnx that
            `zoo.export` wrote, a `Run`, or a loaded `Classifier`.
        host: the address to listen on; anything but 127.0.0.1 lets other machines connect.
        allow_host: more names that requests may be sent to, for use behind a proxy that keeps them.
        port: 0: any free one; the address that was taken is `url` of what is returned.
        top: classes of an answer.
        device: "cpu", "cuda", "cuda:N", "mps" or "auto"; a loaded classifier stays where it is.
        batch_size: images that are classified at once, 1 to 1024. queue: that may wait, 1 to 10,000.
        rate: requests a second of each client; 0: any.
        max_mib: of an upload, 1 to 256. max_pixels: of an image, up to 64,000,000.
        timeout: seconds within which a request must arrive. grace: for running requests, when it is stopped.
        block: return only when the server has stopped: by Ctrl-C, which is no error then. False: return as soon as
            requests are taken, and serve in a thread until `stop` is called, or the context is left.
        handle_signals: let SIGINT and SIGTERM stop the server while it blocks, and a second one at once; only in the
            main thread.
        ready: is called with the address as soon as requests are taken.
        reporter: receives what is served, and a warning where other machines can connect.
    Returns:
        The server: running, or stopped with `whole` saying whether all requests were answered.
    Raises:
        InputError: no such run, a wrong option, a port that is taken, or a library that is missing.
        RunError, PackageError, HubError, DeviceError: as `zoo.load`.

    Example:
        >>> with zoo.serve("last", port=0, block=False) as server:  # doctest: +SKIP
        ...     print(server.url)
    """
    check_libraries()
    check_within("port", port, 0, 65535)
    check_within("top", top, 1)
    if handle_signals and (not block or threading.current_thread() is not threading.main_thread()):
        raise InputError("handle_signals is for a call that blocks in the main thread; else `stop` ends the server")
    limits = _limits(batch_size, queue, rate, max_mib, max_pixels, timeout, grace)
    told = reporter or Reporter()
    hosts = (allow_host,) if isinstance(allow_host, str) else allow_host
    serving = _listening(run, host, port, device, top, limits, hosts, told)

    def started() -> None:
        told.say(f"serving {serving.name}; Ctrl-C stops")
        if ready is not None:
            ready(serving.url)

    if handle_signals:
        serving.run(started)
    else:
        _in_a_thread(serving, started, block)
    return serving


def check_libraries() -> None:
    """Refuse early where the extra is not installed.

    Raises:
        InputError: says how to install it.
    """
    try:
        import zoo.serve.app
        import zoo.serve.server  # noqa: F401
    except ImportError as error:
        if (error.name or "").startswith("zoo"):
            raise
        from zoo.base.install import install_line

        raise InputError(f"zoo serve needs {error.name}, which is not installed: {install_line('serve')}") from None


def _limits(
    batch_size: int, queue: int, rate: float, max_mib: int, max_pixels: int, timeout: float, grace: float
) -> Limits:
    from zoo.serve.limits import Limits

    check_within("batch_size", batch_size, 1, 1024)
    check_within("queue", queue, 1, 10_000)
    check_within("rate", rate, 0, 1e6)
    check_within("max_mib", max_mib, 1, 256)
    check_within("max_pixels", max_pixels, 1, 64_000_000)
    check_within("timeout", timeout, 0.1, 3600)
    check_within("grace", grace, 1, 3600)
    return Limits(
        body=max_mib << 20,
        buffered=max(128, 4 * max_mib) << 20,
        pixels=max_pixels,
        rate=rate,
        queue=queue,
        batch=batch_size,
        seconds=timeout,
        grace=grace,
    )


def _listening(
    run: RunLike | Classifier,
    host: str,
    port: int,
    device: str,
    top: int,
    limits: Limits,
    hosts: Sequence[str],
    told: Reporter,
) -> Serving:
    """The server of a run, on a port of its own, which does not answer yet."""
    from zoo.serve.app import Service, make_app
    from zoo.serve.server import is_local, listen
    from zoo.serve.serving import Serving

    with ExitStack() as closing:
        listening = closing.enter_context(listen(host, port))  # a port that is taken is said before the model is loaded
        classifier = classifier_of(run, device)
        local = is_local(listening)
        if not local:
            told.warn(
                f"whoever can reach {host} can use this server: it has no login and no encryption; "
                "put a proxy with both before it, or leave out --host"
            )
        app = make_app(Service(classifier, limits, top=top, local=local, hosts=tuple(hosts)))
        serving = Serving(classifier.name, app, listening, limits)
        closing.pop_all()  # from here on the server closes it
        return serving


def _in_a_thread(serving: Serving, started: Callable[[], None], block: bool) -> None:
    """Serve beside the caller, who is not kept from stopping it by Ctrl-C."""
    serving.start()
    try:
        started()
        if block:
            serving.wait()
    except KeyboardInterrupt:
        if not block:
            serving.stop()
            raise
        _stopped(serving)
    except BaseException:  # of `ready`
        serving.stop()
        raise


def _stopped(serving: Serving) -> None:
    """Stop after Ctrl-C; a second one ends the requests under way.

    Raises:
        KeyboardInterrupt: the second one.
    """
    try:
        serving.stop()
    except KeyboardInterrupt:
        serving.stop(at_once=True)
        raise
