"""Tables and lists of images with any number of classes: which files they are, and their rows.

Tools disagree about the form: a CSV or JSON beside the images, one for each part (``train.csv``), or one in the folder
of each part (Roboflow's ``_classes.csv``); rows with a list of classes, with one class each, or with a column for each
class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError, VitrailError
from vitrail.core.files import read_json
from vitrail.core.parse import parse_json
from vitrail.data.formats.coco_files import ANNOTATION_FOLDERS, MAX_OPENED, has_lists
from vitrail.data.formats.csv_rows import IMAGE_COLUMNS, PART_COLUMNS, read_headed_rows, read_text
from vitrail.data.formats.label_cells import choices_of
from vitrail.data.formats.layout import LABEL_FOLDERS, part_of, visible_folders

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")

PREFERRED = ("labels", "_classes", "multilabel", "annotations", "metadata")
"""Names of tables that are read where a folder has several, the surest first."""

FOREIGN = frozenset(("scores", "predictions", "classes", "sample_submission"))
"""Names of files beside the images that have no labels."""

IMAGES = ("file", "img", "image_file", "image_filename")
WEAK_IMAGES = ("image_index", "image_id", "imageid", "id")
"""What the column ``image`` is called elsewhere; the second ones only where there is none of the others."""

LABELS = (
    *("label", "tags", "tag", "classes", "class", "class_name", "categories", "category", "category_name"),
    *("label_name", "labelname", "finding_labels", "choice", "choices"),
)
"""What the column ``labels`` is called elsewhere."""

PARTS = (*PART_COLUMNS, "set")

REMEDY = (
    "give labels.csv with the columns image and labels (cat;dog), or with image and a column of 0 and 1 for each class"
)

Cells = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """A table of images.

    Attributes:
        file: where it is.
        title: path in the data folder, for messages.
        part: "train", "val" or "test" where its name or its folder says so, else "".
        headings: column -> heading, for columns that are neither the image nor its part.
        rows: (place for messages, cells by column): ``image``, perhaps ``split`` and ``labels``, and the others.
    """

    file: Path
    title: str
    part: str
    headings: dict[str, str]
    rows: list[tuple[str, Cells]]

    @property
    def listed(self) -> bool:
        """Whether a column has the classes of an image, in place of a column for each class."""
        return "labels" in self.headings


def find_label_files(root: Path) -> list[tuple[Path, str]]:
    """Tables of a folder with their parts, one a part; empty without any.

    Raises:
        DataError: several may be meant.
    """
    inside = [
        (file, part)
        for folder in visible_folders(root)
        if (part := part_of(folder.name)) and (file := _only(root, _tables(folder))) is not None
    ]
    beside = _tables(root) or [
        file for folder in visible_folders(root) if _holds_labels(folder) for file in _tables(folder)
    ]
    named = [(file, part) for file in beside if (part := part_of(file.stem, whole_words=False))]
    if "train" in {part for _, part in named}:
        if whole := [file for file in beside if file.stem.lower() == PREFERRED[0]]:
            raise DataError(
                f"{root} has {whole[0].name} and {_title(root, named[0][0])}; keep one table, or one a part"
            )
        found = _one_a_part(root, named)
    else:
        found = [(file, "") for file in [_only(root, beside)] if file is not None]
    if inside and found:
        raise DataError(
            f"{root} has tables of labels both beside its parts and in them ({_title(root, found[0][0])} and "
            f"{_title(root, inside[0][0])}); keep one kind"
        )
    return found or _one_a_part(root, inside)


def _holds_labels(folder: Path) -> bool:
    return folder.name.lower() in (*ANNOTATION_FOLDERS, *LABEL_FOLDERS)


def _title(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _tables(folder: Path) -> list[Path]:
    files = sorted(one for one in folder.iterdir() if one.suffix.lower() in SUFFIXES and one.is_file())
    files = [one for one in files if not one.name.startswith(".") and one.stem.lower() not in FOREIGN]
    if len(files) > MAX_OPENED:  # tools that write one for each image
        files = [one for one in files if one.suffix.lower() != ".json" or one.stem.lower() in PREFERRED]
    return [one for one in files if _is_table(one)]


def _is_table(file: Path) -> bool:
    """Whether a file may have labels: a JSON of COCO, or one without any entries, has none."""
    if file.suffix.lower() != ".json":
        return True
    try:
        return _entries(file, read_json(file)) is not None
    except VitrailError:
        return file.stem.lower() in PREFERRED  # reading it again says what is wrong with it


def _only(root: Path, files: Sequence[Path]) -> Path | None:
    """The table that is meant.

    Raises:
        DataError: several may be meant.
    """
    for name in PREFERRED:
        chosen = [file for file in files if file.stem.lower() == name]
        if len(chosen) == 1:
            return chosen[0]
        files = chosen or files
    if len(files) > 1:
        names = " and ".join(_title(root, file) for file in files[:2])
        raise DataError(f"{root} has several tables ({names}); call the one with the labels labels{files[0].suffix}")
    return files[0] if files else None


def _one_a_part(root: Path, found: Sequence[tuple[Path, str]]) -> list[tuple[Path, str]]:
    chosen: dict[str, Path] = {}
    for file, part in found:
        if (other := chosen.setdefault(part, file)) != file:
            names = f"{_title(root, other)} and {_title(root, file)}"
            raise DataError(f"{root} has several tables of the part {part} ({names}); keep one")
    return [(file, part) for part, file in chosen.items()]


def read_label_file(root: Path, file: Path, part: str) -> LabelFile:
    """The rows of a table.

    Raises:
        DataError: unreadable, or without a column of images or of labels.
    """
    title = _title(root, file)
    if file.suffix.lower() in (".csv", ".tsv"):
        headings, lines = read_headed_rows(file, REMEDY)
        rows: list[tuple[str, Cells]] = [(f"line {number}", dict(row)) for number, row in lines]
    else:
        headings, rows = _read_json(file, title)
    names = _renamed(title, list(headings), {"image": (*IMAGE_COLUMNS, *IMAGES), "split": PARTS, "labels": LABELS})
    if "image" not in names and (weak := [one for one in WEAK_IMAGES if one in names]):
        names["image"] = names.pop(weak[0])
    if "image" not in names:
        raise DataError(f"{file} has the columns {_some(headings.values())}; it has none of the images: {REMEDY}")
    rows = [(where, {name: cells.get(column) for name, column in names.items()}) for where, cells in rows]
    kept = {name: headings[column] for name, column in names.items() if name not in ("image", "split")}
    if "labels" in kept and all(str(cells["labels"]).strip() in ("0", "1", "") for _, cells in rows) and len(kept) > 1:
        raise DataError(
            f"{title}: column '{kept['labels']}' has 0 and 1 alone; if it is a class beside others, rename it; if it "
            f"lists the classes, remove the columns {_some([one for name, one in kept.items() if name != 'labels'])}"
        )
    return LabelFile(file=file, title=title, part=part, headings=kept, rows=rows)


def _renamed(title: str, columns: Sequence[str], meant: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Name -> column of the file, with the names of ``meant`` for what is called otherwise.

    Raises:
        DataError: two columns may be meant.
    """
    names = {column: column for column in columns}
    for name, others in meant.items():
        found = [one for one in others if one in columns and name not in columns]
        if len(found) > 1:
            raise DataError(f"{title} has the columns {' and '.join(found[:2])}; call the one that is meant {name}")
        names |= dict.fromkeys(found, name)
    return {name: column for column, name in names.items()}


def _read_json(file: Path, title: str) -> tuple[dict[str, str], list[tuple[str, Cells]]]:
    if file.suffix.lower() == ".jsonl":
        entries: list[Any] = []
        for number, line in enumerate(read_text(file, "one JSON object a line").split("\n"), start=1):
            if line.strip():
                try:
                    entries.append(parse_json(line))
                except ValueError as error:
                    raise DataError(f"{title} line {number} is not JSON ({error}); write the file again") from None
    else:
        entries = _entries(file, read_json(file, error=DataError)) or []
    headings: dict[str, str] = {}
    rows: list[tuple[str, Cells]] = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise DataError(f"{title} entry {number} is {type(entry).__name__} instead of an object; {REMEDY}")
        cells: Cells = {}
        for key, value in entry.items():
            nested = value if isinstance(value, Mapping) and choices_of(value) is None else {key: value}
            for name, one in nested.items():
                column = str(name).strip().lower().replace(" ", "_").replace("-", "_")
                if headings.setdefault(column, str(name).strip()) != str(name).strip() or column in cells:
                    raise DataError(f"{title} entry {number} has the key '{name:.80}' twice; keep one")
                cells[column] = one if (found := choices_of(one)) is None else found
        rows.append((f"entry {number}", cells))
    if not rows:
        raise DataError(f"{title} has no entries; {REMEDY}")
    return headings, rows


def _entries(file: Path, values: Any) -> list[Any] | None:
    """One object for each image, from the forms that a JSON may have; None where it has no images."""
    if has_lists(values):
        return None
    if isinstance(values, list):
        return values if any(isinstance(one, Mapping) for one in values) else None
    if not isinstance(values, Mapping) or not values:
        return None
    names, labels = values.get("classes"), values.get("labels")
    if isinstance(names, list) and isinstance(labels, Mapping):  # FiftyOne's: places in the list of classes
        return [{"image": name, "labels": _named(file, names, own)} for name, own in labels.items()]
    only = next(iter(values.values())) if len(values) == 1 else None
    if isinstance(only, list) and only and isinstance(only[0], Mapping):
        return only
    files = any("." in str(key) or "/" in str(key) for key in values)
    lists = len(values) > 1 and all(isinstance(one, list) for one in values.values())
    if not all(isinstance(one, list | Mapping | str) for one in values.values()) or not (files or lists):
        return None  # settings
    return [{"image": name, "labels": own} for name, own in values.items()]


def _named(file: Path, names: Sequence[Any], own: Any) -> Any:
    numbers = own if isinstance(own, list) else [] if own is None else [own]
    wrong = [one for one in numbers if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < len(names)]
    if wrong:
        raise DataError(
            f"{file} has the label {wrong[0]!r:.80}, and classes from 0 to {len(names) - 1}; write it again"
        )
    return [names[one] for one in numbers]


def _some(names: Any, count: int = 8) -> str:
    listed = [str(name)[:40] for name in names]
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")
