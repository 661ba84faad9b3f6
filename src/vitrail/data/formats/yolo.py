"""Boxes from YOLO's text files.

``images/train/a.jpg`` with ``labels/train/a.txt`` (or ``train/images``, ``train/labels``), a line an object:
``CLASS X Y WIDTH HEIGHT``, centres and sizes as shares of the image. ``data.yaml`` (``names``) or ``classes.txt`` names
the classes. An image without objects has an empty file.
"""

from __future__ import annotations

import math
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.core.files import read_bytes, read_yaml
from vitrail.core.types import ImageSize
from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco import checked_box
from vitrail.data.formats.csv_rows import read_lines
from vitrail.data.formats.layout import PART_NAMES, image_files
from vitrail.data.pixels.decode import image_size_of
from vitrail.data.records import Box, BoxedImage

REMEDY = "give COCO JSON (annotations/train.json beside train/) or YOLO text (images/train, labels/train, data.yaml)"


def read_yolo(root: Path, problems: Problems) -> tuple[tuple[str, ...], list[BoxedImage]]:
    """Names of the classes, and images by part and path.

    Args:
        root: the data folder.
        problems: takes everything that is wrong.

    Raises:
        DataError: no names of classes.
    """
    names = _class_names(root)
    records = []
    for images, texts, part in _folders(root):
        for path in image_files(images, root):
            name = path.relative_to(root).as_posix()
            file = texts / path.relative_to(images).with_suffix(".txt")
            size = image_size_of(path)
            if not file.is_file():
                problems.add(name, f"there is no {file.relative_to(root).as_posix()} (an empty one says: no objects)")
            elif size is not None:
                boxes, labels = _objects(root, file, size, len(names), problems)
                crowd = (False,) * len(boxes)
                records.append(BoxedImage(name=name, source=path, part=part, boxes=boxes, labels=labels, crowd=crowd))
    return names, records


def _folders(root: Path) -> list[tuple[Path, Path, str]]:
    found = []
    for part in sorted(PART_NAMES):
        for images, labels in (
            (root / "images" / part, root / "labels" / part),
            (root / part / "images", root / part / "labels"),
        ):
            if images.is_dir():
                found.append((images, labels, PART_NAMES[part]))
    if not found and (root / "images").is_dir():
        found = [(root / "images", root / "labels", "")]
    return found


def _class_names(root: Path) -> tuple[str, ...]:
    for file in (root / "data.yaml", root / "dataset.yaml", root / "classes.txt"):
        if not file.is_file():
            continue
        if file.suffix == ".txt":
            return tuple(read_lines(file, "one class name a line"))
        values = read_yaml(file, remedy="it needs 'names'", error=DataError)
        names = values.get("names") if isinstance(values, dict) else None
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names)]
        if isinstance(names, list) and names:
            return tuple(map(str, names))
    raise DataError(f"{root} has no class names (data.yaml with 'names', or classes.txt); {REMEDY}")


def _objects(
    root: Path, file: Path, size: ImageSize, count: int, problems: Problems
) -> tuple[tuple[Box, ...], tuple[int, ...]]:
    boxes, labels = [], []
    for number, line in enumerate(read_bytes(file).decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file.relative_to(root).as_posix()} line {number}"
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            label, values = math.nan, []
        if len(values) != 4 or not all(map(math.isfinite, values)):
            problems.add(where, f"{line.strip()!r} is not 'CLASS X Y WIDTH HEIGHT'")
        elif not (label.is_integer() and 0 <= label < count):
            problems.add(where, f"class {label:g} does not exist; there are {count}")
        else:
            x, y, width, height = (v * side for v, side in zip(values, (size[1], size[0]) * 2, strict=True))
            box = checked_box([x - width / 2, y - height / 2, width, height], size, where, problems)
            if box is not None:
                boxes.append(box)
                labels.append(int(label))
    return tuple(boxes), tuple(labels)
