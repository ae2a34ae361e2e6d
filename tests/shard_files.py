"""Small shards for tests: tar and parquet files of the images of a folder, and a server that gives them."""

from __future__ import annotations

import io
import re
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A tar of files by their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sample(path: Path, label: str | None = None) -> list[tuple[str, bytes]]:
    """The two files of a sample: `CLASS-STEM.jpg` and `.cls`."""
    key = f"{path.parent.name}-{path.stem}"
    return [(f"{key}{path.suffix}", path.read_bytes()), (f"{key}.cls", (label or path.parent.name).encode())]


def mixed(folder: Path) -> list[Path]:
    """The images of a folder of class folders, one of each class by turns."""
    return sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda path: (path.name, path.parent.name))


def write_tars(folder: Path, out: Path, split: str, shards: int) -> None:
    """Tars `SPLIT-00000N.tar` of the images of a folder of class folders."""
    files = mixed(folder)
    for number in range(shards):
        members = (member for path in files[number::shards] for member in sample(path))
        write_tar(out / f"{split}-{number:06d}.tar", members)


def write_parquet(folder: Path, out: Path, split: str, shards: int, group: int = 20) -> None:
    """Parquet files in the Hub's layout, `group` rows in a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    files = mixed(folder)
    classes = sorted({path.parent.name for path in files})
    for number in range(shards):
        part = files[number::shards]
        cells = [{"bytes": path.read_bytes(), "path": path.name} for path in part]
        labels = [classes.index(path.parent.name) for path in part]
        name = f"{split}-{number:05d}-of-{shards:05d}.parquet"
        pq.write_table(pa.table({"image": cells, "label": labels}), out / name, row_group_size=group)


@dataclass
class Served:
    """A server of a folder.

    Attributes:
        asked: the path and the range ("" for none) of each request. failing: how many of the next requests fail.
        sent: bytes of all responses.
    """

    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    failing: int = 0
    sent: int = 0


@contextmanager
def served(folder: Path, *, ranges: bool = True, headers: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A real server on this machine, with or without ranges of bytes."""
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            state.asked.append((self.path, asked))
            path = folder / self.path.lstrip("/")
            if state.failing > 0:
                state.failing -= 1
                self._answer(503, b"busy", {})
            elif not path.is_file():
                self._answer(404, b"", {})
            else:
                self._file(path, asked if ranges else "")

        def _file(self, path: Path, asked: str) -> None:
            content = path.read_bytes()
            told = {"ETag": f'"{path.stat().st_mtime_ns}"', **(headers or {})}
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
            if part is None:
                self._answer(200, content, told)
                return
            first, last = int(part[1]), min(int(part[2]), len(content) - 1)
            told["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._answer(206, content[first : last + 1], told)

        def _answer(self, status: int, content: bytes, told: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**told, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            state.sent += len(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
