"""Tasks from run folders: described in ``run.json``, weights in ``model.safetensors``."""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from vitrail.core.errors import CheckpointError, RunError
from vitrail.core.run import Run
from vitrail.models import create_model
from vitrail.tasks.base import Task
from vitrail.tasks.classification import ClassificationTask

TASKS = {"classification": ClassificationTask}


def create_task(description: dict[str, Any]) -> Task:
    """The task that a run's description (the contents of ``run.json``) asks for, freshly initialised.

    Args:
        description: ``model`` (``name`` and ``fields`` for create_model), ``task``, ``classes``; perhaps
            ``training.label_smoothing``.

    Raises:
        RunError: an entry is missing or of the wrong kind, or the task is unknown.
        UnknownNameError, ConfigError, ImageSizeError: the model cannot be built as described.
    """
    model = _entry(description, "model", dict)
    name, fields = _entry(model, "name", str, "model."), _entry(model, "fields", dict, "model.")
    classes = _entry(description, "classes", list | tuple)
    kind = _entry(description, "task", str)
    if kind not in TASKS:
        raise RunError(
            f"the run has the unknown task '{kind}'; known: {', '.join(TASKS)}; was it made by a later Vitrail?"
        )
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    smoothing = (description.get("training") or {}).get("label_smoothing", 0.0)
    return TASKS[kind](create_model(name, **fields), [str(label) for label in classes], label_smoothing=smoothing)


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


def _entry(values: dict[str, Any], key: str, kind: Any, where: str = "") -> Any:
    value = values.get(key)
    if not isinstance(value, kind):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise RunError(f"run.json is incomplete: '{where}{key}' is {found}; train the run again, or restore the file")
    return value
