"""The document of an evaluation in its folder, beside what earlier evaluations of the same weights left there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from zoo.base.files import write_text
from zoo.base.plain_json import json_text
from zoo.evaluate.asked import PARTS
from zoo.evaluate.measurement import DOCUMENT

FILES: Final = ("predictions.csv", "predictions.parquet", "confusion.png", "reliability.png", "robustness.png")
"""What an evaluation may write beside its document."""

OF_PROBABILITIES: Final = ("calibration", "predictions.csv", "predictions.parquet", "reliability.png")
"""The parts and files that another temperature changes; which class comes first stays as it is."""

SAME: Final = ("split", "on", "tta", "tta_margin", "correct", "count", "left_out")
CLOSE: Final = 1e-4
"""How far the loss of the same weights may differ, as a fraction: another device adds in another order."""


def read_document(folder: Path) -> dict[str, Any]:
    """The document of a folder; empty where there is none, or none that can be read."""
    try:
        found = json.loads((folder / DOCUMENT).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_document(folder: Path, written: Sequence[Path], out: Mapping[str, Any]) -> list[str]:
    """Write the document of an evaluation whose other files are `written` already.

    Where the folder holds one of the same weights on the same images, the parts that were not measured again stay in
    it, and so do their files; after a calibration those that tell no probabilities. Where it was of other weights (a
    run that was trained again), those files go.

    Returns:
        The files of this evaluation.
    Raises:
        WriteError: it cannot be written.
    """
    earlier = read_document(folder)
    before = [path for path in (folder / name for name in FILES) if path not in written and path.is_file()]
    stays = _is_of_the_same(earlier, out)
    cooled = earlier.get("temperature") != out.get("temperature")
    gone = (OF_PROBABILITIES if cooled else ()) if stays else (*PARTS, "compare", *FILES)
    kept = {key: earlier[key] for key in (*PARTS, "compare") if key in earlier and key not in (*out, *gone)}
    files = [*map(str, written), str(folder / DOCUMENT)]
    listed = [*(str(path) for path in before if path.name not in gone), *files]
    write_text(folder / DOCUMENT, json_text({**out, **kept, "files": listed}, indent=2) + "\n")
    for path in before if earlier else ():
        if path.name in gone:
            path.unlink(missing_ok=True)
    return files


def _is_of_the_same(earlier: Mapping[str, Any], out: Mapping[str, Any]) -> bool:
    """Whether an earlier document is of the same weights on the same images, as far as figures can tell."""
    loss = earlier.get("loss")
    close = isinstance(loss, float) and math.isclose(loss, out["loss"], rel_tol=CLOSE)
    return close and all(earlier.get(key) == out.get(key) for key in SAME)
