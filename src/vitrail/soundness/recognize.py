"""Which task a folder is meant for, from the annotations that lie in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError, VitrailError
from vitrail.core.files import read_json, read_text
from vitrail.data import find_images
from vitrail.data.formats.class_folders import REMEDY
from vitrail.data.formats.coco_files import annotation_files
from vitrail.data.formats.label_tables import has_several_labels
from vitrail.data.formats.layout import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    data_folder,
    find_table,
    has_images,
    inner_folder,
    one_called,
    part_of,
    visible_folders,
)
from vitrail.data.formats.voc import is_voc

YOLO_LINE = re.compile(r"\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*$", re.IGNORECASE)
"""A line of a YOLO text file: a class and at least four numbers."""

MOST_TEXTS = 50
"""Text files that are looked into."""

MAX_TEXT_BYTES = 2**20


def likely_tasks(path: str) -> list[str]:
    """Names of tasks that a folder may be meant for, the likeliest first; never empty.

    A folder without annotations and without class folders is one for pretraining.

    Raises:
        DataError: there is no folder, or no image in it.
    """
    if path == "sample":
        return ["classification"]
    try:
        root = inner_folder(data_folder(path, REMEDY))
        found = list(dict.fromkeys(_found(root)))
        if not found and not find_images(root):
            raise DataError(f"{path} has no images at any depth; {REMEDY}")
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error
    return found or ["pretraining"]


def _found(root: Path) -> Iterator[str]:
    yield from _in_tables(root)
    if any(find_table(root, name) is not None for name in ("scores.csv", "AVA.txt")):
        yield "aesthetics"
    yield from _in_coco(root)
    folders = (root, *visible_folders(root))
    if any(map(_has_masks, folders)):
        yield "segmentation"
    elif is_voc(root) or _has_yolo(root):
        yield "detection"
    elif any(map(_has_classes, folders)):
        yield "classification"


def _in_tables(root: Path) -> Iterator[str]:
    """One class an image, or any number, where a table says it."""
    listed = find_table(root, "labels.csv") is not None
    if has_several_labels(root):
        yield "multilabel"
    if listed:
        yield "classification"


def _in_coco(root: Path) -> Iterator[str]:
    try:
        boxes, poses = annotation_files(root, "instances"), annotation_files(root, "keypoints")
    except DataError:
        yield "detection"  # reading it says what is wrong
        return
    posed = any(_has_keypoints(file) for file, _ in poses)
    if boxes != poses:
        yield "detection"
    if posed:
        yield "pose"
    if boxes:
        yield from ("detection", "instances")


def _has_keypoints(file: Path) -> bool:
    try:
        values: Any = read_json(file)
    except VitrailError:
        return False
    entries = values.get("categories") if isinstance(values, Mapping) else None
    return isinstance(entries, list) and any(isinstance(one, Mapping) and one.get("keypoints") for one in entries)


def _has_yolo(root: Path) -> bool:
    """Whether one of the first text files has lines of a class and at least four numbers."""
    for file in islice(root.rglob("*.txt"), MOST_TEXTS):
        try:
            first = read_text(file, MAX_TEXT_BYTES).partition("\n")[0]
        except (OSError, UnicodeDecodeError):
            continue
        if YOLO_LINE.match(first):
            return True
    return False


def _has_masks(folder: Path) -> bool:
    inside = visible_folders(folder)
    return one_called(inside, IMAGE_FOLDERS) is not None and one_called(inside, MASK_FOLDERS) is not None


def _has_classes(folder: Path) -> bool:
    inside = visible_folders(inner_folder(folder))
    return sum(has_images(one, folder) for one in inside if not part_of(one.name)) > 1
