"""Tasks from ``run.json`` and ``model.safetensors`` of run folders."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitrail.core.errors import ConfigError
from vitrail.core.paths import typed_path, user_path
from vitrail.core.types import Preprocessing
from vitrail.models import Backbone, create_model, load_checkpoint
from vitrail.models.checkpoint import load_strictly, read_trained
from vitrail.runs.description import ConfidenceEntry, Description
from vitrail.runs.remembered_code import require_code
from vitrail.runs.run import Run
from vitrail.tasks import Task, TaskKind, TaskSpec, create_task
from vitrail.training import TrainConfig

LOG = logging.getLogger(__name__)


def task_of(run: Run | str | Path) -> TaskKind:
    """The task of a run, or of a run folder.

    Raises:
        RunError: ``run.json`` names no task, or one that this version lacks.
    """
    return as_run(run).read().kind


def make_spec(described: Mapping[str, Any], config: TrainConfig) -> TaskSpec:
    """The specification of a task, from the entries of ``run.json`` on its data and the options of its training."""
    return TaskSpec.of(described, config.options, config.label_smoothing, open_backbone)


def model_fields(config: TrainConfig) -> dict[str, Any]:
    """The fields of the model that a configuration gives; lists of YAML are tuples."""
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in config.model_fields.items()}
    return own | {"image_size": config.image_size}


def build_task(description: Description) -> Task:
    """The task of a description, with new weights.

    Raises:
        RunError: an entry is missing or of the wrong kind, or the task is unknown.
        UnknownNameError, ConfigError, ImageSizeError: the model cannot be built as described.
    """
    kind, model = description.kind, description.model
    spec = make_spec(description.facts, description.training)
    return create_task(kind.name, model.name, model.fields, spec)


def as_run(run: Run | str | Path) -> Run:
    """A run, or the one in a folder."""
    return run if isinstance(run, Run) else Run(user_path(run))


def load_task(run: Run | str | Path) -> Task:
    """The trained task of a run, or of a run folder, in evaluation mode, with the least probability that was found for
    these weights, and with the temperature that is used.

    A temperature that was fitted for other weights is not used, which a warning says.

    Raises:
        RunError: the run lacks its description or its weights, describes no task, or needs own code that is missing.
        CheckpointError: the weights are damaged or do not fit the described model.
    """
    run = Run.open(as_run(run).folder, needs=("description", "weights"))
    description = run.read()
    require_code(description.own_code, run.folder)
    task = build_task(description)
    load_strictly(task, read_trained(run.weights), str(run.weights), remedy="was it or run.json replaced?")
    if (found := found_confidence(as_run(run))) is not None:
        set_confidence(task, found)
    task.temperature = used_temperature(as_run(run))
    return task.eval()


def used_temperature(run: Run) -> float:
    """What the logits of the run's present weights are divided by; 1 where they stay as they are."""
    entry = run.read().temperature if run.description.exists() else None
    if entry is None:
        return 1.0
    if entry.weights_hash != run.weights_hash:
        LOG.warning(
            "the temperature %.3g of %s was fitted for other weights and is not used; fit it again with: vitrail trust "
            "%s --use-temperature",
            entry.value,
            run.folder,
            typed_path(run.folder),
        )
        return 1.0
    return entry.value


def set_confidence(task: Task, found: ConfidenceEntry) -> None:
    """Let a task name what has at least the probability that was found."""
    task.min_confidence, task.min_confidences = found.min_confidence, found.by_class


def found_confidence(run: Run) -> ConfidenceEntry | None:
    """The least probability of what answers name that was found for the run's present weights."""
    found = run.read().confidence
    return found if found is not None and found.weights_hash == run.weights_hash else None


def open_module(folder: Path) -> Task:
    """The trained task of a run folder, for processes that only get the folder."""
    return load_task(Run.open(folder))


def open_backbone(folder: str) -> tuple[Backbone, Preprocessing]:
    """The trained backbone of a run without its classifier, and its preprocessing.

    Raises:
        RunError: the folder is not a run, or needs own code that is missing.
        ConfigError: the run has no backbone that takes images.
        CheckpointError: the weights do not fit.
    """
    run = Run.open(folder)
    description = run.read()
    require_code(description.own_code, run.folder)
    if description.input_shape:
        raise ConfigError(f"run {folder} takes no images; name the run of a classifier")
    given = description.model.fields | {"num_classes": 0}
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    model = create_model(description.model.name, **fields)
    load_checkpoint(model, run.folder, replace_head=True)
    return model, description.preprocessing
