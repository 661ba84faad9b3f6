"""Images with any number of classes: tables, lists, or COCO's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.data_config import DataConfig
from vitrail.data.formats.coco_files import annotation_files
from vitrail.data.formats.coco_labels import read_coco_labels
from vitrail.data.formats.label_files import REMEDY, find_label_files
from vitrail.data.formats.label_tables import LabelTables, read_label_tables
from vitrail.data.formats.layout import data_folder, inner_folder, leave_out_rest
from vitrail.data.formats.own_folders import describe_own_folders
from vitrail.data.formats.tool_exports import describe_found
from vitrail.data.mirror import classes_with_sides, describe_sides
from vitrail.data.sets.multilabel_set import MultiLabelSet
from vitrail.data.sets.splits import DataSplits, as_splits, fingerprint
from vitrail.data.sets.stratify import cut_by_labels


def load_labels(config: DataConfig, *, progress: bool = False) -> DataSplits[MultiLabelSet]:
    """Find, check and split images with any number of classes each, also of none.

    Raises:
        DataError: no images, no classes, or rows that are wrong (unless ``config.bad_annotations`` is "skip": then
            their images are left out, and listed in ``skipped``).
    """
    try:
        root = inner_folder(data_folder(config.path, REMEDY))
        problems = Problems(config)
        with problems.told_first():
            if find_label_files(root):
                read = read_label_tables(root, problems)
            elif annotation_files(root, "instances"):
                classes, records = read_coco_labels(root, problems)
                read = LabelTables(classes=classes, records=records, columns=False, num_unknown=0)
            else:
                raise DataError(f"{root} has no table of labels; {describe_found(root)}{REMEDY}")
            if not read.classes or not read.records:
                raise DataError(f"{root} has {len(read.records)} images and {len(read.classes)} classes; {REMEDY}")
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error
    leave_out_rest(root, [record.name for record in read.records], problems)
    digests = problems.check_images(root, [record.name for record in read.records], progress=progress)
    good = problems.usable(read.records)
    sides = classes_with_sides(read.classes)
    problems.remark(describe_sides(sides))
    problems.remark(describe_own_folders(root))
    problems.remark(_describe_empty(read))
    samples = MultiLabelSet(
        records=good,
        num_classes=len(read.classes),
        named=frozenset(range(len(read.classes))) if read.columns else None,
        max_pixels=config.max_pixels,
        mirrored_alike=not sides,
    )
    mark = fingerprint(repr(read.classes), good, digests)
    splits = as_splits(samples, config, classes=read.classes, fingerprint=mark, problems=problems, cut=cut_by_labels)
    if config.val_fraction < 1:
        _require_labels(splits)
    return replace(splits, remarks=(*splits.remarks, *_describe_parts(splits)))


def _describe_empty(read: LabelTables) -> str:
    empty = sum(not record.labels for record in read.records)
    parts = [f"Images without any label: {empty} of {len(read.records)}"] if empty else []
    if read.num_unknown:
        total = len(read.records) * len(read.classes)
        parts.append(
            f"Unknown labels (-1 or blank): {read.num_unknown} of {total}; they are neither learnt nor measured"
        )
    return "; ".join(parts)


def _require_labels(splits: DataSplits[MultiLabelSet]) -> None:
    """
    Raises:
        DataError: a part for training or validation has images, and none of them has a class.
    """
    for name, part in (("training", splits.train), ("validation", splits.val)):
        if len(part) and not any(record.labels for record in part.records):
            raise DataError(
                f"none of the {len(part)} {name} images of {splits.source} has a label, so that nothing can be "
                f"learnt or measured; add images with labels, or name the parts yourself"
            )


def _describe_parts(splits: DataSplits[MultiLabelSet]) -> list[str]:
    """Sentences on classes that validation cannot measure, and on those that tell nothing apart."""
    found = []
    if len(splits.val) and (lacking := _lacking(splits, splits.val)):
        found.append(f"Classes without a validation image, which have no score: {_few(splits, lacking)}")
    if len(splits.train):
        without, having = splits.train.class_shares(len(splits.classes)).tolist()
        always = [label for label, count in enumerate(having) if count and not without[label]]
        if always:
            found.append(f"Classes that every training image has: {_few(splits, always)}")
    return found


def _lacking(splits: DataSplits[MultiLabelSet], part: MultiLabelSet) -> list[int]:
    seen = {label for record in part.records for label in record.labels}
    return [label for label in range(len(splits.classes)) if label not in seen]


def _few(splits: DataSplits[MultiLabelSet], labels: Sequence[int]) -> str:
    names = ", ".join(splits.classes[label] for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
    return f"{len(labels)} of {len(splits.classes)} ({names})"
