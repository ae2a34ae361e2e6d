"""The files of ONNX Runtime Web that a page needs: from a folder that was given, or from npm's package of them.

They are no part of this library. npm is the user's own, with the user's settings: it knows where packages come from,
and compares what it fetches with the hash that is listed there.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from zoo.base.files import make_folder, write_bytes
from zoo.base.paths import cache_dir
from zoo.errors import InputError

PACKAGE: Final = "onnxruntime-web"
VERSION: Final = "1.30.0"
"""The version that the page was tested with."""

RUNTIME: Final = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The backend that runs on the CPU of every browser. Its name says "threaded", but the page asks for one thread."""

INSIDE: Final = (".", "dist", f"node_modules/{PACKAGE}/dist")
"""Where the files may lie in a folder that was given."""

MAX_RUNTIME: Final = 64 << 20
SECONDS: Final = 300


def runtime_folder(given: Path | None) -> Path:
    """The folder that holds the files `RUNTIME`.

    Args:
        given: a folder with the files, or npm's package of them; None: npm fetches it, once for this machine.
    Raises:
        InputError: the folder lacks one of the files, there is no npm, or npm cannot fetch the package.
        WriteError: the cache cannot be written.
    """
    if given is not None:
        return _inside(given)
    cached = cache_dir() / PACKAGE / VERSION
    if _missing(cached):
        _fetch(cached)
    return cached


def _missing(folder: Path) -> list[str]:
    return [name for name in RUNTIME if not (folder / name).is_file()]


def _inside(given: Path) -> Path:
    for place in INSIDE:
        if not _missing(given / place):
            return given / place
    raise InputError(
        f"--runtime {given}: has no {_missing(given)[0]}; needed are {', '.join(RUNTIME)}, "
        f"which are in the folder dist of npm's package {PACKAGE}"
    )


def _fetch(target: Path) -> None:
    """Let npm fetch the package, and keep the files that are needed."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"a Space needs {PACKAGE}, and npm, which would fetch it, is not installed; "
            f"install npm, or give a folder with {', '.join(RUNTIME)} by --runtime FOLDER"
        )
    with tempfile.TemporaryDirectory(prefix="zoo-npm-") as temporary:
        words = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", temporary, "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
            reason = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error) or type(error).__name__
        packed = next(Path(temporary).glob("*.tgz"), None)
        if reason or packed is None:
            raise InputError(
                f"npm cannot fetch {PACKAGE}@{VERSION}{f' ({reason[:120]})' if reason else ''}; "
                f"see `npm pack {PACKAGE}@{VERSION}`, or give its folder dist by --runtime FOLDER"
            )
        _unpack(packed, target)


def _unpack(packed: Path, target: Path) -> None:
    make_folder(target)
    try:
        with tarfile.open(packed) as archive:
            for name in RUNTIME:
                member = archive.getmember(f"package/dist/{name}")
                file = archive.extractfile(member) if member.size <= MAX_RUNTIME else None
                if file is None:
                    raise InputError(f"{PACKAGE}@{VERSION}: dist/{name} is not a file of a usual size")
                write_bytes(target / name, file.read())
    except (KeyError, tarfile.TarError, EOFError) as error:
        raise InputError(f"{PACKAGE}@{VERSION}: what npm fetched is damaged: {error}") from None
