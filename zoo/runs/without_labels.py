"""Runs that learnt without labels: their features can be used, and their head was never trained."""

from __future__ import annotations

from shlex import quote

from zoo.errors import RunError
from zoo.runs.record import RunRecord


def refuse_without_labels(record: RunRecord | None, name: str) -> None:
    """Refuse to ask a run for classes that it has not learnt.

    Args:
        record: None, or of a run with labels: nothing is refused. name: of the run, for the message.
    Raises:
        RunError: it was trained without labels.
    """
    if record is not None and record.without_labels:
        raise RunError(
            f"{name}: was trained without labels and tells no classes apart; fine-tune it: zoo train {record.model} "
            f"--weights {quote(name)}; zoo embed and zoo probe take it as it is"
        )
