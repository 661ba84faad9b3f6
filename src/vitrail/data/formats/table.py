"""What all CSV tables of images share."""

from __future__ import annotations

import csv
from pathlib import Path

from vitrail.core.errors import DataError


def read_rows(table: Path, remedy: str) -> list[dict[str, str]]:
    """The rows of a table, at least one; names of columns and values without the spaces around them.

    Raises:
        DataError: unreadable, or without rows; the latter message ends with ``remedy``.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = [
                {key.strip(): (value or "").strip() for key, value in row.items() if isinstance(key, str)}
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read ({error}); save it as comma-separated UTF-8") from error
    if not rows:
        raise DataError(f"{table} has no rows; {remedy}")
    return rows


def find_listed(root: Path, image: str) -> Path | None:
    """The file that a table beside it, or beside its folder ``images/``, calls ``image``."""
    return next((path for folder in (root / "images", root) if image and (path := folder / image).is_file()), None)
