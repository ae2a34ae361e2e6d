"""Tables as spreadsheets write them, with a first line that names the separator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.catalogue.registry import load_registry
from zoo.data.load import load
from zoo.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images of two colours, which a table calls red and blue."""
    for number in range(8):
        colour = (255, 0, 0) if number % 2 else (0, 0, 255)
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{number}, seen.png")
    return tmp_path


def rows(separator: str) -> str:
    lines = [f"path{separator}label{separator}note"]
    lines += [f'"{n}, seen.png"{separator}{("blue", "red")[n % 2]}{separator}"a;b,c|d"' for n in range(8)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("separator", [";", "|", "^", ","])
@pytest.mark.parametrize("first", ["sep={}\n", '"sep={}"\r\n', "\ufeffSEP={}\r\n"])
def test_the_separator_that_a_first_line_names_is_used(folder: Path, first: str, separator: str) -> None:
    (folder / "table.csv").write_text(first.format(separator) + rows(separator), encoding="utf-8", newline="")
    data = load(f"csv:{folder / 'table.csv'}", load_registry())
    assert data.classes == ("blue", "red")
    both = [pair for part in (data.train, data.test) for pair in zip(part.images, part.labels, strict=True)]
    assert len(both) == 8
    assert all(
        np.argmax(image.max((0, 1) if image.shape[-1] == 3 else (1, 2))) == (2, 0)[label] for image, label in both
    )


def test_rows_are_counted_as_a_spreadsheet_shows_them(folder: Path) -> None:
    text = rows(";").replace("3, seen.png", "absent.png")
    for first in ("", "sep=;\n"):
        (folder / "table.csv").write_text(first + text)
        with pytest.raises(DataError, match=r"row 5: .*absent\.png"):
            load(f"csv:{folder / 'table.csv'}", load_registry())


def test_a_column_of_that_name_is_a_column(folder: Path) -> None:
    (folder / "table.csv").write_text(rows(",").replace("note", "sep=;"))
    assert load(f"csv:{folder / 'table.csv'}", load_registry()).classes == ("blue", "red")
