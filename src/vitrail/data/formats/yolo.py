"""Boxes from YOLO's text files.

``images/train/a.jpg`` with ``labels/train/a.txt`` (or ``train/images``, ``train/labels``), a line an object:
``CLASS X Y WIDTH HEIGHT``, centres and sizes as shares of the image, or ``CLASS X Y X Y X Y ...``, a polygon whose box
is taken. ``CLASS`` is the number of a class in ``data.yaml``, ``obj.names`` or ``classes.txt``. An image without
objects has an empty file, or none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.core.types import ImageSize
from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco import checked_box
from vitrail.data.formats.csv_rows import read_text
from vitrail.data.formats.tool_exports import describe_found
from vitrail.data.formats.yolo_files import ImageGroup, image_groups, pair_labels
from vitrail.data.formats.yolo_names import YoloFolder, read_description
from vitrail.data.pixels.decode import image_size_of
from vitrail.data.records import Box, BoxedImage

REMEDY = (
    "give COCO JSON (annotations/train.json beside train/), YOLO text (images/train, labels/train, data.yaml), or "
    "Pascal VOC's XML (Annotations, JPEGImages)"
)


def read_yolo(root: Path, problems: Problems) -> tuple[tuple[str, ...], list[BoxedImage]]:
    """Names of the classes, in the order of their numbers, and images by part and path.

    Args:
        root: the data folder.
        problems: takes everything that is wrong.

    Raises:
        DataError: no names of classes, or files that contradict each other.
    """
    described = read_description(root)
    if described is None:
        files = "data.yaml with 'names', obj.names or classes.txt"
        raise DataError(f"{root} has no class names ({files}); {describe_found(root)}{REMEDY}")
    groups = image_groups(root, described, problems)
    pairs = pair_labels(root, groups, problems)
    records: list[BoxedImage] = []
    for group in groups:
        own = {image: pairs[image] for image in group.images}
        records += _read_group(root, described, group, own, problems)
    return tuple(described.names.values()), records


def _read_group(
    root: Path, described: YoloFolder, group: ImageGroup, pairs: Mapping[Path, Path | None], problems: Problems
) -> list[BoxedImage]:
    missing = sum(file is None for file in pairs.values())
    if missing and missing == len(pairs):
        if group.part == "test":  # as COCO's test images, whose annotations are secret
            problems.remark(f"Images of {group.title}, none with a label file, are left out: {missing}")
        else:
            problems.add(group.title, f"none of its {missing} images has a label file")
        return []
    if missing:
        problems.remark(
            f"Images of {group.title} without a label file, which count as images without objects: {missing}"
        )
    records = []
    for path, file in pairs.items():
        size, name = image_size_of(path), path.relative_to(root).as_posix()
        boxes: tuple[Box, ...] = ()
        labels: tuple[int, ...] = ()
        try:
            if file is not None and size is not None:
                boxes, labels = _objects(root, file, size, described, problems)
        except DataError as error:
            problems.add(name, str(error))
        crowd = (False,) * len(boxes)
        records.append(BoxedImage(name=name, source=path, part=group.part, boxes=boxes, labels=labels, crowd=crowd))
    return records


def _objects(
    root: Path, file: Path, size: ImageSize, described: YoloFolder, problems: Problems
) -> tuple[tuple[Box, ...], tuple[int, ...]]:
    index = {number: label for label, number in enumerate(described.names)}
    boxes, labels = [], []
    title = file.relative_to(root).as_posix()
    for number, line in enumerate(read_text(file, "a line an object").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{title} line {number}"
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError:
            label, values = math.nan, []
        shares = _centred(values, described.num_values) if all(map(math.isfinite, values)) else None
        if shares is None:
            problems.add(where, f"{line.strip()!r:.100} is not 'CLASS X Y WIDTH HEIGHT'")
        elif label not in index:
            problems.add(where, f"class {label:g} does not exist; {_known(described)}")
        else:
            x, y, width, height = (v * side for v, side in zip(shares, (size[1], size[0]) * 2, strict=True))
            box = checked_box([x - width / 2, y - height / 2, width, height], size, where, problems)
            if box is not None:
                boxes.append(box)
                labels.append(index[int(label)])
    return tuple(boxes), tuple(labels)


def _centred(values: Sequence[float], num_values: int) -> Sequence[float] | None:
    """Centre and sides of a box that is written so, before keypoints, or as a polygon; None for anything else."""
    if len(values) == 4 or (num_values and len(values) == num_values):
        return values[:4]
    if num_values or len(values) < 6 or len(values) % 2:
        return None
    xs, ys = values[::2], values[1::2]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)


def _known(described: YoloFolder) -> str:
    numbers = list(described.names)
    if numbers == list(range(len(numbers))):
        return f"there are {len(numbers)}"
    shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    return f"{described.file.name} has the numbers {shown}"
