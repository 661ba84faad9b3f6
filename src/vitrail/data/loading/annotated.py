"""Images with boxes, masks of objects, keypoints or scores."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from vitrail.core.errors import DataError
from vitrail.data.check.problems import LeftOut, Problems
from vitrail.data.data_config import DataConfig
from vitrail.data.formats.coco import read_coco
from vitrail.data.formats.coco_boxes import read_coco_boxes
from vitrail.data.formats.coco_files import annotation_files
from vitrail.data.formats.coco_keypoints import posed_objects, read_skeleton
from vitrail.data.formats.coco_shapes import require_pycocotools
from vitrail.data.formats.layout import data_folder, inner_folder, leave_out_rest
from vitrail.data.formats.mirror_pairs import pairs_of_categories, pairs_of_texts
from vitrail.data.formats.score_tables import read_scores
from vitrail.data.formats.tool_exports import describe_found
from vitrail.data.formats.voc import is_voc, read_voc
from vitrail.data.formats.yolo import REMEDY, read_yolo
from vitrail.data.formats.yolo_names import read_description
from vitrail.data.mirror import classes_with_sides, describe_mirror, describe_sides, mirror_order
from vitrail.data.sets.box_set import BoxSet, InstanceSet
from vitrail.data.sets.keypoint_set import KeypointSet
from vitrail.data.sets.score_set import ScoreSet
from vitrail.data.sets.splits import DataSplits, as_splits, fingerprint

AnyBoxes = TypeVar("AnyBoxes", bound=BoxSet)


def load_boxes(config: DataConfig, *, progress: bool = False) -> DataSplits[BoxSet]:
    """Find, check and split images and boxes.

    Raises:
        DataError: no images, no classes, or annotations that are wrong (unless ``config.bad_annotations`` is "skip":
            then they are left out, and listed in ``skipped``).
    """
    return _load(BoxSet, config, masks=False, progress=progress)


def load_instances(config: DataConfig, *, progress: bool = False) -> DataSplits[InstanceSet]:
    """As :func:`load_boxes`, from COCO JSON alone; objects without a usable mask are wrong.

    Raises:
        DataError: as there.
        MissingDependencyError: pycocotools is not installed.
    """
    require_pycocotools()
    return _load(InstanceSet, config, masks=True, progress=progress)


def _load(kind: type[AnyBoxes], config: DataConfig, *, masks: bool, progress: bool) -> DataSplits[AnyBoxes]:
    root = inner_folder(data_folder(config.path, REMEDY))
    problems = Problems(config)
    with problems.told_first():
        if _is_coco(root, masks=masks):
            classes, records = read_coco_boxes(root, problems, masks=masks)
            problems.remark(_second_form(root))
        elif read_description(root) is None and is_voc(root):
            classes, records = read_voc(root, problems)
        else:
            classes, records = read_yolo(root, problems)
        if not records or not classes:
            raise DataError(f"{root} has {len(records)} usable images and {len(classes)} classes; {REMEDY}")
    leave_out_rest(root, [record.name for record in records], problems)
    digests = problems.check_images(root, [record.name for record in records], progress=progress)
    good = problems.usable(records)
    sides = classes_with_sides(classes)
    problems.remark(describe_sides(sides))
    samples = kind(records=good, max_pixels=config.max_pixels, mirrored_alike=not sides)
    return as_splits(
        samples,
        config,
        classes=classes,
        fingerprint=fingerprint(repr(classes), good, digests),
        problems=problems,
    )


def _is_coco(root: Path, *, masks: bool) -> bool:
    """Whether a folder has COCO JSON; YOLO's text counts where that has no training part.

    Raises:
        DataError: masks are needed, and there is no COCO JSON.
    """
    parts = {part for _, part in annotation_files(root, "instances")}
    if masks and not parts:
        needed = "give COCO JSON (annotations/train.json beside train/)"
        raise DataError(f"{root} has no masks of objects; {describe_found(root)}{needed}")
    return bool(masks or parts & {"train", ""} or (parts and read_description(root) is None))


def _second_form(root: Path) -> str:
    """A sentence if a folder with COCO JSON has boxes in another form too; "" if it has not."""
    with suppress(DataError):  # what is not read need not be right
        if read_description(root) is not None:
            return "Boxes are read from the COCO JSON; the YOLO text files beside it are not read"
        if is_voc(root):
            return "Boxes are read from the COCO JSON; the XML files beside it are not read"
    return ""


def load_keypoints(config: DataConfig, *, progress: bool = False) -> DataSplits[KeypointSet]:
    """Find, check and split objects with keypoints; ``classes`` are the names of the keypoints.

    Raises:
        DataError: no such annotations, or wrong ones (unless ``config.bad_annotations`` is "skip").
    """
    root = inner_folder(data_folder(config.path, "give COCO JSON with keypoints beside train/ and val/"))
    problems = Problems(config)
    with problems.told_first():
        images, categories = read_coco(root, "keypoints", problems)
        names, skeleton = read_skeleton(root, categories)
        pairs = pairs_of_texts(names, config.mirror_pairs) or pairs_of_categories(root, categories, names)
    mirror = mirror_order(names, pairs)
    leave_out_rest(root, [image.name for image in images], problems)
    digests = problems.check_images(root, [image.name for image in images], progress=progress)
    records, unlabelled = posed_objects(images, len(names), problems)
    problems.settle(len(images))
    problems.remark(describe_mirror(names, mirror))
    with problems.told_first():
        if not records:
            raise DataError(f"{root} has no objects with labelled keypoints")
    samples = KeypointSet(
        records=[replace(record, digest=digests[record.image]) for record in records],
        skeleton=skeleton,
        places=tuple(range(len(names))),
        mirror=mirror or tuple(range(len(names))),
        max_pixels=config.max_pixels,
        mirrored_alike=bool(mirror),
    )
    mark = fingerprint(repr(names), records, {record.name: digests[record.image] for record in records})
    if unlabelled:
        problems.leave_out([LeftOut("", f"{unlabelled} objects without labelled keypoints", unlabelled)])
    return as_splits(
        samples,
        config,
        classes=names,
        fingerprint=mark,
        problems=problems,
    )


def load_scores(config: DataConfig, *, progress: bool = False) -> DataSplits[ScoreSet]:
    """The images of ``scores.csv`` or ``AVA.txt`` in ``config.path``.

    Rows that are wrong (a score outside of the scale, votes that are no numbers or none at all, a missing image, an
    image that occurs twice) are listed with their line and refuse the data, or are left out with
    ``bad_annotations="skip"``.

    Raises:
        DataError: unreadable or wrong data, too many broken images, or scores that are all the same.
    """
    root = inner_folder(data_folder(config.path, "give a folder with scores.csv or AVA.txt"))
    problems = Problems(config)
    scale, records = read_scores(root, problems)
    leave_out_rest(root, [record.name for record in records], problems)
    digests = problems.check_images(root, [record.name for record in records], progress=progress)
    good = problems.usable(records)
    if len({record.score for record in good}) < 2:
        raise DataError(f"all {len(good)} images of {config.path} have the same score; there is nothing to tell apart")
    samples = ScoreSet(records=good, scale=scale, max_pixels=config.max_pixels)
    mark = fingerprint(repr(scale), good, digests)
    return as_splits(samples, config, classes=(), fingerprint=mark, problems=problems)
