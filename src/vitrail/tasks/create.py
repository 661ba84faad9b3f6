"""The tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.core.errors import UnknownNameError
from vitrail.core.import_code import load_installed
from vitrail.tasks.aesthetics import AESTHETICS
from vitrail.tasks.answers import Answers
from vitrail.tasks.base import Task
from vitrail.tasks.classification import CLASSIFICATION
from vitrail.tasks.detection import DETECTION
from vitrail.tasks.distillation import DISTILLATION
from vitrail.tasks.generation import GENERATION
from vitrail.tasks.instances import INSTANCES
from vitrail.tasks.kind import TaskKind
from vitrail.tasks.multilabel import MULTILABEL
from vitrail.tasks.pose import POSE
from vitrail.tasks.pretraining import PRETRAINING
from vitrail.tasks.segmentation import SEGMENTATION
from vitrail.tasks.spec import TaskSpec

TASKS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        CLASSIFICATION,
        MULTILABEL,
        SEGMENTATION,
        DETECTION,
        INSTANCES,
        POSE,
        AESTHETICS,
        GENERATION,
        PRETRAINING,
        DISTILLATION,
    )
}

DEFAULT_TASK = CLASSIFICATION.name
"""The task where none is named, as in files from before there were others."""


def find_task(name: str) -> TaskKind:
    """The task called ``name``.

    Raises:
        UnknownNameError: with the names that there are.
    """
    if name not in TASKS:
        load_installed()
    if name not in TASKS:
        raise UnknownNameError(f"unknown task '{name}'; known: {', '.join(TASKS)} (one of your own: --import FILE)")
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
    kind = find_task(task_name)
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in model_fields.items()}
    return kind.create(kind.make_backbone(model_name, **fields), spec)


def answers_of(task: Task) -> Answers[Any, Any]:
    """What people get of a trained task."""
    return find_task(task.name).answers(task)
