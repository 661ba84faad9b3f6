"""Images with one class each: class folders, a table, or the built-in sample."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence, Set as AbstractSet

from vitrail.core.errors import DataError
from vitrail.data.check.problems import Problems
from vitrail.data.data_config import DataConfig
from vitrail.data.formats.built_in import CLASSES, read_built_in
from vitrail.data.formats.class_folders import REMEDY, read_class_folders
from vitrail.data.formats.labels_csv import read_labels_csv
from vitrail.data.formats.layout import data_folder
from vitrail.data.formats.own_folders import describe_own_folders
from vitrail.data.mirror import classes_with_sides, describe_sides
from vitrail.data.records import LabelledImage
from vitrail.data.sets.image_set import ImageSet
from vitrail.data.sets.splits import DataSplits, as_splits, cut_by_class, fingerprint


def load_data(config: DataConfig | str | os.PathLike[str], *, progress: bool = False) -> DataSplits[ImageSet]:
    """Find, check and split the images of ``config.path``.

    Every file is decoded once, and again only after it has changed. Parts that the data names are kept; otherwise
    ``val`` is cut from ``train``, class by class. A ``labels.csv`` without a ``split`` column is all ``test``.

    Args:
        config: what to load: a configuration, or a folder alone.
        progress: show a bar while files are checked.

    Raises:
        DataError: missing, empty or one-class data, a class that cannot be split, or more undecodable files than
            ``config.max_bad_fraction``.
    """
    config = config if isinstance(config, DataConfig) else DataConfig(path=os.fspath(config))
    if config.path == "sample":
        return _load_built_in(config)
    root = data_folder(config.path, REMEDY)
    try:
        classes, records = read_labels_csv(root) if (root / "labels.csv").is_file() else read_class_folders(root)
    except PermissionError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error
    problems = Problems(config)
    digests = problems.check_images(root, [record.name for record in records], progress=progress)
    good = problems.usable(records)
    _require_every_class(records, problems.names, classes)
    sides = classes_with_sides(classes)
    return as_splits(
        ImageSet(records=good, max_pixels=config.max_pixels, mirrored_alike=not sides),
        config,
        classes=classes,
        fingerprint=fingerprint("", good, digests),
        skipped=problems.listed(),
        remarks=" ".join(filter(None, (describe_sides(sides), describe_own_folders(root)))),
        cut=cut_by_class,
    )


def _load_built_in(config: DataConfig) -> DataSplits[ImageSet]:
    """The sample is not to be mirrored: right hands were photographed, and what a mirrored sign means is not for an
    augmentation to decide."""
    records = read_built_in()
    digests = {one.name: hashlib.sha256(one.source).hexdigest() for one in records if isinstance(one.source, bytes)}
    samples, mark = ImageSet(records=records, mirrored_alike=False), fingerprint("", records, digests)
    return as_splits(samples, config, classes=CLASSES, fingerprint=mark, skipped=(), cut=cut_by_class)


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
