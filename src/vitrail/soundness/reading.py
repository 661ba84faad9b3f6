"""The data set as it is read for a check: everything that can be used, and what a training would say to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data import DataConfig, DataSplits, Record, Samples
from vitrail.data.check.appearance import Appearance, look_at
from vitrail.data.check.near_copies import NearCopy, find_near_copies
from vitrail.soundness.config import CheckConfig
from vitrail.soundness.recognize import likely_tasks
from vitrail.tasks.create import find_task

PART_ORDER = {"train": 0, "": 0, "val": 1, "test": 2}
"""Part -> place: of two copies the one in the later part is the one to delete."""


@dataclass(frozen=True, kw_only=True)
class DataUnderCheck:
    """A data set, and what its images look like.

    Attributes:
        path: as it was given.
        task: what it is read for.
        others: further tasks that it may be meant for.
        splits: everything that can be used; images that the data puts into no part are in ``val``.
        samples: all samples.
        looks: image file -> its appearance.
        refused: what a training says instead of beginning; "" where it begins.
    """

    path: str
    task: str
    others: tuple[str, ...]
    splits: DataSplits[Any]
    samples: Samples
    looks: dict[str, Appearance]
    refused: str

    @property
    def records(self) -> Sequence[Record]:
        """All samples; several may be of one image."""
        return self.samples.records

    @cached_property
    def images(self) -> dict[str, Record]:
        """Image file -> the first of its samples, in the order of the samples."""
        found: dict[str, Record] = {}
        for record in self.records:
            if record.files[0] in self.looks:
                found.setdefault(record.files[0], record)
        return found

    @cached_property
    def equals(self) -> list[list[str]]:
        """Image files of equal pixels, group by group, those of earlier parts first; most groups have one file."""
        groups: dict[str, list[str]] = {}
        for name in sorted(self.images, key=lambda one: PART_ORDER.get(self.images[one].part, 0)):
            groups.setdefault(self.looks[name].pixels, []).append(name)
        return list(groups.values())

    @cached_property
    def near_copies(self) -> list[NearCopy]:
        """Pairs of :attr:`equals`, by index, that are all but the same."""
        if not self.equals:
            return []
        return find_near_copies(np.array([self.looks[group[0]].thumbnail for group in self.equals]))


def read_for_check(path: str, config: CheckConfig, *, progress: bool = False) -> DataUnderCheck:
    """Read a data set of any task, leaving out what is broken.

    Raises:
        DataError: nothing of the folder can be used.
    """
    tasks = [config.task] if config.task is not None else likely_tasks(path)
    kind = find_task(tasks[0])
    lenient = DataConfig(path=path, val_fraction=1.0, max_bad_fraction=1.0, bad_annotations="skip")
    splits = kind.load_data(lenient, progress=progress)
    try:
        kind.load_data(DataConfig(path=path))  # the images are decoded already
        refused = ""
    except DataError as error:
        refused = str(error)
    samples = splits.choose("all")
    looks = look_at(
        samples.records,
        max_pixels=samples.max_pixels,
        pixel_range=samples.pixel_range,
        damaged=samples.damaged,
        progress=progress,
    )
    return DataUnderCheck(
        path=path,
        task=kind.name,
        others=tuple(tasks[1:]),
        splits=splits,
        samples=samples,
        looks=looks,
        refused=refused,
    )
