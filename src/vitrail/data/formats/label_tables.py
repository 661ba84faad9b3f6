"""Images with any number of classes, from the tables that :mod:`vitrail.data.formats.label_files` finds."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vitrail.core.errors import DataError, VitrailError
from vitrail.data.check.problems import Problems
from vitrail.data.formats.csv_rows import find_listed, part_of_row, read_names
from vitrail.data.formats.label_cells import Marked, read_columns, read_lists
from vitrail.data.formats.label_files import REMEDY, LabelFile, find_label_files, read_label_file
from vitrail.data.formats.layout import PART_NAMES, image_files, leads_inside, part_of, visible_folders
from vitrail.data.pixels.decode import IMAGE_SUFFIXES
from vitrail.data.records import MultiLabelImage

NO_CLASS = frozenset(
    (
        *("", "index", "width", "height", "unnamed:_0", "annotator", "annotation_id", "lead_time"),
        *("id", "image_id", "imageid", "image_index"),
    )
)
"""Columns beside classes that tools write."""


@dataclass(frozen=True, kw_only=True)
class LabelTables:
    """What the tables of a folder say.

    Attributes:
        classes: names, in the order of the columns; those of lists in the order of ``classes.txt``, else sorted.
        records: images in the order of their names.
        columns: whether each class has a column, so that what has none is unknown.
        num_unknown: number of entries that are unknown.
    """

    classes: tuple[str, ...]
    records: list[MultiLabelImage]
    columns: bool
    num_unknown: int


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A row: its place for messages, its image, the part that it names, and what it says."""

    where: str
    name: str
    part: str
    marked: Marked


def read_label_tables(root: Path, problems: Problems) -> LabelTables:
    """The images of all tables of a folder.

    Args:
        root: the data folder.
        problems: takes rows that are wrong, and what was decided.

    Raises:
        DataError: no table, one that cannot be read, or tables that do not fit each other.
    """
    files = [read_label_file(root, file, part) for file, part in find_label_files(root)]
    if not files:
        raise DataError(f"{problems.config.path} has no table of labels; {REMEDY}")
    if len({file.listed for file in files}) > 1:
        lists, columns = (next(file.title for file in files if file.listed == kind) for kind in (True, False))
        raise DataError(f"{lists} lists the classes of an image, and {columns} has a column for each; write both alike")
    classes, marked = _lists(files, root, problems) if files[0].listed else _columns(files, problems)
    rows = _located(root, files, marked, problems)
    single = files[0].listed and all(len(one.has) < 2 for one in marked)
    merged = _merged(rows, problems, join=single)
    index = {name: label for label, name in enumerate(classes)}
    records = [
        MultiLabelImage(
            name=row.name,
            source=root / row.name,
            part=row.part,
            labels=tuple(sorted(index[one] for one in row.marked.has)),
            unknown=tuple(sorted(index[one] for one in row.marked.unknown)),
        )
        for row in sorted(merged, key=lambda one: one.name)
    ]
    unknown = sum(len(one.unknown) for one in records)
    return LabelTables(classes=classes, records=records, columns=not files[0].listed, num_unknown=unknown)


def has_several_labels(root: Path) -> bool:
    """Whether tables of a folder clearly give images several classes, or one column a class; wrong tables do not."""
    try:
        found = find_label_files(root)
        files = [read_label_file(root, file, part) for file, part in found]
        if not files or any("class_index" in file.headings for file in files):
            return False
        if not files[0].listed:
            return any(len(read_columns(one.title, _class_headings(one), one.rows)[0]) > 1 for one in files)
        cells = [(where, row["labels"]) for file in files for where, row in file.rows]
        sets = {one.has for one in read_lists("", cells, frozenset())}
        counts = Counter(name for one in sets for name in one)  # a name with a comma is no two names
        return any(len(one) > 1 and all(counts[name] > 1 for name in one) for one in sets)
    except (VitrailError, OSError):
        return False


def _class_headings(file: LabelFile) -> dict[str, str]:
    return {name: heading for name, heading in file.headings.items() if name not in NO_CLASS}


def _lists(files: Sequence[LabelFile], root: Path, problems: Problems) -> tuple[tuple[str, ...], list[Marked]]:
    """Classes and the rows of all files, from their columns of lists."""
    listing = root / "classes.txt"
    given = read_names(listing) if listing.is_file() else []
    if twice := [name for name, count in Counter(given).items() if count > 1]:
        raise DataError(f"{listing} names '{twice[0]}' twice; keep one")
    title = ", ".join(file.title for file in files)
    cells = [(f"{file.title} {where}", row["labels"]) for file in files for where, row in file.rows]
    found = read_lists(title, cells, frozenset(given))
    others = [heading for name, heading in files[0].headings.items() if name not in ("labels", *NO_CLASS)]
    problems.remark(_describe_others(files[0], others))
    names = {name for one in found for name in one.has}
    if given and names and not names & set(given) and all(name.isdecimal() for name in names):
        found = [Marked(has=frozenset(_numbered(listing, given, name) for name in one.has)) for one in found]
        names = {name for one in found for name in one.has}
    if given and (unknown := sorted(names - set(given))):
        where = next(where for (where, _), one in zip(cells, found, strict=True) if unknown[0] in one.has)
        raise DataError(f"{where} has the label '{unknown[0]:.80}', which {listing.name} does not name; add or mend it")
    return tuple(given) or tuple(sorted(names)), found


def _numbered(listing: Path, names: Sequence[str], number: str) -> str:
    if len(number) > 9 or int(number) >= len(names):
        raise DataError(f"{listing} names {len(names)} classes, and a label is {number:.20} (the first line is 0)")
    return names[int(number)]


def _columns(files: Sequence[LabelFile], problems: Problems) -> tuple[tuple[str, ...], list[Marked]]:
    """Classes and the rows of all files, from a column for each class."""
    classes: list[str] = []
    marked: list[Marked] = []
    for file in files:
        headings = _class_headings(file)
        if "class_index" in headings:
            raise DataError(f"{file.title} has class_index, one class an image; leave out --task, or name the classes")
        own, rows, others = read_columns(file.title, headings, file.rows)
        problems.remark(_describe_others(file, others))
        if not own:
            raise DataError(f"{file.title} has no class among its columns {', '.join(headings.values())}; {REMEDY}")
        if marked and set(own) != set(classes):
            odd = sorted(set(own) ^ set(classes))[0]
            lacks = file if odd in classes else files[0]
            raise DataError(
                f"{lacks.title} lacks the class '{odd}' of the other tables; give all tables the same columns"
            )
        classes = classes or own
        marked += rows
    return tuple(classes), marked


def _describe_others(file: LabelFile, columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:5]) + (", ..." if len(columns) > 5 else "")
    return f"Columns of {file.title} that are not read: {shown}" if columns else ""


def _located(root: Path, files: Sequence[LabelFile], marked: Sequence[Marked], problems: Problems) -> list[_Row]:
    """Rows with the files that they mean; a row without its file is wrong."""
    found, number, images = [], 0, _Images(root)
    for file in files:
        names = [str(row["image"] or "").strip() for _, row in file.rows]
        images.expect(file, names)
        named = any(str(row.get("split") or "").strip() for _, row in file.rows)
        for (where, row), name in zip(file.rows, names, strict=True):
            said, number = marked[number], number + 1
            try:
                part = part_of_row({"split": str(row.get("split") or "").strip()}) if named else file.part
                path = images.find(name)
            except ValueError as error:
                problems.add(f"{file.title} {where}", str(error))
                continue
            found.append(_Row(where=f"{file.title} {where}", name=path, part=part, marked=said))
    if not any(row.part for row in found):  # folders of the parts, with one table for all
        parts = {row.name: PART_NAMES.get(row.name.partition("/")[0].lower(), "") for row in found}
        if "train" in parts.values():
            return [replace(row, part=parts[row.name]) for row in found]
    return found


class _Images:
    """The images of a folder, by the names that tables give them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bare: dict[str, list[str]] = defaultdict(list)
        for path in image_files(root, root):
            name = path.relative_to(root).as_posix()
            self._bare[path.name].append(name)
            self._bare[path.stem].append(name)
        self._folders: list[Path] = []
        self._counts: Counter[str] = Counter()

    def expect(self, file: LabelFile, names: Iterable[str]) -> None:
        """The names of one table come next."""
        beside = [] if file.file.parent == self._root else [file.file.parent]
        if file.part and not beside:
            holders = [one for one in (self._root, self._root / "images") if one.is_dir()]
            beside = [one for holder in holders for one in visible_folders(holder) if part_of(one.name) == file.part]
        self._folders = [*beside, self._root]
        self._counts = Counter(_last(name) for name in dict.fromkeys(names))

    def find(self, name: str) -> str:
        """The path in the data folder. A name may lack its suffix; of a path that leads nowhere the last part counts,
        if no other row and no other image has it.

        Raises:
            ValueError: there is no such image, or it lies outside of the folder.
        """
        paths = [path for folder in self._folders if (path := _listed(folder, name)) is not None]
        if not paths:
            every = self._bare.get(_last(name), [])
            near = {folder.relative_to(self._root).as_posix() + "/" for folder in self._folders[:-1]}
            own = [one for one in every if one.startswith(tuple(near))] if len(every) > 1 else every
            if len(own) == 1 and self._counts[_last(name)] == 1:
                return own[0]
            raise ValueError(f"image '{name:.80}' is {'missing' if not every else f'one of {len(every)} of this name'}")
        if not leads_inside(paths[0], self._root):
            raise ValueError(f"image '{name:.80}' lies outside of the folder")
        return paths[0].relative_to(self._root).as_posix()


def _listed(folder: Path, name: str) -> Path | None:
    found = find_listed(folder, name)
    if found is None and PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES and name:
        places = [folder / "images" / name, folder / name]
        every = [place.with_name(place.name + suffix) for place in places for suffix in sorted(IMAGE_SUFFIXES)]
        there = [path for path in every if os.path.isfile(path)]
        return there[0] if len(there) == 1 else None
    return found


def _last(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


def _merged(rows: Sequence[_Row], problems: Problems, *, join: bool) -> list[_Row]:
    """One row an image. Rows of one class each are joined; else rows of an image that contradict each other are wrong.

    What is unknown in one row and known in another is known.
    """
    groups: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row.name].append(row)
    repeated, found = sum(len(own) > 1 for own in groups.values()), []
    for name, own in groups.items():
        parts, first, last = sorted({row.part for row in own}), own[0], own[-1]
        has = frozenset(one for row in own for one in row.marked.has)
        odd = [row for row in own if has - row.marked.has - row.marked.unknown]
        if len(parts) > 1:
            problems.add(name, f"is in the parts {' and '.join(parts)} ({first.where}, {last.where})")
        elif odd and not join:
            other = next(row for row in own if row.marked.has - odd[0].marked.has - odd[0].marked.unknown)
            problems.add(
                name, f"has '{sorted(has - odd[0].marked.has)[0]}' in {other.where}, and not in {odd[0].where}"
            )
        unknown = frozenset.intersection(*(row.marked.unknown for row in own)) - has
        found.append(replace(first, marked=Marked(has=has, unknown=unknown)))
    if repeated:
        problems.remark(f"Images with several rows{', whose labels are joined' if join else ''}: {repeated}")
    return found
