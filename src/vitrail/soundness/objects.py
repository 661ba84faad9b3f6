"""Boxes: tiny ones, the same object twice, one object with two classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vitrail.data.records import Box, BoxedImage
from vitrail.soundness.reading import DataUnderCheck
from vitrail.soundness.soundness import Example, Finding, amount

TINY = 0.01
"""Shorter side of a box over the longer side of its image below which little is left of it at 224 pixels."""

SAME = 0.9
"""Overlap (intersection over union) from which two boxes stand for one object."""

TEXTS = {
    "objects-with-two-classes": (
        ("object has two classes", "objects have two classes"),
        "Two boxes lie on one another; delete the wrong one.",
    ),
    "objects-twice": (
        ("object is annotated twice", "objects are annotated twice"),
        "Two boxes of one class lie on one another; delete one.",
    ),
    "tiny-objects": (
        ("object is tiny", "objects are tiny"),
        f"Their shorter side is below {TINY:.0%} of the image's longer one; a larger --image-size or tiles keep more.",
    ),
}
"""Finding -> what is said of one object and of several, and what mends it."""


def find_odd_objects(data: DataUnderCheck) -> list[Finding]:
    """Findings on boxes; empty where the task has none."""
    found: dict[str, list[tuple[float, Example]]] = {name: [] for name in TEXTS}
    for record in data.records:
        if isinstance(record, BoxedImage) and (look := data.looks.get(record.name)) is not None:
            for name, rank, example in _odd_boxes(record, max(look.width, look.height), data.splits.classes):
                found[name].append((rank, example))
    return [
        Finding(
            name=name,
            serious=False,
            title=amount(len(rows), *TEXTS[name][0]),
            text=TEXTS[name][1],
            count=len(rows),
            examples=tuple(example for _, example in sorted(rows, key=lambda row: row[0])),
        )
        for name, rows in found.items()
        if rows
    ]


def _odd_boxes(record: BoxedImage, side: int, classes: Sequence[str]) -> Iterator[tuple[str, float, Example]]:
    """Finding, rank (the worst is the smallest), and case; ``side`` is the image's longer side in pixels."""
    for box, label in zip(record.boxes, record.labels, strict=True):
        share = min(box[2] - box[0], box[3] - box[1]) / side
        if share < TINY:
            yield "tiny-objects", share, _example(record, classes[label], box)
    for first, second in _same_objects(record):
        names = dict.fromkeys(classes[record.labels[index]] for index in (first, second))
        kind = "objects-twice" if len(names) == 1 else "objects-with-two-classes"
        yield kind, 0.0, _example(record, " and ".join(names), record.boxes[second])


def _example(record: BoxedImage, label: str, box: Box) -> Example:
    left, top, right, bottom = box
    note = f"{label}, {right - left:.3g}x{bottom - top:.3g} at {left:.0f}, {top:.0f}"
    return Example(files=(record.name,), note=note, box=box)


def _same_objects(record: BoxedImage) -> Iterator[tuple[int, int]]:
    kept = [index for index, crowd in enumerate(record.crowd) if not crowd]
    if len(kept) < 2:
        return
    boxes = np.array([record.boxes[index] for index in kept])
    overlaps = np.triu(_overlaps(boxes), 1)
    for first, second in np.argwhere(overlaps >= SAME).tolist():
        yield kept[first], kept[second]


def _overlaps(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of all pairs."""
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = sides.clip(min=0).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    joint: NDArray[np.float64] = shared / (areas[:, None] + areas[None, :] - shared)
    return joint
