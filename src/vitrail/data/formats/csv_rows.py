"""Reading of CSV tables and lists, whatever they say about images."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.core.files import read_text


def read_rows(table: Path, remedy: str) -> list[dict[str, str]]:
    """The rows of a table, at least one; names of columns and values without the spaces around them.

    Raises:
        DataError: unreadable, or without rows; the latter message ends with ``remedy``.
    """
    try:
        rows = [
            {key.strip(): (value or "").strip() for key, value in row.items() if isinstance(key, str)}
            for row in csv.DictReader(io.StringIO(read_text(table), newline=""))
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({error}); save it as comma-separated UTF-8") from error
    if not rows:
        raise DataError(f"{table} has no rows; {remedy}")
    return rows


def find_listed(root: Path, image: str) -> Path | None:
    """The file that a table beside it, or beside its folder ``images/``, calls ``image``."""
    return next((path for folder in (root / "images", root) if image and (path := folder / image).is_file()), None)


def read_lines(file: Path, form: str) -> list[str]:
    """The lines of a text file that are not empty, without the spaces around them.

    Raises:
        DataError: unreadable; the message ends with ``form``, such as "one class name a line".
    """
    try:
        lines = io.StringIO(read_text(file), newline=None)  # str.splitlines would split names at other characters too
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}); save it as UTF-8, {form}") from error
    return [line.strip() for line in lines if line.strip()]
