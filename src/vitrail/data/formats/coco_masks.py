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
from vitrail.data.formats.coco import CocoImage, CocoPart, Id, identifier, read_coco, read_parts, shown
from vitrail.data.formats.coco_files import ANNOTATION_FOLDERS, annotation_files
from vitrail.data.formats.coco_shapes import decode_mask, problem_of_mask, require_pycocotools
from vitrail.data.formats.layout import leads_inside
from vitrail.data.records import IGNORE, MaskedImage

KINDS = ("panoptic", "stuff", "instances")
"""Which annotations are taken where there are several."""


def coco_kind(root: Path) -> str | None:
    """Which of :data:`KINDS` a folder has, or None."""
    named = (kind for kind in KINDS if any((root / "annotations").glob(f"*{kind}*.json")))
    if (kind := next(named, None)) is not None:
        return kind
    files = annotation_files(root, "instances")
    has_masks = any(any(root.glob(pattern)) for pattern in ("masks", "*/masks"))  # a JSON elsewhere is not for them
    beside = [file for file, _ in files if file.parent.name.lower() not in ANNOTATION_FOLDERS]
    return "instances" if files and not (beside and has_masks) else None


def read_coco_masks(root: Path, kind: str, problems: Problems) -> tuple[dict[int, str], list[MaskedImage]]:
    """Value in the masks -> name of the class, and images with masks; ``kind`` is one of :data:`KINDS`.

    Raises:
        DataError: files that are no COCO JSON, or more than 255 categories.
        MissingDependencyError: pycocotools is needed for polygons, and not installed.
    """
    if kind == "panoptic":
        parts, categories = read_parts(root, kind, problems)
        masked = [mask for part in parts for mask in _panoptic_part(root, part, problems)]
    else:
        require_pycocotools()
        images, categories = read_coco(root, kind, problems)
        masked = [_drawn(image, problems) for image in images]
    if len(categories) > IGNORE:
        raise DataError(f"{root} has {len(categories)} categories; masks of 8 bits can have {IGNORE}")
    return dict(enumerate(entry["name"] for entry in categories)), masked


def _drawn(image: CocoImage, problems: Problems) -> MaskedImage:
    shapes = []
    for one in image.objects:
        shape = one.values.get("segmentation")
        if one.crowd and not shape:
            continue
        if (reason := problem_of_mask(shape, image.size)) is not None:
            problems.add(one.where, reason)
        else:
            shapes.append((one.label, shape))
    read = partial(draw_shapes, shapes, image.size)
    return MaskedImage(name=image.name, source=image.path, part=image.part, mask_name=image.name, read_mask=read)


def draw_shapes(shapes: list[tuple[int, Any]], size: ImageSize) -> np.ndarray:
    """(h, w) uint8: values of the shapes, small ones over large ones."""
    drawn = [(value, decode_mask(shape, size).numpy() > 0) for value, shape in shapes]
    values = np.full(size, IGNORE, np.uint8)
    for value, mask in sorted(drawn, key=lambda one: -int(one[1].sum())):
        values[mask] = value
    return values


def _panoptic_part(root: Path, part: CocoPart, problems: Problems) -> list[MaskedImage]:
    masked: dict[Id, MaskedImage] = {}
    for annotation in part.lists["annotations"].values():
        key, name = annotation.get("image_id"), annotation.get("file_name")
        where = f"{part.title} annotation of image {key!s:.80}"
        path = part.file.with_suffix("") / str(name)
        image = None if key is None else part.images.get(key)
        if key is None or image is None:
            problems.add(where, "there is no such image")
        elif key in masked:
            problems.add(where, "this image is annotated twice")
        elif not leads_inside(path, root):
            problems.add(where, f"file_name {shown(name)} is no file in {part.file.stem}/")
        elif (segments := _segments(annotation, part.labels, where, problems)) is not None:
            read = partial(read_panoptic, path, segments)
            mask_name = path.relative_to(root).as_posix()
            masked[key] = MaskedImage(
                name=image.name, source=image.path, part=image.part, mask_name=mask_name, read_mask=read
            )
    for key, image in part.images.items():
        if key not in masked:
            problems.add(image.name, f"{part.title} has no usable annotation of this image")
    return list(masked.values())


def _segments(
    annotation: dict[str, Any], labels: dict[Id, int], where: str, problems: Problems
) -> dict[int, int] | None:
    """Number of a segment -> value in the mask."""
    found: dict[int, int] = {}
    segments = annotation.get("segments_info")
    for segment in segments if isinstance(segments, list) else ():
        number, category = (
            identifier(segment.get(key)) if isinstance(segment, dict) else None for key in ("id", "category_id")
        )
        if not isinstance(number, int) or category is None:
            problems.add(where, f"{shown(segment)} in segments_info has no id and category_id")
            return None
        if category not in labels:
            problems.add(where, f"there is no category {shown(category)}")
            return None
        if number in found:
            problems.add(where, f"segment id {number} occurs twice")
            return None
        found[number] = labels[category]
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
