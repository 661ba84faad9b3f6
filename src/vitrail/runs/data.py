"""The images of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vitrail.data import DataSplits
from vitrail.runs.load import task_of
from vitrail.runs.run import Run


def load_run_data(run: Run, *, other: str | None = None, progress: bool = False) -> DataSplits[Any]:
    """The data of a run, split as in training; or all images of the folder ``other``, with the run's classes.

    Raises:
        DataError: the folder is missing, or has classes that the model lacks.
    """
    description = run.read()
    config = description.training.data
    if other is not None:
        config = replace(config, path=other, val_fraction=1.0)
    return task_of(run).load_data(config, progress=progress).align(description.classes)
