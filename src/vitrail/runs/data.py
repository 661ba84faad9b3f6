"""The images of a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vitrail.core.errors import DataError
from vitrail.data import DataSplits
from vitrail.runs.load import task_of
from vitrail.runs.parts import (
    KnownImage,
    annotated_otherwise,
    known_images,
    parts_as_trained,
    read_parts,
    refuse_replaced,
)
from vitrail.runs.run import Run

LOG = logging.getLogger(__name__)

UNKNOWN = (
    "the images of {} are not those of the training, and the run was made by an earlier Vitrail that kept no list of "
    "them: training images may be among the held-out ones"
)


def load_run_data(run: Run, *, other: str | None = None, progress: bool = False) -> DataSplits[Any]:
    """The data of a run in the parts of its training, as far as it is still there; or all images of another folder.

    What has changed since the training is told in a warning and in ``remarks``. Images that came later are left out:
    a training image is never held out.

    Args:
        run: run whose task, configuration and classes hold.
        other: folder of other images. Default: the folder of the training.
        progress: show a bar while files are checked.

    Raises:
        DataError: the folder is missing, has classes that the model lacks, has other contents under the names of the
            training, or none of the held-out images is left.
        RunError: the list of the run's images is damaged.
    """
    description = run.read()
    config, known = description.training.data, read_parts(run.images) if run.images.exists() else None
    if other is not None:
        config = replace(config, path=other)
    if other is not None or known is not None:
        config = replace(config, val_fraction=1.0)  # the parts are known, or all images are wanted
    data = task_of(run).load_data(config, progress=progress)
    told: tuple[str, ...] = ()
    if known is not None and other is None:
        data, told = _in_known_parts(data, known, run)
    else:
        data = data.align(description.classes)
        if other is not None:
            told = _told_of_others(data, known or (), run)
        elif data.fingerprint != description.data.fingerprint:
            told = (UNKNOWN.format(config.path),)
    for sentence in told:
        LOG.warning("%s", sentence)
    return replace(data, remarks=(*data.remarks, *told))


def _in_known_parts(
    data: DataSplits[Any], known: Sequence[KnownImage], run: Run
) -> tuple[DataSplits[Any], tuple[str, ...]]:
    """The data in the parts of the training, and sentences on what has changed."""
    source = data.source
    data, changes = parts_as_trained(data, known)
    refuse_replaced(changes, source, run.folder)
    if len(data.held_out) == 0:
        raise DataError(
            f"none of the images that {run.folder} held out is left in {source}; restore them, or evaluate other "
            f"images with: vitrail evaluate {run.folder} --data FOLDER"
        )
    data = data.align(run.read().classes)
    changes.annotated = annotated_otherwise(data, known)
    return data, changes.sentences(source)


def _told_of_others(data: DataSplits[Any], known: Sequence[KnownImage], run: Run) -> tuple[str, ...]:
    """A sentence if images of another folder were trained on."""
    trained, description = {one.image for one in known if one.part == "train" and one.image}, run.read()
    seen = sum(one.image in trained for one in known_images(data))
    if not known and data.fingerprint == description.data.fingerprint:
        seen = description.data.num_train  # a run without the list, and the very same images
    return (f"{seen} images of {data.source} are training images of {run.folder}, which its model knows",) * bool(seen)
