"""Objects with keypoints from COCO's JSON, any skeleton."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.formats.coco import SLACK, CocoImage, CocoObject, is_number, is_numbers
from vitrail.data.records import PosedObject


def posed_objects(images: Sequence[CocoImage], count: int, problems: Problems) -> tuple[list[PosedObject], int]:
    """Every object with a labelled keypoint, and how many objects have none.

    Args:
        images: from :func:`~vitrail.data.formats.coco.read_coco`; those among ``problems.names`` are left out.
        count: keypoints of an object.
        problems: takes everything that is wrong.
    """
    records, unlabelled = [], 0
    for image in images:
        if image.name in problems.names:
            continue
        for one in image.objects:
            record = _posed(image, one, count, problems)
            if record is None or not any(point[2] for point in record.keypoints):
                unlabelled += record is not None
            else:
                records.append(record)
    return records, unlabelled


def read_skeleton(
    root: Path, categories: Sequence[dict[str, Any]]
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Names of the keypoints, and pairs of indices that are joined by a line (1-based in the JSON).

    Raises:
        DataError: none or several skeletons, or a name that occurs twice.
    """
    every = {tuple(map(str, category.get("keypoints") or ())) for category in categories} - {()}
    if len(every) != 1:
        raise DataError(
            f"{root} has {len(every)} skeletons among its categories; one is needed ('keypoints' in the JSON)"
        )
    (names,) = every
    if len(set(names)) < len(names):
        raise DataError(f"{root} names a keypoint twice; give each its own name")
    edges = next((category.get("skeleton") or () for category in categories if category.get("keypoints")), ())
    pairs = [(edge[0] - 1, edge[1] - 1) for edge in edges if is_numbers(edge, 2)]
    return names, tuple((int(a), int(b)) for a, b in pairs if 0 <= a < len(names) and 0 <= b < len(names))


def _posed(image: CocoImage, one: CocoObject, count: int, problems: Problems) -> PosedObject | None:
    points = _points(image, one, count, problems)
    if points is None:
        return None
    area, box = one.values.get("area"), one.box
    sides = (box[2] - box[0]) * (box[3] - box[1])
    return PosedObject(
        name=f"{image.name}#{one.key}",
        source=image.path,
        part=image.part,
        image=image.name,
        box=box,
        keypoints=points,
        area=float(area) if is_number(area) and area > 0 else sides,
    )


def _points(
    image: CocoImage, one: CocoObject, count: int, problems: Problems
) -> tuple[tuple[float, float, float], ...] | None:
    values = one.values.get("keypoints")
    if one.crowd and not values:
        return ((0.0, 0.0, 0.0),) * count
    if not is_numbers(values, 3 * count):
        problems.add(one.where, f"its keypoints are not {count} triples of numbers x, y, visibility")
        return None
    assert values is not None
    points = tuple((float(x), float(y), float(v > 0)) for x, y, v in zip(*[iter(values)] * 3, strict=True))
    rows, columns = image.size
    for index, (x, y, labelled) in enumerate(points):
        if labelled and not (-SLACK <= x <= columns + SLACK and -SLACK <= y <= rows + SLACK):
            problems.add(
                one.where, f"keypoint {index + 1} at {x:g}, {y:g} lies outside of the image of {columns}x{rows} pixels"
            )
            return None
    return points
