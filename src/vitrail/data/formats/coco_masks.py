"""A class for every pixel from COCO's JSON: panoptic annotations, or polygons and run lengths.

Panoptic: ``annotations/panoptic_train.json`` with a folder ``annotations/panoptic_train/`` of PNG files, whose colours
are numbers of segments (red + 256 green + 65536 blue); the JSON says of which category each is. Otherwise
``annotations/stuff_train.json``, ``instances_train.json`` or ``train.json``, whose objects are drawn, the largest
first. What belongs to nothing is ignored.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.core.types import ImageSize
from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco import CocoImage, annotation_files, image_entry, image_folder, read_coco, read_lists
from vitrail.data.formats.coco_shapes import decode_mask, problem_of_mask, require_pycocotools
from vitrail.data.formats.layout import leads_inside
from vitrail.data.records import IGNORE, MaskedImage

KINDS = ("panoptic", "stuff", "instances")
"""Which annotations are taken where there are several."""


def coco_kind(root: Path) -> str | None:
    """Which of :data:`KINDS` a folder has, or None."""
    named = (kind for kind in KINDS if any((root / "annotations").glob(f"*{kind}*.json")))
    return next(named, "instances" if annotation_files(root, "instances") else None)


def read_coco_masks(root: Path, kind: str, problems: Problems) -> tuple[dict[int, str], list[MaskedImage]]:
    """Value in the masks -> name of the class, and images with masks; ``kind`` is one of :data:`KINDS`.

    Raises:
        DataError: files that are no COCO JSON, or more than 255 categories.
        MissingDependencyError: pycocotools is needed for polygons, and not installed.
    """
    if kind == "panoptic":
        categories, masked = _panoptic(root, problems)
    else:
        require_pycocotools()
        images, entries = read_coco(root, kind, problems)
        categories = {identifier: str(entry["name"]) for identifier, entry in entries.items()}
        numbers = {identifier: value for value, identifier in enumerate(categories)}
        masked = [_drawn(image, numbers, problems) for image in images]
    if len(categories) > IGNORE:
        raise DataError(f"{root} has {len(categories)} categories; masks of 8 bits can have {IGNORE}")
    return dict(enumerate(categories.values())), masked


def _drawn(image: CocoImage, numbers: dict[int, int], problems: Problems) -> MaskedImage:
    shapes = []
    for one in image.objects:
        shape = one.values.get("segmentation")
        if one.values.get("iscrowd") and not shape:
            continue
        if (reason := problem_of_mask(shape, image.size)) is not None:
            problems.add(one.where, reason)
        else:
            shapes.append((numbers[one.values["category_id"]], shape))
    read = partial(draw_shapes, shapes, image.size)
    return MaskedImage(name=image.name, source=image.path, part=image.part, mask_name=image.name, read_mask=read)


def draw_shapes(shapes: list[tuple[int, Any]], size: ImageSize) -> np.ndarray:
    """(h, w) uint8: values of the shapes, small ones over large ones."""
    drawn = [(value, decode_mask(shape, size).numpy() > 0) for value, shape in shapes]
    values = np.full(size, IGNORE, np.uint8)
    for value, mask in sorted(drawn, key=lambda one: -int(one[1].sum())):
        values[mask] = value
    return values


def _panoptic(root: Path, problems: Problems) -> tuple[dict[int, str], list[MaskedImage]]:
    categories: dict[int, str] = {}
    files = annotation_files(root, "panoptic")
    contents = [read_lists(root, file, problems) for file, _ in files]
    for values in contents:
        categories |= {one["id"]: str(one["name"]) for one in values["categories"] if "id" in one and "name" in one}
    categories = dict(sorted(categories.items()))
    numbers = {identifier: value for value, identifier in enumerate(categories)}
    masked: list[MaskedImage] = []
    for (file, part), values in zip(files, contents, strict=True):
        masked += _panoptic_part(root, file, part, values, numbers, problems)
    return categories, masked


def _panoptic_part(
    root: Path,
    file: Path,
    part: str,
    values: dict[str, list[dict[str, Any]]],
    numbers: dict[int, int],
    problems: Problems,
) -> list[MaskedImage]:
    title = file.relative_to(root).as_posix()
    images: dict[Any, CocoImage] = {}
    for entry in values["images"]:
        where = f"{title} image {entry.get('id')}"
        if (image := image_entry(root, image_folder(root, file, part), part, entry)) is None:
            problems.add(where, f"file_name {entry.get('file_name')!r} is no file")
        elif entry["id"] in images:
            problems.add(where, "this image id occurs twice")
        else:
            images[entry["id"]] = image
    masked: dict[Any, MaskedImage] = {}
    for annotation in values["annotations"]:
        identifier, name = annotation.get("image_id"), annotation.get("file_name")
        where = f"{title} annotation of image {identifier}"
        path = file.with_suffix("") / str(name)
        if identifier not in images:
            problems.add(where, "there is no such image")
        elif identifier in masked:
            problems.add(where, "this image is annotated twice")
        elif not leads_inside(path, root) or not path.is_file():
            problems.add(where, f"file_name {name!r} is no file in {file.stem}/")
        elif (segments := _segments(annotation, numbers, where, problems)) is not None:
            image = images[identifier]
            read = partial(read_panoptic, path, segments)
            mask_name = path.relative_to(root).as_posix()
            masked[identifier] = MaskedImage(
                name=image.name, source=image.path, part=part, mask_name=mask_name, read_mask=read
            )
    for identifier, image in images.items():
        if identifier not in masked:
            problems.add(image.name, f"{title} has no usable annotation of this image")
    return list(masked.values())


def _segments(
    annotation: dict[str, Any], numbers: dict[int, int], where: str, problems: Problems
) -> dict[int, int] | None:
    """Number of a segment -> value in the mask."""
    found: dict[int, int] = {}
    segments = annotation.get("segments_info")
    for segment in segments if isinstance(segments, list) else ():
        number, category = (segment.get(key) if isinstance(segment, dict) else None for key in ("id", "category_id"))
        if not isinstance(number, int) or not isinstance(category, int | str):
            problems.add(where, f"{segment!r} in segments_info has no id and category_id")
            return None
        if category not in numbers:
            problems.add(where, f"there is no category {category}")
            return None
        if number in found:
            problems.add(where, f"segment id {number} occurs twice")
            return None
        found[number] = numbers[category]
    return found


def read_panoptic(path: Path, segments: dict[int, int]) -> np.ndarray:
    """(h, w) uint8 from a PNG of segment numbers; 0 belongs to nothing.

    Raises:
        DataError: unreadable, not of three channels, or with segments that the JSON does not know.
    """
    try:
        with Image.open(path) as image:
            if image.mode != "RGB":
                raise DataError(f"{path.name} has mode {image.mode}; panoptic masks are RGB")
            pixels = np.array(image, dtype=np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path.name} is no readable mask ({str(error).splitlines()[0]}); write it again") from error
    found, places = np.unique(pixels @ np.array([1, 256, 65536]), return_inverse=True)
    unknown = [int(one) for one in found if one != 0 and int(one) not in segments]
    if unknown:
        shown = ", ".join(map(str, unknown[:5]))
        raise DataError(f"{path.name} has segments that are not in segments_info: {shown}")
    values = np.array([segments.get(int(one), IGNORE) for one in found], dtype=np.uint8)
    mask: np.ndarray = values[places.reshape(pixels.shape[:2])]
    return mask
