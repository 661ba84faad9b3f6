"""Images with one class each: class folders, a table, or the built-in sample."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence, Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.data_config import DataConfig
from vitrail.data.formats.built_in import CLASSES, read_built_in
from vitrail.data.formats.class_folders import REMEDY, read_class_folders
from vitrail.data.formats.label_tables import has_several_labels
from vitrail.data.formats.labels_csv import read_labels_csv
from vitrail.data.formats.layout import data_folder, find_table, inner_folder, leave_out_rest
from vitrail.data.formats.own_folders import describe_own_folders
from vitrail.data.mirror import classes_with_sides, describe_sides
from vitrail.data.records import LabelledImage
from vitrail.data.sets.copies import contradicting_classes
from vitrail.data.sets.image_set import ImageSet
from vitrail.data.sets.splits import DataSplits, as_splits, cut_by_class, fingerprint


def load_data(config: DataConfig | str | os.PathLike[str], *, progress: bool = False) -> DataSplits[ImageSet]:
    """Find, check and split the images of ``config.path``.

    Every file is decoded once, and again only after it has changed. Parts that the data names are kept; otherwise
    ``val`` is cut from ``train``, class by class. A ``labels.csv`` without a ``split`` column is all ``test``. With
    ``val_fraction=1`` the images are for evaluation: one class is enough, and no part has to be named for training.

    Args:
        config: what to load: a configuration, or a folder alone.
        progress: show a bar while files are checked.

    Raises:
        DataError: missing, empty or one-class data, a class that cannot be split, an image that has two classes, or
            more undecodable files than ``config.max_bad_fraction``.
    """
    config = config if isinstance(config, DataConfig) else DataConfig(path=os.fspath(config))
    if config.path == "sample":
        return _load_built_in(config)
    problems = Problems(config)
    try:
        root = inner_folder(data_folder(config.path, REMEDY))
        listed = find_table(root, "labels.csv") is not None
        with _several_labels_told(root, problems, listed=listed):
            classes, records = read_labels_csv(root) if listed else read_class_folders(root, problems)
        if len(classes) < 2 and config.val_fraction < 1:
            raise DataError(f"{root} has only one class ({classes[0]}), and telling classes apart needs at least 2")
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error
    leave_out_rest(root, [record.name for record in records], problems)
    digests = problems.check_images(root, [record.name for record in records], progress=progress)
    if config.val_fraction < 1:
        for name, reason in contradicting_classes(records, classes, digests).items():
            problems.add(name, reason)
    good = problems.usable(records)
    _require_every_class(records, problems.names, classes)
    sides = classes_with_sides(classes)
    problems.remark(describe_sides(sides))
    problems.remark(describe_own_folders(root))
    return as_splits(
        ImageSet(records=good, max_pixels=config.max_pixels, mirrored_alike=not sides),
        config,
        classes=classes,
        fingerprint=fingerprint("", good, digests),
        problems=problems,
        cut=cut_by_class,
    )


@contextmanager
def _several_labels_told(root: Path, problems: Problems, *, listed: bool) -> Iterator[None]:
    """Tables that give an image several classes are for another task: errors say so, and so does a warning where such a
    table was read for single classes (``listed``).

    Raises:
        DataError: the block raises one.
    """
    remedy = "pass --task multilabel"
    try:
        yield
    except DataError as error:
        if has_several_labels(root):
            raise DataError(f"{error}; a table gives images several classes: for that, {remedy}") from error
        raise
    if listed and has_several_labels(root):
        problems.warnings.append(f"Labels in {root} look like several classes an image; if they are, {remedy}")


def _load_built_in(config: DataConfig) -> DataSplits[ImageSet]:
    """The sample is not to be mirrored: right hands were photographed, and what a mirrored sign means is not for an
    augmentation to decide."""
    records = read_built_in()
    digests = {one.name: hashlib.sha256(one.source).hexdigest() for one in records if isinstance(one.source, bytes)}
    records = [replace(one, digest=digests[one.name]) for one in records]
    samples, mark = ImageSet(records=records, mirrored_alike=False), fingerprint("", records, digests)
    problems = Problems(config)
    return as_splits(samples, config, classes=CLASSES, fingerprint=mark, problems=problems, cut=cut_by_class)


def _require_every_class(records: Sequence[LabelledImage], bad: AbstractSet[str], classes: Sequence[str]) -> None:
    """A class whose training images all turned out undecodable cannot be learnt."""
    trainable = [record for record in records if record.part in ("train", "")]
    lost = {one.label for one in trainable} - {one.label for one in trainable if one.name not in bad}
    if lost:
        names = ", ".join(classes[label] for label in sorted(lost)[:5])
        raise DataError(
            f"{len(lost)} {'classes have' if len(lost) > 1 else 'class has'} no usable training image ({names}); "
            f"add images or remove such classes"
        )
