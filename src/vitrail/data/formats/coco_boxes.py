"""Boxes, and the masks of single objects, from COCO's JSON."""

from __future__ import annotations

from pathlib import Path

from vitrail.core.types import ImageSize
from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco import CocoObject, read_coco
from vitrail.data.formats.coco_shapes import problem_of_mask
from vitrail.data.records import BoxedImage


def read_coco_boxes(root: Path, problems: Problems, *, masks: bool) -> tuple[tuple[str, ...], list[BoxedImage]]:
    """Names of the classes, and images in the order of the files.

    Args:
        root: the data folder.
        problems: takes everything that is wrong.
        masks: whether to read the masks of objects as well; an object without a usable one is wrong then.

    Raises:
        DataError: no annotations, or files that are no COCO JSON.
    """
    images, categories = read_coco(root, "instances", problems)
    records = []
    for image in images:
        objects = [one for one in image.objects if not masks or _has_mask(one, image.size, problems)]
        crowd = tuple(one.crowd for one in objects)
        shapes = tuple(None if c else one.values.get("segmentation") for one, c in zip(objects, crowd, strict=True))
        records.append(
            BoxedImage(
                name=image.name,
                source=image.path,
                part=image.part,
                boxes=tuple(one.box for one in objects),
                labels=tuple(one.label for one in objects),
                crowd=crowd,
                shapes=shapes if masks else None,
            )
        )
    return tuple(entry["name"] for entry in categories), records


def _has_mask(one: CocoObject, size: ImageSize, problems: Problems) -> bool:
    reason = None if one.crowd else problem_of_mask(one.values.get("segmentation"), size)
    if reason is not None:
        problems.add(one.where, reason)
    return reason is None
