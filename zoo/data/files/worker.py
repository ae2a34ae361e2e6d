"""A process that decodes image files into memory that it shares with the one that trains.

It imports neither torch nor a plugin. Parts of batches come in on stdin and answers go out on stdout,
each after its length in four bytes; the pixels lie in a file without a name, whose descriptor it inherits.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import warnings
from typing import BinaryIO

import msgspec
import numpy as np

from zoo.base.heap import keep_heap
from zoo.data.augment.crop import Bounds, RandomCut
from zoo.data.files.decode import PILLOWS, Rule, Scaling
from zoo.data.files.reading import Span, Stamp, decode_content, decode_file, read_span
from zoo.data.types import Images
from zoo.errors import DataError

COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from zoo.data.files.worker import serve; serve()"


class Setup(msgspec.Struct, frozen=True):
    """What a worker is told once.

    Attributes:
        memory: descriptor of the shared memory. images: how many fit into it.
    """

    memory: int
    images: int
    size: tuple[int, int]
    rule: Rule


class Cuts(msgspec.Struct, frozen=True):
    """The random crops of a part, instead of the rule: see `zoo.data.augment.crop`."""

    key: int
    rows: list[int]
    bounds: Bounds


class Part(msgspec.Struct, frozen=True):
    """Consecutive images of a batch: paths in the file system's encoding, and what was indexed of them.

    Attributes:
        spans: where images in shards are; their paths are names for messages then. contents: or their encoded bytes.
    """

    paths: list[bytes]
    stamps: list[Stamp]
    cuts: Cuts | None = None
    spans: list[Span] = []
    contents: list[bytes] = []


def decode_part(part: Part, rule: Rule, out: Images) -> None:
    """Decode into `out`, uint8 (n, H, W, 3).

    Raises:
        DataError: the first file that cannot be used.
    """
    height, width = out.shape[1:3]
    for place, path in enumerate(part.paths):
        chosen: Scaling = rule
        if part.cuts is not None:
            cuts = part.cuts
            chosen = RandomCut(cuts.key, cuts.rows[place], cuts.bounds, (height, width))
        if part.spans or part.contents:
            content = part.contents[place] if part.contents else read_span(part.spans[place])
            image = decode_content(content, os.fsdecode(path), chosen, (height, width), rule.colours)
        else:
            image = decode_file(os.fsdecode(path), part.stamps[place], chosen, (height, width), rule.colours)
        out[place] = image.transpose(1, 2, 0)


def send(pipe: BinaryIO, content: bytes) -> None:
    """Write one message."""
    pipe.write(len(content).to_bytes(4, "big") + content)
    pipe.flush()


def receive(pipe: BinaryIO) -> bytes | None:
    """Read one message; None where the other side has gone."""
    head = pipe.read(4)
    if len(head) < 4:
        return None
    content = pipe.read(int.from_bytes(head, "big"))
    return content if len(content) == int.from_bytes(head, "big") else None


def serve() -> None:
    """Answer parts until stdin ends: an empty answer where all is well, else what is wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains; it ends this one
    warnings.filterwarnings("ignore", module=PILLOWS)
    keep_heap()  # each image would fault its pages in anew: a quarter of the time
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not be taken for an answer
    content = receive(asked)
    if content is None:
        return
    setup = msgspec.msgpack.decode(content, type=Setup)
    height, width = setup.size
    memory = mmap.mmap(setup.memory, setup.images * height * width * 3)
    pixels = np.frombuffer(memory, np.uint8).reshape(setup.images, height, width, 3)
    send(answers, b"")
    decoder = msgspec.msgpack.Decoder(Part)
    try:
        while (content := receive(asked)) is not None:
            send(answers, _answer(decoder.decode(content), setup.rule, pixels))
    except BrokenPipeError:
        return


def _answer(part: Part, rule: Rule, pixels: Images) -> bytes:
    try:
        decode_part(part, rule, pixels[: len(part.paths)])
    except DataError as error:
        return str(error).encode("utf-8", "backslashreplace")
    return b""
