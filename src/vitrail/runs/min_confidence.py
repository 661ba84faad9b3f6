"""The least probability of an object or a class in answers: found on the validation images, kept in ``run.json``."""

from __future__ import annotations

from typing import Any

import torch

from vitrail.core.progress import track
from vitrail.data import DataSplits, eval_loader
from vitrail.runs.description import ConfidenceEntry
from vitrail.runs.load import found_confidence, set_confidence
from vitrail.runs.run import Run
from vitrail.tasks import Task

BATCH_SIZE = 16

SEARCHING = "Finding the confidence"
"""Title of the work that people see."""


def keep_confidence(run: Run, task: Task, data: DataSplits[Any], *, progress: bool = False) -> ConfidenceEntry | None:
    """The least probability with the best F1, taken from the run, or found and written there; the task takes it.

    Args:
        run: run with weights.
        task: its task.
        data: its images, of which the validation part is used.
        progress: show a bar.

    Returns:
        None for tasks without such a bound, or where there are no validation images.
    """
    search = task.confidence_search()
    if search is None or not len(data.val):
        return None
    found = found_confidence(run)
    if found is None:
        preprocessing, device = run.read().preprocessing, next(task.parameters()).device
        loader = eval_loader(data.val, preprocessing, batch_size=BATCH_SIZE)
        for batch in track(loader, SEARCHING, progress=progress):
            with torch.inference_mode():
                search.update(task(preprocessing.normalize(batch.images.to(device))), batch.targets)
        least, f1 = search.best()
        found = ConfidenceEntry(
            min_confidence=least,
            by_class=search.by_class(),
            f1=f1,
            num_images=len(data.val),
            weights_hash=run.weights_hash,
        )
        run.update(confidence=found.model_dump())
    set_confidence(task, found)
    return found
