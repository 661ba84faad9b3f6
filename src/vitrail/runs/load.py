"""Tasks from run folders: described in ``run.json``, weights in ``model.safetensors``."""

from __future__ import annotations

from vitrail.models.checkpoint import load_strictly, read_trained
from vitrail.runs.description import Description
from vitrail.runs.run import Run
from vitrail.tasks import Task, create_task


def task_of(run: Run) -> type[Task]:
    """The task of a run.

    Raises:
        RunError: ``run.json`` names none, or one that this version does not know.
    """
    return run.read().kind


def build_task(description: Description) -> Task:
    """The task that a description asks for, freshly initialised.

    Raises:
        RunError: an entry is missing or of the wrong kind, or the task is unknown.
        UnknownNameError, ConfigError, ImageSizeError: the model cannot be built as described.
    """
    return create_task(description.task, description.model.name, description.model.fields, description.spec)


def load_task(run: Run) -> Task:
    """The trained task of a run, in evaluation mode.

    Raises:
        RunError: the run lacks its description or its weights, or describes no task.
        CheckpointError: the weights are damaged or are not those of the described model.
    """
    run = Run.open(run.folder, needs=("description", "weights"))
    task = build_task(run.read())
    load_strictly(task, read_trained(run.weights), str(run.weights), remedy="was it or run.json replaced?")
    return task.eval()
