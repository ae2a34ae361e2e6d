"""Images as a user names them: files, folders, patterns, a list of paths, or the bytes on stdin."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import BinaryIO

from zoo.base.paths import local_path
from zoo.data.files.formats import ENDINGS
from zoo.data.files.image_files import is_image, is_visible
from zoo.data.types import Item
from zoo.errors import DataError, InputError
from zoo.evaluate.preparing import Picture, as_item, each

MAX_STDIN = 256 << 20
"""Bytes that an image on stdin may have: it must be held whole."""

BLOCK = 1 << 16
ADDRESS = re.compile(r"(https?|ftp|s3|gs|hf)://", re.IGNORECASE)


@dataclass(frozen=True)
class Given:
    """One image that was asked for: its file, or its bytes or what opens it under a name."""

    name: str
    data: Item = field(repr=False)


def several_images(images: Picture | Iterable[Picture], stdin: BinaryIO) -> Iterator[Given | DataError]:
    """The images behind all that may stand for some, one by one, in their order.

    Args:
        images: one or many of: a word, as `given_images` takes it; bytes, a PIL image or an array.
    Yields:
        An image, or what is wrong with it; what has no path is called by its number, "images[2]".
    Raises:
        InputError: something is no image at all.
    """
    for number, picture in enumerate(each(images)):
        if isinstance(picture, str):
            yield from given_images([picture], stdin)
        elif isinstance(picture, Path):
            yield from given_images([_as_path(str(picture))], stdin)
        else:
            name = str(getattr(picture, "filename", "") or f"images[{number}]")
            yield Given(name, as_item(picture, name)[0])


def listed_images(files_from: str, stdin: BinaryIO, *, null: bool = False) -> Iterator[Given | DataError]:
    """The images whose paths a file lists; "-" lists them on stdin.

    Raises:
        InputError: the list cannot be read.
    """
    with ExitStack() as opened:
        stream = stdin if files_from == "-" else opened.enter_context(_opened(files_from))
        for path in listed_paths(stream, null=null):
            yield from given_images([_as_path(path)], stdin)


def _opened(files_from: str) -> BinaryIO:
    try:
        return open(local_path(files_from), "rb")
    except OSError as error:
        raise InputError(f"--files-from {files_from}: cannot be read ({error.strerror})") from None


def _as_path(path: str) -> str:
    """The path of a file, also of one whose name means stdin."""
    return f"./{path}" if path == "-" else path


def given_images(words: Iterable[str], stdin: BinaryIO) -> Iterator[Given | DataError]:
    """The images behind words, one by one, in the order of the words and sorted within each.

    Args:
        words: a file, a folder (its images, recursively), a pattern ("**" crosses folders), or "-".
        stdin: where "-" reads the bytes of one image.
    Yields:
        An image, or what is wrong with a word.
    """
    for given in words:
        word = str(local_path(given)) if given.startswith("~") else given
        if word == "-":
            yield _from_stdin(stdin)
        elif os.path.isdir(word):
            yield from _or_nothing(_below(word), f"{word}: the folder holds no images")
        elif not (ADDRESS.match(word) or os.path.lexists(word)) and glob.has_magic(word):
            yield from _or_nothing(_matching(word), f"{word}: the pattern matches no image")
        else:
            yield _file(word)


def listed_paths(stream: BinaryIO, *, null: bool = False) -> Iterator[str]:
    """Paths of a list, one a line (`null`: each ended by a zero byte), as they come."""
    end, rest = b"\0" if null else b"\n", b""
    while block := stream.read1(BLOCK) if hasattr(stream, "read1") else stream.read(BLOCK):
        *whole, rest = (rest + block).split(end)
        yield from filter(None, (_path(line, null) for line in whole))
    if last := _path(rest, null):
        yield last


def _path(line: bytes, null: bool) -> str:
    return os.fsdecode(line if null else line.removesuffix(b"\r"))


def _from_stdin(stdin: BinaryIO) -> Given | DataError:
    data = stdin.read(MAX_STDIN + 1)
    if not data:
        return DataError("-: stdin holds no image: it is empty, or was read already")
    if len(data) > MAX_STDIN:
        return DataError(f"-: more than {MAX_STDIN:,} bytes on stdin; give the image as a file")
    return Given("-", data)


def _file(word: str) -> Given | DataError:
    if ADDRESS.match(word):
        return DataError(
            f"{word}: is an address, not a file; fetch it first: curl -L {quote(word)} | zoo predict RUN -"
        )
    try:
        mode = os.stat(word).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return DataError(f"{word}: cannot be read ({reason})")
    if not stat.S_ISREG(mode):  # a pipe or a device may never end
        return DataError(f"{word}: is no file; give - to read an image from stdin")
    return Given(word, Path(word))


def _or_nothing(images: Iterator[Given | DataError], nothing: str) -> Iterator[Given | DataError]:
    empty = True
    for one in images:
        empty = False
        yield one
    if empty:
        yield DataError(f"{nothing} ({', '.join(sorted(ENDINGS)[:5])}, ...)")


def _below(folder: str) -> Iterator[Given | DataError]:
    """Visible images below a folder, sorted; links to folders are not followed, so that nothing goes in circles."""
    problems: list[OSError] = []
    for base, folders, files in os.walk(folder, onerror=problems.append):
        folders[:] = sorted(name for name in folders if is_visible(name))
        for name in sorted(files):
            if is_visible(name) and is_image(name):
                yield _file(os.path.join(base, name))
    for problem in problems:
        yield DataError(f"{problem.filename}: cannot be listed ({problem.strerror})")


def _matching(pattern: str) -> Iterator[Given | DataError]:
    """Images that a pattern matches; a folder that it matches counts whole, unless "**" goes into it anyway."""
    for word in sorted(glob.iglob(pattern, recursive=True)):
        if os.path.isdir(word):
            yield from () if "**" in pattern else _below(word)
        elif is_image(word):
            yield _file(word)
