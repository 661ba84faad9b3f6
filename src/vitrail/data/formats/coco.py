"""COCO's JSON: which image has which objects, checked entry by entry.

Layout: ``annotations/train.json`` beside ``train/`` (the same for val and test), or COCO's own names
(``annotations/instances_train2017.json`` beside ``train2017/``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError
from vitrail.core.files import read_json
from vitrail.core.types import ImageSize
from vitrail.data.check.problems import Problems
from vitrail.data.formats.layout import PART_NAMES, leads_inside
from vitrail.data.pixels.decode import image_size_of
from vitrail.data.records import Box

SLACK = 1.0
"""Pixels that a box may reach out of its image: tools round differently; it is cut off at the border."""

LISTS = ("images", "annotations", "categories")
IDS = ("id", "image_id", "category_id")

REMEDY = "give annotations/train.json (COCO) beside train/, the same for val and test"


Categories = dict[Any, dict[str, Any]]
"""Entries of the JSON by id, ascending."""


@dataclass(frozen=True)
class CocoObject:
    """One object of an image.

    Attributes:
        values: annotation as in the JSON.
        box: where the object is, inside the image.
        where: name of the annotation in messages.
    """

    values: dict[str, Any]
    box: Box
    where: str


@dataclass(frozen=True)
class CocoImage:
    """One image and its objects; those that are wrong are left out.

    Attributes:
        name: path in the data folder.
        part: "train", "val" or "test".
        size: (height, width) as the JSON says.
    """

    name: str
    path: Path
    part: str
    size: ImageSize
    objects: list[CocoObject] = field(default_factory=list)


def read_coco(root: Path, kind: str, problems: Problems) -> tuple[list[CocoImage], Categories]:
    """Read and check every part: images in the order of the files, and the categories of all.

    Args:
        root: the data folder.
        kind: prefer files with this in their name ("instances", "keypoints") where several are of one part.
        problems: takes everything that is wrong.

    Raises:
        DataError: no annotations, or files that are no COCO JSON.
    """
    files = annotation_files(root, kind)
    if not files:
        raise DataError(f"{root} has no annotations; {REMEDY}")
    images: list[CocoImage] = []
    categories: Categories = {}
    for file, part in files:
        values = read_lists(root, file, problems)
        known = {entry["id"]: entry for entry in values["categories"] if "id" in entry and "name" in entry}
        for identifier, entry in known.items():
            if categories.setdefault(identifier, entry)["name"] != entry["name"]:
                raise DataError(
                    f"{file} calls category {identifier} '{entry['name']}', another part calls it otherwise"
                )
        images += _read_part(root, file, part, values, known, problems)
    return images, dict(sorted(categories.items()))


def read_lists(root: Path, file: Path, problems: Problems) -> dict[str, list[dict[str, Any]]]:
    """The lists ``images``, ``annotations`` and ``categories`` of a file; entries that are no objects, or whose ids are
    neither numbers nor texts, are added to ``problems`` and left out.

    Raises:
        DataError: there are no such lists.
    """
    values = read_json(file, error=DataError)
    if not isinstance(values, dict) or not all(isinstance(values.get(key), list) for key in LISTS):
        raise DataError(f"{file} is no COCO JSON: it needs the lists 'images', 'annotations' and 'categories'")
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in LISTS}
    for key in LISTS:
        for number, entry in enumerate(values[key]):
            where = f"{file.relative_to(root).as_posix()} {key}[{number}]"
            if not isinstance(entry, dict):
                problems.add(where, f"is {type(entry).__name__} instead of an object")
            elif odd := [name for name in IDS if not isinstance(entry.get(name, 0), int | str)]:
                problems.add(where, f"its {odd[0]} {entry[odd[0]]!r} is neither a number nor a text")
            else:
                found[key].append(entry)
    return found


def annotation_files(root: Path, kind: str) -> list[tuple[Path, str]]:
    """One JSON a part: the one of the wanted kind, else the one that is named as the part."""
    found: dict[str, tuple[int, Path]] = {}
    for file in sorted((root / "annotations").glob("*.json")):
        match = re.search("train|val|test", file.stem)
        if match is None:
            continue
        rank = 2 if kind in file.stem else 1 if file.stem.lower() in PART_NAMES else 0
        if rank and found.get(match[0], (0, file))[0] < rank:
            found[match[0]] = (rank, file)
    return [(file, part) for part, (_, file) in sorted(found.items())]


def _read_part(
    root: Path, file: Path, part: str, values: dict[str, Any], categories: Categories, problems: Problems
) -> list[CocoImage]:
    title = file.relative_to(root).as_posix()
    folder = image_folder(root, file, part)
    images: dict[Any, CocoImage] = {}
    for entry in values["images"]:
        where = f"{title} image {entry.get('id')}"
        if (image := image_entry(root, folder, part, entry)) is None:
            problems.add(where, f"file_name {entry.get('file_name')!r} is no file in {folder.name}/")
        elif entry["id"] in images:
            problems.add(where, "this image id occurs twice")
        elif (actual := image_size_of(image.path)) is not None and actual != image.size:
            problems.add(
                where, f"its size is {image.size[1]}x{image.size[0]}, but the file has {actual[1]}x{actual[0]}"
            )
        else:
            images[entry["id"]] = image
    seen: set[Any] = set()
    for annotation in values["annotations"]:
        where, identifier = f"{title} annotation {annotation.get('id')}", annotation.get("id")
        if identifier in seen:
            problems.add(where, "this annotation id occurs twice")
            continue
        seen.add(identifier)
        target = images.get(annotation.get("image_id"))
        if target is None:
            problems.add(where, f"there is no image {annotation.get('image_id')}")
        elif annotation.get("category_id") not in categories:
            problems.add(where, f"there is no category {annotation.get('category_id')}")
        elif (box := checked_box(annotation.get("bbox"), target.size, where, problems)) is not None:
            target.objects.append(CocoObject(annotation, box, where))
    return list(images.values())


def image_folder(root: Path, file: Path, part: str) -> Path:
    """Where the images of an annotation file are."""
    own = file.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    return next((root / name for name in (own, part, "images") if (root / name).is_dir()), root)


def image_entry(root: Path, folder: Path, part: str, entry: dict[str, Any]) -> CocoImage | None:
    """An entry of ``images``; None where its file is missing or outside of the data."""
    name = entry.get("file_name")
    if "id" not in entry or not isinstance(name, str):
        return None
    path = folder / name
    if not leads_inside(path, root):
        return None
    size = (entry.get("height"), entry.get("width"))
    if not all(isinstance(side, int) and side > 0 for side in size):
        size = image_size_of(path) or (1, 1)
    return CocoImage(path.relative_to(root).as_posix(), path, part, size)  # type: ignore[arg-type]  # checked above


def checked_box(bbox: Any, size: ImageSize, where: str, problems: Problems) -> Box | None:
    """(left, top, width, height) of a file as (left, top, right, bottom), or None and a problem more."""
    if not is_numbers(bbox, 4):
        problems.add(where, f"bbox {bbox!r} is not four numbers")
        return None
    left, top, width, height = bbox
    if width <= 0 or height <= 0:
        problems.add(where, f"its box has no area (width {width:g}, height {height:g})")
        return None
    rows, columns = size
    if left < -SLACK or top < -SLACK or left + width > columns + SLACK or top + height > rows + SLACK:
        problems.add(
            where,
            f"its box {left:g}, {top:g}, {width:g}, {height:g} reaches out of the image of {columns}x{rows} pixels",
        )
        return None
    box = (max(left, 0.0), max(top, 0.0), min(left + width, float(columns)), min(top + height, float(rows)))
    if box[2] <= box[0] or box[3] <= box[1]:
        problems.add(where, "its box lies outside of the image")
        return None
    return box


def is_numbers(values: Any, count: int) -> bool:
    """A list of ``count`` finite numbers."""
    return (
        isinstance(values, Sequence)
        and len(values) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    )
