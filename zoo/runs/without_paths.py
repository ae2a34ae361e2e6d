"""A record for others: what it says of the places of files on this machine is left out."""

from __future__ import annotations

import msgspec

from zoo.data.portable import portable_spec
from zoo.runs.record import RunRecord


def portable(record: RunRecord) -> RunRecord:
    """The record without the paths of this machine."""
    data = msgspec.structs.replace(record.data, spec=portable_spec(record.data.spec))
    if data.validation_from:
        data = msgspec.structs.replace(data, validation_from=portable_spec(data.validation_from))
    own = record.own and tuple(msgspec.structs.replace(part, file="", copy="") for part in record.own)
    settings = record.settings
    if record.teacher and record.teacher.origin.startswith("sha256:"):  # a run in a folder of this machine
        settings = msgspec.structs.replace(settings, teacher=record.teacher.origin)
    return msgspec.structs.replace(record, data=data, own=own, settings=settings)
