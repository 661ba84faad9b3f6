"""Boxes, and the masks of single objects, from COCO's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco import read_coco
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
    files = read_coco(root, "instances", problems)
    index = {identifier: number for number, identifier in enumerate(files.categories)}
    records = []
    for image in files.images:
        kept = [
            (box, index[one["category_id"]], bool(one.get("iscrowd", 0)), one.get("segmentation"))
            for box, one, where in zip(image.boxes, image.objects, image.where, strict=True)
            if not masks or _has_mask(one, image.size, where, problems)
        ]
        boxes, labels, crowd, shapes = zip(*kept, strict=True) if kept else ((), (), (), ())
        records.append(
            BoxedImage(
                name=image.name,
                source=image.path,
                part=image.part,
                boxes=boxes,
                labels=labels,
                crowd=crowd,
                shapes=tuple(None if c else s for s, c in zip(shapes, crowd, strict=True)) if masks else None,
            )
        )
    return tuple(str(entry["name"]) for entry in files.categories.values()), records


def _has_mask(annotation: dict[str, Any], size: tuple[int, int], where: str, problems: Problems) -> bool:
    reason = None if annotation.get("iscrowd") else problem_of_mask(annotation.get("segmentation"), size)
    if reason is not None:
        problems.add(where, reason)
    return reason is None
