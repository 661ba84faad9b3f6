"""Tasks from run folders: described in ``run.json``, weights in ``model.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.core.errors import RunError
from vitrail.core.run import Run
from vitrail.models.checkpoint import load_strictly, read_trained
from vitrail.tasks import TASKS, Task, TaskKind, TaskSpec, create_task


def task_of(description: Mapping[str, Any]) -> TaskKind:
    """The task of a run, from the contents of its ``run.json``.

    Raises:
        RunError: the entry is missing, or the task is unknown.
    """
    name = _entry(description, "task", str)
    if name not in TASKS:
        raise RunError(
            f"the run has the unknown task '{name}'; known: {', '.join(TASKS)}; was it made by a later Vitrail?"
        )
    return TASKS[name]


def spec_of(description: Mapping[str, Any]) -> TaskSpec:
    """What builds the task of a run, from the contents of its ``run.json``.

    Raises:
        RunError: an entry is missing or of the wrong kind.
    """
    training = description.get("training") or {}
    described = {name: _entry(description, name, list | tuple) for name in ("classes", *task_of(description).facts)}
    return TaskSpec.of(described, training.get("options"), training.get("label_smoothing", 0.0))


def build_task(description: Mapping[str, Any]) -> Task:
    """The task that the contents of a ``run.json`` ask for, freshly initialised.

    Raises:
        RunError: an entry is missing or of the wrong kind, or the task is unknown.
        UnknownNameError, ConfigError, ImageSizeError: the model cannot be built as described.
    """
    model = _entry(description, "model", dict)
    name, fields = _entry(model, "name", str, "model."), _entry(model, "fields", dict, "model.")
    return create_task(task_of(description).name, name, fields, spec_of(description))


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


def _entry(values: Mapping[str, Any], key: str, kind: Any, where: str = "") -> Any:
    value = values.get(key)
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise RunError(f"run.json is incomplete: '{where}{key}' is {found}; train the run again, or restore the file")
    return value
