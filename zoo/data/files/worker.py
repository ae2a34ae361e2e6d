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
from zoo.data.augment.crop import HANDED, Bounds, RandomCut
from zoo.data.files.decode import PILLOWS, Rule, Scaling
from zoo.data.files.reading import Span, Stamp, decode_content, decode_file, read_span
from zoo.data.files.scaling import scale_into
from zoo.data.types import Images
from zoo.errors import DataError

COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from zoo.data.files.worker import serve; serve()"


class Setup(msgspec.Struct, frozen=True):
    """What a worker is told once.

    Attributes:
        memory: descriptor of the shared memory, see `slots`. images: how many fit into it.
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


class Answer(msgspec.Struct, frozen=True):
    """What came of a part: (height, width) of each image, or what is wrong."""

    sizes: list[tuple[int, int]] = []
    wrong: str = ""


def slots(memory: mmap.mmap | bytearray, images: int, size: tuple[int, int]) -> Images:
    """Memory for the images of a part: uint8 (images, bytes), where each row has room for the largest unscaled crop."""
    return np.frombuffer(memory, np.uint8).reshape(images, slot_bytes(size))


def slot_bytes(size: tuple[int, int]) -> int:
    """Bytes of one image's memory."""
    return HANDED * size[0] * size[1] * 3


def decode_part(part: Part, rule: Rule, size: tuple[int, int], out: Images) -> list[tuple[int, int]]:
    """Decode into the first bytes of each row of `out`, see `slots`, as (h, w, 3).

    Args:
        size: (height, width) of the results.
    Returns:
        (h, w) of each image: `size`, but for crops that another process scales.
    Raises:
        DataError: the first file that cannot be used.
    """
    sizes = []
    for place, path in enumerate(part.paths):
        chosen: Scaling = rule
        if part.cuts is not None:
            cuts = part.cuts
            chosen = RandomCut(cuts.key, cuts.rows[place], cuts.bounds, size)
        if part.spans or part.contents:
            content = part.contents[place] if part.contents else read_span(part.spans[place])
            image = decode_content(content, os.fsdecode(path), chosen, size, rule.colours)
        else:
            image = decode_file(os.fsdecode(path), part.stamps[place], chosen, size, rule.colours)
        pixels = image.transpose(1, 2, 0)
        out[place, : pixels.size].reshape(pixels.shape)[...] = pixels
        sizes.append(pixels.shape[:2])
    return sizes


def deliver(decoded: Images, sizes: list[tuple[int, int]], out: Images) -> None:
    """Copy what `decode_part` decoded into `out`, uint8 (n, H, W, 3), and scale what is not scaled yet."""
    for place, (height, width) in enumerate(sizes):
        pixels = decoded[place, : height * width * 3].reshape(height, width, 3)
        scale_into(pixels, out[place])


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
    """Answer parts until stdin ends, each by an `Answer`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains; it ends this one
    warnings.filterwarnings("ignore", module=PILLOWS)
    keep_heap()  # each image would fault its pages in anew: a quarter of the time
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not be taken for an answer
    content = receive(asked)
    if content is None:
        return
    setup = msgspec.msgpack.decode(content, type=Setup)
    memory = slots(mmap.mmap(setup.memory, 0), setup.images, setup.size)
    send(answers, b"")
    decoder = msgspec.msgpack.Decoder(Part)
    try:
        while (content := receive(asked)) is not None:
            send(answers, _answer(decoder.decode(content), setup, memory))
    except BrokenPipeError:
        return


def _answer(part: Part, setup: Setup, memory: Images) -> bytes:
    try:
        answer = Answer(decode_part(part, setup.rule, setup.size, memory))
    except DataError as error:
        answer = Answer(wrong=str(error).encode("utf-8", "backslashreplace").decode())
    return msgspec.msgpack.encode(answer)
