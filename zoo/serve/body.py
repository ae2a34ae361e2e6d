"""The image of a request: its bytes in memory, whatever the client does, and never in a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from PIL import Image, UnidentifiedImageError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from zoo.base.text import plural
from zoo.data.files.decode import opened_image
from zoo.data.files.deep_colour import upper_of
from zoo.data.files.formats import FORMATS
from zoo.data.files.heif import HEIF, is_heif, reads_heif
from zoo.data.files.orientation import upright
from zoo.data.types import Images
from zoo.errors import DataError
from zoo.evaluate.classifier import Classifier
from zoo.serve.limits import Limits, Refused

DISCARDED = 64 << 20
"""Bytes of a refused body that are read and dropped, so that the client reads the answer before it is cut off."""
DISCARD_SECONDS = 2.0
MAX_PARTS = 8
MAX_NAME = 255


@dataclass
class Buffers:
    """Bytes of bodies that are held now, of all requests together."""

    most: int
    held: int = 0

    @contextmanager
    def account(self) -> Iterator[Held]:
        """What one request holds; given back at the end."""
        held = Held(self)
        try:
            yield held
        finally:
            self.held -= held.count


@dataclass
class Held:
    """The bytes of one request."""

    buffers: Buffers
    count: int = 0

    def add(self, size: int) -> None:
        """Hold more.

        Raises:
            Refused: 503, all requests together would hold too many.
        """
        if self.buffers.held + size > self.buffers.most:
            raise Refused(503, "busy: too many uploads at once; try again", Retry_After="1")
        self.buffers.held += size
        self.count += size


async def read_body(request: Request, limits: Limits, held: Held) -> bytes:
    """All bytes of a request.

    Raises:
        Refused: 413 too many, 408 too slow, 400 the client went away in the middle, 503 no memory for them.
    """
    chunks = request.stream()
    try:
        async with asyncio.timeout(limits.seconds):
            _check_length(request, limits)
            return await _collected(chunks, limits, held)
    except TimeoutError:
        raise Refused(
            408, f"the request's body did not come within {plural(limits.seconds, 'second')}", Connection="close"
        ) from None
    except ClientDisconnect:
        raise Refused(400, "the connection ended before the request's body did", Connection="close") from None
    except Refused as refused:
        await _discard(chunks)
        refused.headers["Connection"] = "close"
        raise


def _check_length(request: Request, limits: Limits) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body:
        raise _too_large(limits)


async def _collected(chunks: AsyncIterator[bytes], limits: Limits, held: Held) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        if len(body) + len(chunk) > limits.body:
            raise _too_large(limits)
        held.add(len(chunk))
        body += chunk
    return bytes(body)


async def _discard(chunks: AsyncIterator[bytes]) -> None:
    dropped = 0
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(DISCARD_SECONDS):
            async for chunk in chunks:
                dropped += len(chunk)
                if dropped > DISCARDED:
                    return


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"the request is larger than {limits.body:,} bytes; send a smaller image")


@dataclass
class Part:
    """One part of a form."""

    disposition: bytes = b""
    data: bytearray = field(default_factory=bytearray)

    def names(self) -> tuple[str, str | None]:
        """The field's name and the file's, as the client says them."""
        _, options = parse_options_header(self.disposition)
        told = options.get(b"filename")
        name = None if told is None else told.decode("utf-8", "replace")[:MAX_NAME]
        return options.get(b"name", b"").decode("utf-8", "replace"), name


def image_bytes(content_type: str, body: bytes) -> tuple[str | None, bytes]:
    """The image in a body: a form with one file, or the image itself.

    Returns:
        (the file's name as the client says it, its bytes). The name is for showing only.
    Raises:
        Refused: 415 another type, 400 no form or none with exactly one file.
    """
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return _from_form(options.get(b"boundary", b""), body)
    if kind.startswith(b"image/") or kind in (b"application/octet-stream", b""):
        if not body:
            raise Refused(400, "the request has no body: send an image")
        return None, body
    raise Refused(
        415,
        "the content type must be image/*, application/octet-stream or multipart/form-data",
        Accept="image/*, multipart/form-data",
    )


def _from_form(boundary: bytes, body: bytes) -> tuple[str | None, bytes]:
    try:
        parts = [(*part.names(), bytes(part.data)) for part in _parts(boundary, body)]
    except FormParserError:
        raise Refused(400, "the form is damaged or cut short") from None
    files = [(name, data) for _, name, data in parts if name is not None]
    if len(files) != 1 or not files[0][1]:
        raise Refused(400, f"the form must hold one file that is not empty, and holds {len(files)}")
    return files[0]


def _parts(boundary: bytes, body: bytes) -> list[Part]:
    parts: list[Part] = []
    header, whole = [b"", b""], [False]

    def begin() -> None:
        if len(parts) == MAX_PARTS:
            raise Refused(400, f"the form has more than {MAX_PARTS} parts")
        parts.append(Part())

    def header_end() -> None:
        if header[0].lower() == b"content-disposition":
            parts[-1].disposition = header[1]
        header[:] = [b"", b""]

    def more(place: int, data: bytes, start: int, end: int) -> None:
        header[place] += data[start:end]

    def content(data: bytes, start: int, end: int) -> None:
        parts[-1].data += data[start:end]

    def ended() -> None:
        whole[0] = True

    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": lambda data, start, end: more(0, data, start, end),
            "on_header_value": lambda data, start, end: more(1, data, start, end),
            "on_header_end": header_end,
            "on_part_data": content,
            "on_end": ended,
        },
    )
    parser.write(body)
    parser.finalize()
    if not whole[0]:
        raise FormParserError("cut short")
    return parts


def decode(classifier: Classifier, data: bytes, limits: Limits) -> tuple[Images, tuple[int, int]]:
    """Decode an upload: uint8 (3, H, W) of the model's size, and (width, height) of the upright image.

    Raises:
        Refused: 415 no image of a known format, 413 too many pixels, 422 damaged.
    """
    sizes = [(0, 0)]
    # Python looks through its whole path for a library that is not imported yet: longer than decoding a small image.
    formats = (*FORMATS, HEIF) if is_heif(data[:12]) and reads_heif() else FORMATS

    def opened() -> Image.Image:
        try:
            image = opened_image(data, formats)
        except UnidentifiedImageError:
            known = (*FORMATS, HEIF) if reads_heif() else FORMATS
            raise _Told(Refused(415, f"no image in a known format; known are {', '.join(known)}")) from None
        except Image.DecompressionBombError:
            raise _Told(_too_many(limits)) from None
        if image.size[0] * image.size[1] > limits.pixels:
            raise _Told(_too_many(limits, f" of {image.size[0]}x{image.size[1]}"))
        deep = upper_of(image) is not None
        turned = upright(image)
        sizes[0] = turned.size
        # Of 16 bits a channel, the decoder reads both bytes itself.
        return opened_image(data, formats) if deep else turned

    try:
        return classifier.decode(opened, "the image"), sizes[0]
    except _Told as told:
        raise told.refused from None
    except DataError as error:
        raise Refused(422, str(error)) from None


class _Told(DataError):
    """Carries a refusal through the decoder, which lets errors of this kind pass."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


def _too_many(limits: Limits, size: str = "") -> Refused:
    return Refused(413, f"the image{size} has more than {limits.pixels:,} pixels; send a smaller one")
