"""The layout with a table: ``labels.csv`` says which image has which class.

Columns: ``image`` (path in ``images/`` or beside the table) and ``class_index`` (0-based, authoritative) or ``label``
(a class name); ``name`` may name the class of an index; ``split`` (train, val, test) is optional. Without it the table
is one set to evaluate on, and all of it becomes ``test``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.formats.csv_rows import find_listed, read_lines, read_rows
from vitrail.data.formats.layout import PART_NAMES, leads_inside
from vitrail.data.records import LabelledImage

NAME_FILES = ("classes.txt", "synset_words.txt")
"""One class name a line, in class order; a WordNet identifier before the name is dropped."""

LARGEST_INDEX = 999_999

REMEDY = "it needs the columns image and class_index (or label)"


def read_labels_csv(root: Path) -> tuple[tuple[str, ...], list[LabelledImage]]:
    """Names of the classes, and the images of ``root/labels.csv`` in the order of their names.

    Raises:
        DataError: unreadable, without the needed columns, or with values that are no class or no image.
    """
    table = root / "labels.csv"
    rows = read_rows(table, REMEDY)
    if "image" not in rows[0] or not {"class_index", "label"} & rows[0].keys():
        raise DataError(f"{table} has the columns {', '.join(rows[0])}; it needs image and class_index (or label)")
    labels, classes = _by_index(root, rows) if "class_index" in rows[0] else _by_name(root, rows)
    parts = [_part(table, row.get("split")) for row in rows]
    names = [_locate(root, table, row["image"]) for row in rows]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise DataError(f"{table} lists {repeated[0]} more than once; keep one row for each image")
    records = [
        LabelledImage(name=name, source=root / name, part=part, label=label)
        for name, part, label in zip(names, parts, labels, strict=True)
    ]
    return classes, sorted(records, key=lambda record: record.name)


def _by_index(root: Path, rows: list[dict[str, str]]) -> tuple[list[int], tuple[str, ...]]:
    labels = []
    for number, row in enumerate(rows, start=2):
        value = row["class_index"]
        if not (value.isascii() and value.isdigit()):
            raise DataError(f"{root / 'labels.csv'} line {number}: class_index '{value}' is not a number from 0 on")
        labels.append(int(value))
    if max(labels) > LARGEST_INDEX:
        raise DataError(f"{root / 'labels.csv'} has class_index {max(labels)}, more than the limit of {LARGEST_INDEX}")
    names = _class_names(root)
    if names is None:
        given = {label: row["name"] for label, row in zip(labels, rows, strict=True) if row.get("name")}
        names = [given.get(index, str(index)) for index in range(max(labels) + 1)]
    if max(labels) >= len(names):
        raise DataError(
            f"{root / 'labels.csv'} has class_index {max(labels)}, but only {len(names)} classes have names"
        )
    return labels, _distinct(names)


def _by_name(root: Path, rows: list[dict[str, str]]) -> tuple[list[int], tuple[str, ...]]:
    names = _class_names(root) or sorted({row["label"] for row in rows})
    index = {name: label for label, name in enumerate(names)}
    for number, row in enumerate(rows, start=2):
        if not row["label"] or row["label"] not in index:
            raise DataError(f"{root / 'labels.csv'} line {number}: label '{row['label']}' is not one of the classes")
    return [index[row["label"]] for row in rows], tuple(names)


def _class_names(root: Path) -> list[str] | None:
    for file in NAME_FILES:
        path = root / file
        if path.is_file():
            return [_without_wnid(line) for line in read_lines(path, "one class name a line")]
    return None


def _without_wnid(line: str) -> str:
    first, _, rest = line.partition(" ")
    is_wnid = len(first) == 9 and first[0] == "n" and first[1:].isdigit()
    return rest.strip() if is_wnid and rest.strip() else line


def _distinct(names: list[str]) -> tuple[str, ...]:
    """ImageNet has two cranes: names that occur twice get their index added."""
    counts = Counter(names)
    return tuple(f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(names))


def _part(table: Path, value: str | None) -> str:
    if not value:
        return "test"
    if value.lower() not in PART_NAMES:
        raise DataError(f"{table}: split '{value}' is not one of train, val, test")
    return PART_NAMES[value.lower()]


def _locate(root: Path, table: Path, image: str) -> str:
    path = find_listed(root, image)
    if path is None:
        raise DataError(
            f"{table} names the image '{image}', which is neither in {root / 'images'} nor in {root}; add it"
        )
    if not leads_inside(path, root):
        raise DataError(f"{table} names {image}, which lies outside of {root}; copy it into the folder")
    return path.relative_to(root).as_posix()
