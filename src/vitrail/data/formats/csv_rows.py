"""Reading of text files, CSV tables and lists, whatever they say about images."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.core.files import MAX_BYTES, read_bytes
from vitrail.data.formats.layout import PART_NAMES

SEPARATORS = ",;\t|"

IMAGE_COLUMNS = ("filename", "file_name", "filepath", "file_path", "image_path", "image_name", "path")
PART_COLUMNS = ("subset", "partition")
"""What the columns ``image`` and ``split`` are called elsewhere."""

Row = dict[str, str]

Rows = list[tuple[int, Row]]
"""Lines of the file, from 1, with their values by column."""


def read_rows(table: Path, remedy: str) -> Rows:
    """The rows of a table, see :func:`read_headed_rows`."""
    return read_headed_rows(table, remedy)[1]


def read_headed_rows(table: Path, remedy: str) -> tuple[Row, Rows]:
    """Column -> its heading as the table has it; and the rows of a table, at least one, with the number of the line on
    which each ends.

    Values are separated by commas, semicolons, tabs or bars, whatever the first line has most of. Names of columns
    are in small letters, with ``_`` for spaces; names and values have no spaces around them. Empty rows are left out.

    Raises:
        DataError: unreadable, with a column twice or a row of too many values, or without rows; the latter message ends
            with ``remedy``.
    """
    text = read_text(table, "comma-separated")
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        headings = [name.strip() for name in next(reader, [])]
        columns = [re.sub(r"[\s-]+", "_", name.lower()) for name in headings]
        lines = [(reader.line_num, [value.strip() for value in values]) for values in reader]
    except csv.Error as error:
        raise DataError(
            f"{table} line {reader.line_num} cannot be read ({error}); close quotes, or save it again"
        ) from error
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise DataError(f"{table} has the column {twice[0]} twice; keep one")
    rows = []
    for number, values in lines:
        if any(values[len(columns) :]):
            raise DataError(
                f"{table} line {number} has {len(values)} values for {len(columns)} columns; put values in quotes that "
                f"contain '{separator}'"
            )
        if any(values):
            rows.append((number, dict(zip(columns, values + [""] * len(columns), strict=False))))
    if not rows:
        raise DataError(f"{table} has no rows; {remedy}")
    return dict(zip(columns, headings, strict=True)), rows


def rename_columns(table: Path, rows: Rows, columns: Mapping[str, Sequence[str]]) -> Rows:
    """The rows with the columns that are called otherwise under the names of ``columns``.

    Raises:
        DataError: two columns may be meant.
    """
    given = rows[0][1].keys()
    renamed: dict[str, str] = {}
    for name, others in columns.items():
        found = [one for one in others if one in given and name not in given]
        if len(found) > 1:
            raise DataError(f"{table} has the columns {' and '.join(found)}; call the one that is meant {name}")
        renamed |= dict.fromkeys(found, name)
    return [(number, {renamed.get(name, name): value for name, value in row.items()}) for number, row in rows]


def has_split(rows: Rows) -> bool:
    """Whether the column ``split`` has a value."""
    return any(row.get("split") for _, row in rows)


def part_of_row(row: Row) -> str:
    """The part that ``split`` says, in a table that :func:`has_split`.

    Raises:
        ValueError: empty, or no part; the message says so.
    """
    value = row["split"]
    if value.lower() not in PART_NAMES:
        reason = f"split '{value:.80}' is not one of train, val, test" if value else "split is empty, others are not"
        raise ValueError(f"{reason}; write train, val or test")
    return PART_NAMES[value.lower()]


def find_listed(root: Path, image: str) -> Path | None:
    """The file that a table beside it, or beside its folder ``images/``, calls ``image``; backslashes are slashes."""
    names = dict.fromkeys((image, image.replace("\\", "/")))
    places = (folder / name for folder in (root / "images", root) for name in names if name)
    return next((Path(os.path.normpath(path)) for path in places if os.path.isfile(path)), None)


def read_text(file: Path, form: str, limit: int = MAX_BYTES) -> str:
    """The contents of a text file in UTF-8, or in UTF-16 where it begins with a mark of that; line ends are ``\\n``.

    Raises:
        DataError: unreadable; the message ends with ``form``, such as "one class name a line".
    """
    try:
        data = read_bytes(file, limit)
        encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
        return data.decode(encoding).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read ({error}); save it as UTF-8, {form}") from error


def has_controls(name: str) -> bool:
    """Whether a name has characters that no name has, such as NUL, a line end or an escape sequence of terminals."""
    return any(ord(letter) < 32 or ord(letter) == 127 for letter in name)


def read_lines(file: Path, form: str) -> list[str]:
    """The lines of a text file that are not empty, without the spaces around them.

    Raises:
        DataError: as :func:`read_text`.
    """
    return [line.strip() for line in read_text(file, form).split("\n") if line.strip()]


def read_names(file: Path) -> list[str]:
    """Names of classes, one a line: the first line is class 0. Lines ``0 cat``, ``1 dog`` with the numbers of all
    classes say the order themselves.

    Raises:
        DataError: unreadable, with control characters, or with an empty line between others, which would move the
            classes after it.
    """
    lines = [line.strip() for line in read_text(file, "one class name a line").rstrip().split("\n")]
    if "" in lines and lines != [""]:
        raise DataError(
            f"{file} line {lines.index('') + 1} is empty; a line's number is the class, so remove or fill it"
        )
    if odd := next((number for number, line in enumerate(lines, start=1) if has_controls(line)), 0):
        raise DataError(f"{file} line {odd} has control characters; write the name without them")
    numbered = [re.fullmatch(r"([0-9]{1,6})[ :]\s*(\S.*)", line) for line in lines]
    names = {int(match[1]): match[2] for match in numbered if match is not None}
    return [names[i] for i in range(len(lines))] if set(names) == set(range(len(lines))) else [n for n in lines if n]
