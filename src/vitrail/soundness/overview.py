"""What was understood of a folder: parts, classes, sizes, formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data import IGNORE, LabelledImage, MaskSet, MultiLabelImage
from vitrail.data.check.appearance import Appearance
from vitrail.data.records import BoxedImage, PosedObject, Record, ScoredImage
from vitrail.soundness.reading import DataUnderCheck
from vitrail.soundness.soundness import Understood

MOST_FOLDERS = 40
"""Folders that are listed; a data set of a thousand classes has more, and its classes are listed already."""

MOST_SIZES = 5

COUNTED = {LabelledImage: "images", MultiLabelImage: "images", BoxedImage: "objects", PosedObject: "keypoints"}
"""Kind of sample -> what is counted of a class."""

Counts = dict[str, dict[str, int]]
"""Class -> part -> number."""


def understand(data: DataUnderCheck) -> Understood:
    """Parts, classes, folders, sizes and formats of the images that can be used."""
    looks = list(data.looks.values())
    folders = Counter(PurePosixPath(name).parent.as_posix() for name in data.looks)
    sizes = Counter(f"{one.width}x{one.height}" for one in looks)
    ordered = sorted(looks, key=lambda one: (one.width * one.height, one.width))
    counts, counted = class_counts(data)
    return Understood(
        num_images=len(looks),
        parts=dict(Counter(record.part for record in data.images.values())),
        classes=counts,
        counted=counted,
        folders=dict(sorted(folders.items()))
        if len(folders) <= MOST_FOLDERS
        else dict(folders.most_common(MOST_FOLDERS)),
        sizes=dict(sizes.most_common(MOST_SIZES)),
        num_sizes=len(sizes),
        smallest=_size(ordered[:1]),
        median=_size(ordered[len(ordered) // 2 :]),
        largest=_size(ordered[-1:]),
        kinds=dict(Counter(one.kind for one in looks).most_common()),
        notes=tuple(_notes(data.records)),
    )


def _size(looks: Sequence[Appearance]) -> tuple[int, int]:
    return (looks[0].width, looks[0].height) if looks else (0, 0)


def class_counts(data: DataUnderCheck) -> tuple[Counts, str]:
    """Class -> part -> number of its images, objects, labelled keypoints or (for masks) images; and what is counted."""
    classes = data.splits.classes
    counts: Counts = {name: {} for name in classes}
    if not classes or not data.records:
        return {}, ""
    counted = "images" if isinstance(data.samples, MaskSet) else COUNTED.get(type(data.records[0]), "")
    for index, record in enumerate(data.records):
        for label in _labels(data, index, record):
            own = counts[classes[label]]
            own[record.part] = own.get(record.part, 0) + 1
    return (counts, counted) if counted else ({}, "")


def _labels(data: DataUnderCheck, index: int, record: Record) -> Sequence[int]:
    """Classes of a sample, each as often as it counts."""
    if isinstance(record, LabelledImage):
        return (record.label,)
    if isinstance(record, MultiLabelImage):
        return record.labels
    if isinstance(record, BoxedImage):
        return [label for label, crowd in zip(record.labels, record.crowd, strict=True) if not crowd]
    if isinstance(record, PosedObject):
        return [place for place, (_, _, labelled) in enumerate(record.keypoints) if labelled]
    if isinstance(data.samples, MaskSet):
        try:
            found: list[int] = data.samples.target(index).unique().tolist()
        except DataError:
            return ()
        return [label for label in found if label != IGNORE]
    return ()


def _notes(records: Sequence[Record]) -> list[str]:
    """Sentences on the annotations that are no classes."""
    scores = [record.score for record in records if isinstance(record, ScoredImage)]
    boxed = [record for record in records if isinstance(record, BoxedImage)]
    posed = [record for record in records if isinstance(record, PosedObject)]
    tagged = [record for record in records if isinstance(record, MultiLabelImage)]
    notes = []
    if tagged:
        empty, unknown = sum(not one.labels for one in tagged), sum(len(one.unknown) for one in tagged)
        mean, most = sum(len(one.labels) for one in tagged) / len(tagged), max(len(one.labels) for one in tagged)
        notes.append(
            f"{mean:.1f} labels an image on average, at most {most}, and none in {empty} images"
            + (f"; {unknown} are unknown" if unknown else "")
        )
    if scores:
        low, middle, high = np.quantile(scores, [0, 0.5, 1]).tolist()
        notes.append(f"Scores go from {low:.4g} to {high:.4g}; half of them are above {middle:.4g}")
    if boxed:
        empty = sum(not one.labels for one in boxed)
        most = max(len(one.labels) for one in boxed)
        notes.append(
            f"{sum(len(one.labels) for one in boxed)} objects; at most {most} in an image, and none in {empty} images"
        )
    if posed:
        notes.append(f"{len(posed)} objects with keypoints in {len({one.image for one in posed})} images")
    return notes
