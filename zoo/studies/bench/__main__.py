"""`python -m zoo.studies.bench JOB ROW`: measures the job in a file, and writes its row, or its `error`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from zoo.errors import ZooError
from zoo.studies.bench.model import measure
from zoo.studies.bench.rounds import Job


def serve(job_file: Path, row_file: Path) -> None:
    """Measure one model in this process."""
    job = msgspec.json.decode(job_file.read_bytes(), type=Job)
    try:
        row = measure(job)
    except ZooError as error:
        row = {"model": job.model, "error": str(error)}
    row_file.write_bytes(msgspec.json.encode(row))


if __name__ == "__main__":
    serve(*map(Path, sys.argv[1:3]))
