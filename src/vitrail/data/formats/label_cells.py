"""Which classes an image has, from the cells of a table: a list in one cell, or a cell for each class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from vitrail.core.errors import DataError
from vitrail.core.parse import LimitError, parse_json
from vitrail.data.formats.csv_rows import has_controls

YES = frozenset(("1", "1.0", "true", "yes", "y", "x"))
NO = frozenset(("0", "0.0", "false", "no", "n"))
UNSURE = frozenset(("-1", "-1.0"))
BLANK = frozenset(("", "nan", "na", "n/a", "null", "none", "?", "unknown"))

SEPARATORS = (";", "|", ",")
"""What stands between the classes of a cell; where none of them occurs, a space may."""

LISTED = re.compile(r"'([^']*)'|\"([^\"]*)\"|([^,'\"\[\]\s][^,'\"\[\]]*)")
"""An entry of a list in brackets, as Python and JSON write it."""

Labels = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Marked:
    """What the row of an image says.

    Attributes:
        has: names of its classes.
        unknown: names of classes of which it does not say whether the image has them.
    """

    has: Labels
    unknown: Labels = frozenset()


def read_lists(title: str, cells: Sequence[tuple[str, Any]], known: AbstractSet[str]) -> list[Marked]:
    """The classes in the cells of one column.

    Args:
        title: the table, for messages.
        cells: (place of the row for messages, value): a text of classes, or a list of a JSON.
        known: names of all classes, where a file names them; else empty.

    Raises:
        DataError: it is not clear what separates the classes, or an entry is no name.
    """
    texts = [(where, value) for where, value in cells if isinstance(value, str)]
    separator = _separator(title, [(where, text) for where, text in texts if not _entries(text)], known)
    return [Marked(has=_labels(where, value, separator)) for where, value in cells]


def _labels(where: str, value: Any, separator: str) -> Labels:
    if isinstance(value, str):
        found = _entries(value)
        if found is None:
            found = value.split(separator) if separator else [value]
        value = found
    names = frozenset(_name(where, one) for one in (value if isinstance(value, list) else [value]))
    return names - {""}


def _name(where: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{where}: label {value!r:.80} is neither a text nor a number")
    name = str(value).strip()
    if has_controls(name):
        raise DataError(f"{where}: label {name!r:.80} has control characters; write it without them")
    return name


def _entries(text: str) -> list[Any] | None:
    """The entries of a list in brackets, or of Label Studio's choices; None of other texts."""
    if text.startswith("{") and text.endswith("}"):
        try:
            return choices_of(parse_json(text))
        except ValueError:
            return None
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        values = parse_json(text)
    except (ValueError, LimitError):
        return ["".join(groups).strip() for groups in LISTED.findall(text[1:-1])]
    return values if isinstance(values, list) else None


def choices_of(value: Any) -> list[Any] | None:
    """The entries of ``{"choices": [...]}``, as Label Studio writes several answers; None of anything else."""
    if isinstance(value, Mapping) and value.keys() == {"choices"} and isinstance(value["choices"], list):
        return value["choices"]
    return None


def _separator(title: str, texts: Sequence[tuple[str, str]], known: AbstractSet[str]) -> str:
    """What separates the classes in all cells; "" where every cell is one class."""
    open_texts = [(where, text) for where, text in texts if text not in known]
    found = {sign: where for sign in reversed(SEPARATORS) for where, text in reversed(open_texts) if sign in text}
    if len(found) > 1:
        (first, where), (second, other) = list(found.items())[:2]
        raise DataError(
            f"{title}: classes seem to be separated by '{first}' in {where} and by '{second}' in {other}; use one of "
            f"them, or name the classes in classes.txt, one a line"
        )
    if found:
        return next(iter(found))
    spaced = {text: where for where, text in reversed(open_texts) if " " in text}
    if not spaced:
        return ""
    words = {word for text in spaced for word in text.split()}
    if known:
        return " " if words <= known else ""
    counts = [sum(word in text.split() for text in spaced) for word in words]
    if max(counts) == 1:
        return ""
    if len(spaced) > len(words):
        return " "
    text, where = next(iter(spaced.items()))
    raise DataError(
        f"{title}: it is not clear whether '{text:.80}' in {where} is one class or {len(text.split())}; write ; "
        f"between classes, or name the classes in classes.txt, one a line"
    )


def read_columns(
    title: str, headings: Mapping[str, str], rows: Sequence[tuple[str, Mapping[str, Any]]]
) -> tuple[list[str], list[Marked], list[str]]:
    """Names of the classes, what each row says of them, and the columns that are no classes.

    A column is a class if it has no other values than :data:`YES`, :data:`NO`, :data:`UNSURE` and :data:`BLANK`. Blank
    is unknown, but in a table without any :data:`NO` it means no.

    Args:
        title: the table, for messages.
        headings: column -> its heading, for all columns that may be classes.
        rows: (place of the row for messages, values by column).

    Raises:
        DataError: a column has other values beside these.
    """
    chosen, others = [], []
    for column, heading in headings.items():
        values = [(where, _plain(row.get(column))) for where, row in rows]
        marks = sum(value in YES or value in NO or value in UNSURE for _, value in values)
        odd = next(((where, value) for where, value in values if value not in YES | NO | UNSURE | BLANK), None)
        if not marks:
            others.append(heading)
        elif odd:
            raise DataError(
                f"{title}: column '{heading:.80}' has '{odd[1]:.80}' in {odd[0]}, and 0 or 1 elsewhere; a class has "
                f"1, 0 or -1 (unknown): mend it, or remove the column"
            )
        else:
            chosen.append(column)
    blank_is_no = not any(_plain(row.get(column)) in NO for _, row in rows for column in chosen)
    unknown = UNSURE if blank_is_no else UNSURE | BLANK
    marked = []
    for _, row in rows:
        values_of = {headings[column]: _plain(row.get(column)) for column in chosen}
        marked.append(
            Marked(
                has=frozenset(name for name, value in values_of.items() if value in YES),
                unknown=frozenset(name for name, value in values_of.items() if value in unknown),
            )
        )
    return [headings[column] for column in chosen], marked, others


def _plain(value: Any) -> str:
    return "" if value is None else str(value).strip().casefold()
