"""COCO's JSON: which image has which objects, checked entry by entry.

Ids are numbers, however they are written: ``"3"`` and ``3.0`` are 3. Parts may number a class differently; classes are
joined by name, in the order of the training part's ids.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from vitrail.core.errors import DataError
from vitrail.core.files import read_json
from vitrail.core.types import ImageSize
from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco_files import LISTS, ImageFolder, annotation_files, has_lists
from vitrail.data.formats.csv_rows import has_controls
from vitrail.data.formats.tool_exports import describe_found
from vitrail.data.pixels.decode import image_size_of
from vitrail.data.records import Box

SLACK = 1.0
"""Pixels that a box may reach out of its image: tools round differently; it is cut off at the border."""

LARGEST = 1e9
"""No number of an annotation is larger: pixels, areas and visibilities are all below."""

IDS = ("id", "image_id", "category_id")

REMEDY = "give annotations/train.json (COCO) beside train/, the same for val and test"

Id = int | str

Entries = dict[int, dict[str, Any]]
"""Entries of a list of the JSON, by their place in it."""

Category = dict[str, Any]
"""Entry of ``categories``; ``name`` is a text."""


@dataclass(frozen=True)
class CocoObject:
    """One object of an image.

    Attributes:
        values: annotation as in the JSON.
        key: id of the annotation, or its place in the JSON where it has none.
        label: index of its class.
        crowd: whether it stands for several objects.
        box: where the object is, inside the image.
        where: name of the annotation in messages.
    """

    values: dict[str, Any]
    key: Id
    label: int
    crowd: bool
    box: Box
    where: str


@dataclass(frozen=True)
class CocoImage:
    """One image and its objects; those that are wrong are left out.

    Attributes:
        name: path in the data folder.
        part: "train", "val" or "test"; "" where nothing says it.
        size: (height, width) as the JSON says.
    """

    name: str
    path: Path
    part: str
    size: ImageSize
    objects: list[CocoObject] = field(default_factory=list)


@dataclass(frozen=True)
class CocoPart:
    """One annotation file.

    Attributes:
        title: path in the data folder, for messages.
        lists: the JSON's ``images``, ``annotations`` and ``categories``.
        labels: id of a category -> index of its class.
        images: images by id.
    """

    file: Path
    title: str
    part: str
    lists: dict[str, Entries]
    labels: dict[Id, int]
    images: dict[Id, CocoImage]


def read_coco(root: Path, kind: str, problems: Problems) -> tuple[list[CocoImage], list[Category]]:
    """Read and check every part: images in the order of the files, and the categories of all in the order of classes.

    Args:
        root: the data folder.
        kind: prefer files with this in their name ("instances", "keypoints") where several are of one part.
        problems: takes everything that is wrong.

    Raises:
        DataError: no annotations, files that are no COCO JSON, or categories that contradict each other.
    """
    parts, categories = read_parts(root, kind, problems)
    images: list[CocoImage] = []
    for part in parts:
        if part.part == "test" and not part.lists["annotations"] and len(parts) > 1:
            problems.remark(f"Images of {part.title}, none with an annotation, are left out: {len(part.images)}")
            continue
        if not part.lists["images"]:
            raise DataError(f"{part.file} lists no images; write it again, or remove it")
        _read_annotations(part, problems)
        images += {image.name: image for image in part.images.values()}.values()
    return images, categories


def read_parts(root: Path, kind: str, problems: Problems) -> tuple[list[CocoPart], list[Category]]:
    """The images of every part, without their annotations, and the categories of all in the order of classes.

    Raises:
        DataError: as :func:`read_coco`.
    """
    files = annotation_files(root, kind)
    if not files:
        raise DataError(f"{root} has no annotations; {describe_found(root)}{REMEDY}")
    contents = [read_lists(root, file, problems) for file, _ in files]
    tables = [
        _categories(file, _without_headings(lists, problems)) for (file, _), lists in zip(files, contents, strict=True)
    ]
    categories = _join(files, tables, problems)
    if kind == "keypoints":
        _check_keypoints([file for file, _ in files], tables)
    index = {entry["name"]: label for label, entry in enumerate(categories)}
    parts = []
    for (file, part), lists, table in zip(files, contents, tables, strict=True):
        labels = {key: index[entry["name"]] for key, entry in table.items()}
        title = file.relative_to(root).as_posix()
        images = _read_images(root, file, part, lists["images"], problems)
        parts.append(CocoPart(file, title, part, lists, labels, images))
    return parts, categories


def read_lists(root: Path, file: Path, problems: Problems) -> dict[str, Entries]:
    """The lists ``images``, ``annotations`` and ``categories`` of a file; entries that are no objects, or whose ids are
    neither numbers nor texts, are added to ``problems`` and left out. A number that is written as a text is a number.

    Raises:
        DataError: there are no such lists.
    """
    values = read_json(file, error=DataError)
    if not has_lists(values):
        raise DataError(f"{file} is no COCO JSON: it needs the lists 'images', 'annotations' and 'categories'")
    found: dict[str, Entries] = {key: {} for key in LISTS}
    for key in LISTS:
        for number, entry in enumerate(values[key]):
            where = f"{file.relative_to(root).as_posix()} {key}[{number}]"
            if not isinstance(entry, dict):
                problems.add(where, f"is {type(entry).__name__} instead of an object")
                continue
            ids = {name: identifier(entry[name]) for name in IDS if entry.get(name) is not None}
            if odd := [name for name, one in ids.items() if one is None]:
                problems.add(where, f"its {odd[0]} {shown(entry[odd[0]])} is neither a number nor a text")
            elif key == "categories" and not ("id" in ids and _is_name(entry.get("name"))):
                problems.add(where, "it needs an id and a name, a text without control characters")
            elif key == "images" and "id" not in ids:
                problems.add(where, "it has no id")
            else:
                found[key][number] = entry | ids
    return found


def identifier(value: Any) -> Id | None:
    """An id: a number, also where it is written as a text or with a point; another text; None for anything else."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"0|-?[1-9][0-9]{0,17}", value) else value
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_name(value: Any) -> bool:
    return isinstance(value, int) or (
        isinstance(value, str) and value.strip() != "" and not has_controls(value.strip())
    )


def _categories(file: Path, entries: Sequence[Category]) -> dict[Id, Category]:
    """Categories of a file by id.

    Raises:
        DataError: an id has two names, or a name two ids.
    """
    table: dict[Id, Category] = {}
    ids: dict[str, Id] = {}
    for entry in entries:
        key, name = entry["id"], str(entry["name"]).strip()
        if table.get(key, entry | {"name": name}) != entry | {"name": name}:
            raise DataError(
                f"{file} has two categories of id {key!s:.80} ('{table[key]['name']:.80}' and '{name:.80}'); keep one"
            )
        if ids.setdefault(name, key) != key:
            raise DataError(
                f"{file} has two categories called '{name:.80}' (ids {ids[name]!s:.80} and {key!s:.80}); rename one"
            )
        table[key] = entry | {"name": name}
    return table


def _join(
    files: Sequence[tuple[Path, str]], tables: Sequence[dict[Id, Category]], problems: Problems
) -> list[Category]:
    """The categories of all files, one a name, by the ids of the training part; what only other parts have, by theirs.

    Raises:
        DataError: a category that the training part lacks has an id that is another's there.
    """
    known: dict[str, Category] = {}
    names: dict[Id, tuple[str, Path]] = {}
    for (file, _), table in sorted(zip(files, tables, strict=True), key=lambda one: one[0][1] != "train"):
        for key, entry in table.items():
            if (same := known.get(entry["name"])) is not None:
                if same["id"] != key:
                    problems.remark("Annotation files number classes differently; classes are joined by name")
                continue
            other, origin = names.setdefault(key, (entry["name"], file))
            if other != entry["name"]:
                raise DataError(
                    f"{file} calls category {key!s:.80} '{entry['name']:.80}', but {origin.name} calls it '{other:.80}'"
                )
            known[entry["name"]] = entry
    return sorted(known.values(), key=lambda entry: (isinstance(entry["id"], str), entry["id"]))


def _check_keypoints(files: Sequence[Path], tables: Sequence[dict[Id, Category]]) -> None:
    """
    Raises:
        DataError: keypoints or skeletons that are no lists, or keypoints that have another order in another file.
    """
    known: dict[str, Any] = {}
    for file, table in zip(files, tables, strict=True):
        for entry in table.values():
            where = f"{file} category '{entry['name']:.80}'"
            if odd := [key for key in ("keypoints", "skeleton") if not isinstance(entry.get(key) or [], list)]:
                raise DataError(f"{where} has the {odd[0]} {shown(entry[odd[0]])}; give a list")
            names = entry.get("keypoints")
            if names and known.setdefault(entry["name"], names) != names:
                raise DataError(
                    f"{where} has other keypoints than in another file, or another order; number them alike"
                )


def _without_headings(lists: dict[str, Entries], problems: Problems) -> list[Category]:
    """The categories without those that are no classes, but groups of others, as Roboflow writes the project's name."""
    categories, annotations = list(lists["categories"].values()), list(lists["annotations"].values())
    segments = [one for entry in annotations if isinstance(s := entry.get("segments_info"), list) for one in s]
    used = {entry.get("category_id") for entry in annotations}
    used |= {identifier(one.get("category_id")) for one in segments if isinstance(one, dict)}
    members: dict[str, set[Id]] = defaultdict(set)
    for entry in categories:
        members[str(entry.get("supercategory"))].add(entry["id"])
    kept = []
    for entry in categories:
        is_group = bool(members.get(str(entry["name"]), set()) - {entry["id"]})
        if entry["id"] in used or not is_group or entry.get("supercategory") not in (None, "", "none"):
            kept.append(entry)
        else:
            problems.remark(f"Category '{entry['name']}' is a group of other categories without objects, and no class")
    return kept


def _read_images(root: Path, file: Path, part: str, entries: Entries, problems: Problems) -> dict[Id, CocoImage]:
    title = file.relative_to(root).as_posix()
    folder = ImageFolder(root, file, part, entries.values())
    images: dict[Id, CocoImage] = {}
    keys: dict[Path, Id] = {}
    for entry in entries.values():
        key, name = entry["id"], entry.get("file_name")
        where = f"{title} image {key!s:.80}"
        path = folder.find(name) if isinstance(name, str) else None
        if path is None:
            problems.add(where, f"file_name {shown(name)} is no file in {folder.folder.name}/")
            continue
        given = (entry.get("height"), entry.get("width"))
        actual = image_size_of(path)
        size = given if all(isinstance(side, int) and side > 0 for side in given) else actual
        if key in images:
            problems.add(where, "this image id occurs twice")
        elif size is None:
            problems.add(where, f"it has no size, and {path.relative_to(root).as_posix()} cannot be read")
        elif actual is not None and actual != size:
            problems.add(
                where, f"its size is {shown(size[1])}x{shown(size[0])}, but the file has {actual[1]}x{actual[0]}"
            )
        elif path in keys:
            first = images[key] = images[keys[path]]
            problems.add(
                first.name, f"{title} has this file as image {keys[path]!s:.80} and as image {key!s:.80}; keep one"
            )
        else:
            keys[path] = key
            images[key] = CocoImage(path.relative_to(root).as_posix(), path, part, size)  # type: ignore[arg-type]  # checked
    return images


def _read_annotations(part: CocoPart, problems: Problems) -> None:
    """Give every image its objects."""
    seen: set[Id] = set()
    for number, annotation in part.lists["annotations"].items():
        key: Any = annotation.get("id")
        where = f"{part.title} annotations[{number}]" if key is None else f"{part.title} annotation {key!s:.80}"
        if key in seen:
            problems.add(where, "this annotation id occurs twice")
            continue
        if key is not None:
            seen.add(key)
        target = part.images.get(annotation.get("image_id", ""))
        label = part.labels.get(annotation.get("category_id", ""))
        crowd = int(given) if isinstance(given := annotation.get("iscrowd") or 0, bool) else identifier(given)
        if target is None:
            problems.add(where, f"there is no image {shown(annotation.get('image_id'))}")
        elif label is None:
            problems.add(where, f"there is no category {shown(annotation.get('category_id'))}")
        elif crowd not in (0, 1):
            problems.add(where, f"its iscrowd {shown(given)} is neither 0 nor 1")
        elif (box := checked_box(annotation.get("bbox"), target.size, where, problems)) is not None:
            name = f"[{number}]" if key is None else key
            target.objects.append(CocoObject(annotation, name, label, bool(crowd), box, where))


def checked_box(bbox: Any, size: ImageSize, where: str, problems: Problems) -> Box | None:
    """(left, top, width, height) of a file as (left, top, right, bottom), or None and a problem more."""
    if not is_numbers(bbox, 4):
        problems.add(where, f"bbox {shown(bbox)} is not four numbers")
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


def is_number(value: Any) -> TypeGuard[float]:
    """A finite number of at most :data:`LARGEST`, either sign."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and abs(value) <= LARGEST if isinstance(value, float) else abs(value) <= LARGEST


def is_numbers(values: Any, count: int) -> bool:
    """A list of ``count`` numbers, see :func:`is_number`."""
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))


def shown(value: Any) -> str:
    """A value of a file in a message, shortened: it may be of any length."""
    text = repr(value) if not isinstance(value, int) or abs(value) < LARGEST else "a number of many digits"
    return text if len(text) <= 80 else text[:77] + "..."
