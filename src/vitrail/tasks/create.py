"""Tasks from run folders: described in ``run.json``, weights in ``model.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from vitrail.core.errors import CheckpointError, RunError, UnknownNameError
from vitrail.core.run import Run
from vitrail.tasks.aesthetics import AestheticsTask
from vitrail.tasks.base import Task, entry
from vitrail.tasks.classification import ClassificationTask
from vitrail.tasks.detection import DetectionTask
from vitrail.tasks.generation import GenerationTask
from vitrail.tasks.instances import InstanceTask
from vitrail.tasks.pose import PoseTask
from vitrail.tasks.pretraining import PretrainingTask
from vitrail.tasks.segmentation import SegmentationTask

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        ClassificationTask,
        SegmentationTask,
        DetectionTask,
        InstanceTask,
        PoseTask,
        AestheticsTask,
        GenerationTask,
        PretrainingTask,
    )
}


def find_task(name: str) -> type[Task]:
    """The task called ``name``.

    Raises:
        UnknownNameError: with the names that there are.
    """
    if name not in TASKS:
        raise UnknownNameError(f"unknown task '{name}'; known: {', '.join(TASKS)}")
    return TASKS[name]


def task_of(description: Mapping[str, Any]) -> type[Task]:
    """The task of a run, from the contents of its ``run.json``.

    Raises:
        RunError: the entry is missing, or the task is unknown.
    """
    name = entry(description, "task", str)
    if name not in TASKS:
        raise RunError(
            f"the run has the unknown task '{name}'; known: {', '.join(TASKS)}; was it made by a later Vitrail?"
        )
    return TASKS[name]


def create_task(description: Mapping[str, Any]) -> Task:
    """The task that a run's description (the contents of ``run.json``) asks for, freshly initialised.

    Args:
        description: ``model`` (``name`` and ``fields`` for create_model), ``task``, and what the task itself noted.

    Raises:
        RunError: an entry is missing or of the wrong kind, or the task is unknown.
        UnknownNameError, ConfigError, ImageSizeError: the model cannot be built as described.
    """
    model = entry(description, "model", dict)
    name, fields = entry(model, "name", str, "model."), entry(model, "fields", dict, "model.")
    task = task_of(description)
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return task.create(task.make_backbone(name, **fields), description)


def load_task(run: Run) -> Task:
    """The trained task of a run, in evaluation mode.

    Raises:
        RunError: the run lacks its description or its weights, or describes no task.
        CheckpointError: the weights are damaged or are not those of the described model.
    """
    run = Run.open(run.folder, needs=("description", "weights"))
    task = create_task(run.read())
    try:
        state = load_file(run.weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{run.weights} is damaged ({str(error).splitlines()[0]}); train the run again"
        ) from error
    target = task.state_dict()
    misfits = [f"missing {name}" for name in sorted(target.keys() - state.keys())]
    misfits += [f"unexpected {name}" for name in sorted(state.keys() - target.keys())]
    misfits += [
        f"{name} is {tuple(state[name].shape)} in the file and {tuple(target[name].shape)} in the model"
        for name in sorted(target.keys() & state.keys())
        if state[name].shape != target[name].shape
    ]
    if misfits:
        more = f"; and {len(misfits) - 5} more" if len(misfits) > 5 else ""
        raise CheckpointError(
            f"{run.weights} does not fit the model that {run.description.name} describes: "
            f"{'; '.join(misfits[:5])}{more}; was one of the two files replaced?"
        )
    task.load_state_dict(state)
    return task.eval()
