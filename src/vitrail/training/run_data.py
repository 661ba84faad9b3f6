"""The images that a run was trained with, once more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vitrail.core.run import Run
from vitrail.data import DataSplits
from vitrail.tasks import find_task
from vitrail.training.config import TrainConfig


def load_run_data(run: Run, *, other: str | None = None, progress: bool = False) -> DataSplits[Any]:
    """The data of a run, split as for training; or all images of an ``other`` folder, with the run's classes.

    Raises:
        DataError: the folder is gone, or has classes that the model does not know.
    """
    description = run.read()
    config = TrainConfig.from_dict(description["training"]).data
    if other is not None:
        config = replace(config, path=other, val_fraction=1.0)
    return find_task(description["task"]).load_data(config, progress=progress).align(description["classes"])
