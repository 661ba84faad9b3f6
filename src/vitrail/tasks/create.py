"""The tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.core.errors import UnknownNameError
from vitrail.tasks.aesthetics import AestheticsTask
from vitrail.tasks.base import Task
from vitrail.tasks.classification import ClassificationTask
from vitrail.tasks.detection import DetectionTask
from vitrail.tasks.generation import GenerationTask
from vitrail.tasks.instances import InstanceTask
from vitrail.tasks.pose import PoseTask
from vitrail.tasks.pretraining import PretrainingTask
from vitrail.tasks.segmentation import SegmentationTask
from vitrail.tasks.spec import TaskSpec

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


def create_task(task_name: str, model_name: str, model_fields: Mapping[str, Any], spec: TaskSpec) -> Task:
    """A task on a backbone, freshly initialised.

    Args:
        task_name: one of :data:`TASKS`.
        model_name: a model that ``vitrail models`` lists, or what the task has in its place.
        model_fields: further arguments of :func:`vitrail.models.create_model`; lists become tuples.
        spec: classes and options.

    Raises:
        UnknownNameError, ConfigError, ImageSizeError: the model or the task cannot be built as described.
    """
    task = find_task(task_name)
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in model_fields.items()}
    return task.create(task.make_backbone(model_name, **fields), spec)
