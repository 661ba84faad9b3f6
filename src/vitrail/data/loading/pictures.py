"""Images without annotations, or with their classes: any folder, or what :func:`vitrail.data.load_data` reads."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.core.paths import user_path
from vitrail.data.check.problems import Problems
from vitrail.data.data_config import DataConfig
from vitrail.data.formats.class_folders import read_class_folders
from vitrail.data.formats.layout import PART_NAMES, data_folder, find_images, find_table, leave_out_rest
from vitrail.data.formats.own_folders import describe_own_folders
from vitrail.data.loading.images import load_data
from vitrail.data.records import LabelledImage, Record
from vitrail.data.sets.image_set import ImageSet, PictureSet
from vitrail.data.sets.splits import DataSplits, as_splits

REMEDY = "give a folder of images, or 'sample'"


def load_pictures(
    config: DataConfig, *, labelled: bool | None, crops: bool, progress: bool = False
) -> DataSplits[PictureSet]:
    """Images of a folder at any depth, or with their classes.

    Without classes, images in a folder ``train``, ``val`` or ``test`` right below ``config.path`` belong to that part;
    where none is in ``val``, it is cut from training by seed.

    Args:
        config: where they are, and how they are split.
        labelled: whether to find class folders or a table, as :func:`~vitrail.data.load_data` does; None where there
            are any.
        crops: see :class:`~vitrail.data.PictureSet`.
        progress: show a bar while files are checked.

    Raises:
        DataError: missing or empty data, or too many files that cannot be decoded.
    """
    if labelled is None:
        labelled = config.path == "sample" or _has_classes(user_path(config.path), config)
    if labelled or config.path == "sample":
        return _from_images(load_data(config, progress=progress), labelled=labelled, crops=crops)
    root = data_folder(config.path, REMEDY)
    records = _records(root)
    if not records:
        raise DataError(f"{config.path} has no images at any depth; {REMEDY}")
    problems = Problems(config)
    leave_out_rest(root, [record.name for record in records], problems)
    digests = problems.check_images(root, [record.name for record in records], progress=progress)
    good = problems.usable(records)
    lines = "".join(record.fingerprint_line(digests[record.name]) for record in good)
    mark = hashlib.sha256(lines.encode("utf-8", "replace")).hexdigest()  # in the order of the files
    labelled_as_0 = [
        LabelledImage(name=one.name, source=one.source, part=one.part, digest=one.digest, label=0) for one in good
    ]
    samples = PictureSet(records=labelled_as_0, crops=crops, max_pixels=config.max_pixels)
    problems.remark(describe_own_folders(root))
    return as_splits(samples, config, classes=(), fingerprint=mark, problems=problems)


def _records(root: Path) -> list[Record]:
    files = [path.relative_to(root) for path in find_images(root)]
    parts = [PART_NAMES.get(file.parts[0].lower(), "") if len(file.parts) > 1 else "" for file in files]
    named = "train" in parts
    return [
        Record(name=file.as_posix(), source=root / file, part=part if named else "")
        for file, part in zip(files, parts, strict=True)
    ]


def _has_classes(root: Path, config: DataConfig) -> bool:
    if find_table(root, "labels.csv") is not None:
        return True
    try:
        return len(read_class_folders(root.resolve(), Problems(config))[0]) > 1
    except (DataError, OSError):
        return False


def _from_images(data: DataSplits[ImageSet], *, labelled: bool, crops: bool) -> DataSplits[PictureSet]:
    def convert(part: ImageSet) -> PictureSet:
        return PictureSet(
            records=part.records if labelled else [replace(record, label=0) for record in part.records],
            crops=crops,
            max_pixels=part.max_pixels,
            mirrored_alike=part.mirrored_alike,
            pixel_range=part.pixel_range,
            damaged=part.damaged,
        )

    return DataSplits(
        classes=data.classes if labelled else (),
        train=convert(data.train),
        val=convert(data.val),
        test=None if data.test is None else convert(data.test),
        fingerprint=data.fingerprint,
        skipped=data.skipped,
        source=data.source,
        remarks=data.remarks,
        warnings=data.warnings,
        num_skipped=data.num_skipped,
        pixel_range=data.pixel_range,
        undecodable=data.undecodable,
        wrong_annotations=data.wrong_annotations,
    )
