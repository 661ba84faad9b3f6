"""The layout with a table: ``labels.csv`` says which image has which class.

Columns: ``image`` (path in ``images/`` or beside the table) and ``class_index`` (authoritative; classes of a name file
are numbered from 0) or ``label`` (a class name); ``name`` may name the class of an index; ``split`` (train, val, test)
is optional. Without it the table is one set to evaluate on, all of it becomes ``test``, and an index is the number of
the model's output, whether or not a row has it. Where rows are for training, the indices of those rows are the classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.formats.csv_rows import (
    IMAGE_COLUMNS,
    PART_COLUMNS,
    Rows,
    find_listed,
    has_controls,
    has_split,
    part_of_row,
    read_names,
    read_rows,
    rename_columns,
)
from vitrail.data.formats.layout import leads_inside
from vitrail.data.records import LabelledImage

NAME_FILES = ("classes.txt", "synset_words.txt")
"""One class name a line, in class order; a WordNet identifier before the name is dropped."""

LARGEST_INDEX = 999_999

COLUMNS = {
    "image": IMAGE_COLUMNS,
    "class_index": (),
    "label": ("class", "class_name"),
    "name": (),
    "split": PART_COLUMNS,
}
"""Columns, and what else they are called."""

MEANT = {"file": "image", "img": "image", "id": "image", "category": "label", "target": "label", "y": "label"}
"""Columns of other tables -> the column that they may be; the user has to decide."""

REMEDY = "it needs the columns image and class_index (or label)"


def read_labels_csv(root: Path) -> tuple[tuple[str, ...], list[LabelledImage]]:
    """Names of the classes, and the images of ``root/labels.csv`` in the order of their names.

    Raises:
        DataError: unreadable, without the needed columns, with values that are no class or no image, or with rows that
            contradict each other.
    """
    table = root / "labels.csv"
    rows = _with_columns(table, read_rows(table, REMEDY))
    parts = _parts(table, rows) if has_split(rows) else ["test"] * len(rows)
    by_index = "class_index" in rows[0][1]
    labels, classes = (_by_index if by_index else _by_name)(root, rows, parts)
    names = [_locate(root, f"{table} line {number}", row["image"]) for number, row in rows]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{table} lists {repeated[0]} more than once; keep one row for each image")
    records = [
        LabelledImage(name=name, source=root / name, part=part, label=label)
        for name, part, label in zip(names, parts, labels, strict=True)
    ]
    return classes, sorted(records, key=lambda record: record.name)


def _with_columns(table: Path, rows: Rows) -> Rows:
    """The rows under the names of :data:`COLUMNS`.

    Raises:
        DataError: a column is missing, or two may be meant.
    """
    given = list(rows[0][1])
    rows = rename_columns(table, rows, COLUMNS)
    columns = rows[0][1].keys()
    if "image" not in columns or not {"class_index", "label"} & columns:
        near = [(MEANT.get(one) or "".join(get_close_matches(one, COLUMNS, 1)), one) for one in given]
        meant = ", ".join(f"'{name}' by '{one}'" for name, one in near if name and name not in columns)
        hint = f"; did you mean {meant}?" if meant else ""
        raise DataError(f"{table} has the columns {', '.join(given)}; it needs image and class_index (or label){hint}")
    return rows


def _parts(table: Path, rows: Rows) -> list[str]:
    parts = []
    for number, row in rows:
        try:
            parts.append(part_of_row(row))
        except ValueError as error:
            raise DataError(f"{table} line {number}: {error}") from None
    return parts


def _by_index(root: Path, rows: Rows, parts: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    table = root / "labels.csv"
    numbers = [_index(table, number, row["class_index"]) for number, row in rows]
    given = _given_names(table, rows, numbers)
    listed, names = _class_names(root), given
    if listed is not None:
        _check_listed(table, rows, numbers, given, listed)
        names = dict(enumerate(listed[1]))
    if "train" not in parts:
        names = {number: names.get(number, str(number)) for number in range(max([*names, *numbers]) + 1)}
        return numbers, _distinct(names)
    _require_training(table, rows, parts, numbers)
    if listed is None:
        names = {number: given.get(number, str(number)) for number in sorted(set(numbers))}
    elif min(numbers) == 1:
        raise DataError(
            f"{table} has no row of class_index 0, which {listed[0].name} names '{names[0]}'; if class_index begins at "
            f"1, give the names in a column 'name' instead of {listed[0].name}"
        )
    index = {number: label for label, number in enumerate(names)}
    return [index[number] for number in numbers], _distinct(names)


def _index(table: Path, number: int, value: str) -> int:
    if not re.fullmatch(r"[0-9]+(\.0*)?", value):
        raise DataError(f"{table} line {number}: class_index '{value}' is not a number from 0 on")
    digits = value.partition(".")[0].lstrip("0") or "0"
    if len(digits) > len(str(LARGEST_INDEX)):
        raise DataError(f"{table} line {number}: class_index {digits:.20} is more than the limit of {LARGEST_INDEX}")
    return int(digits)


def _given_names(table: Path, rows: Rows, numbers: Sequence[int]) -> dict[int, str]:
    """Names of the indices, from the column ``name`` or else ``label``.

    Raises:
        DataError: an index has two names.
    """
    column = "name" if "name" in rows[0][1] else "label"
    names: dict[int, str] = {}
    for (line, row), number in zip(rows, numbers, strict=True):
        name = row.get(column)
        if name and has_controls(name):
            raise DataError(f"{table} line {line}: the name of class_index {number} has control characters")
        if name and names.setdefault(number, name) != name:
            raise DataError(
                f"{table} line {line}: class_index {number} is called '{name}', but '{names[number]}' before; give "
                f"each class one name"
            )
    return names


def _check_listed(
    table: Path, rows: Rows, numbers: Sequence[int], given: Mapping[int, str], listed: tuple[Path, list[str]]
) -> None:
    """An index has a name in the file of names; where the table names it too, one name contains the other."""
    file, names = listed
    for (line, _), number in zip(rows, numbers, strict=True):
        if number >= len(names):
            raise DataError(
                f"{table} line {line} has class_index {number}, but only {len(names)} classes have names in "
                f"{file.name} (the first is class 0)"
            )
        name, known = given.get(number, names[number]), names[number]
        if name.casefold() not in known.casefold() and known.casefold() not in name.casefold():
            raise DataError(
                f"{table} line {line}: class_index {number} is called '{name}', but '{known}' in {file.name} (the "
                f"first line is class 0); give each class one name"
            )


def _require_training(table: Path, rows: Rows, parts: Sequence[str], classes: Sequence[int | str]) -> None:
    """A class that is only validated or tested cannot be learnt."""
    learnt = {one for one, part in zip(classes, parts, strict=True) if part == "train"}
    unknown = {one: line for (line, _), one in zip(rows, classes, strict=True) if one not in learnt}
    if unknown:
        shown = ", ".join(f"{one} in line {line}" for one, line in list(unknown.items())[:5])
        raise DataError(
            f"{table} has classes for validation or testing that have no training images ({shown}); add such images, "
            f"or remove the rows"
        )


def _by_name(root: Path, rows: Rows, parts: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    table = root / "labels.csv"
    listed = _class_names(root)
    names = sorted({row["label"] for _, row in rows}) if listed is None else listed[1]
    known = set(names) - {""}
    for number, row in rows:
        if row["label"] not in known or has_controls(row["label"]):
            raise DataError(f"{table} line {number}: label '{row['label']}' is not one of the classes")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{listed[0] if listed else table} names '{twice[0]}' twice; use class_index to tell them apart"
        )
    if "train" in parts:
        _require_training(table, rows, parts, [row["label"] for _, row in rows])
    index = {name: label for label, name in enumerate(names)}
    return [index[row["label"]] for _, row in rows], tuple(names)


def _class_names(root: Path) -> tuple[Path, list[str]] | None:
    for file in NAME_FILES:
        path = root / file
        if path.is_file():
            return path, [_without_wnid(line) for line in read_names(path)]
    return None


def _without_wnid(line: str) -> str:
    first, _, rest = line.partition(" ")
    is_wnid = len(first) == 9 and first[0] == "n" and first[1:].isdigit()
    return rest.strip() if is_wnid and rest.strip() else line


def _distinct(names: Mapping[int, str]) -> tuple[str, ...]:
    """ImageNet has two cranes: names that occur twice get their index added."""
    counts = Counter(names.values())
    return tuple(f"{name} ({index})" if counts[name] > 1 else name for index, name in names.items())


def _locate(root: Path, where: str, image: str) -> str:
    path = find_listed(root, image)
    if path is None:
        raise DataError(
            f"{where} names the image '{image:.80}', which is neither in {root / 'images'} nor in {root}; add it"
        )
    if not leads_inside(path, root):
        raise DataError(f"{where} names {image}, which lies outside of {root}; copy it into the folder")
    return path.relative_to(root).as_posix()
