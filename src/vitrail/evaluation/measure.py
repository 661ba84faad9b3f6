"""A task's own scores, for its model and for files made from it, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from vitrail.core.progress import track
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, Samples, eval_loader
from vitrail.evaluation.classification import EVALUATING, evaluate
from vitrail.tasks import Task
from vitrail.tasks.findings.findings import Findings

PER_CLASS = "_per_class"
"""Ending of metrics that have one value for each class."""


def measure(
    task: Task,
    predictors: Mapping[str, Callable[[Tensor], Tensor]],
    samples: Samples,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 16,
    num_workers: int = 0,
    progress: bool = False,
    findings: Findings | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure functions from normalised float32 images (b, 3, h, w) to a task's raw output.

    All of them see a batch before the next is decoded, so that outputs need not be kept.

    Args:
        task: a task in evaluation mode; its loss and metrics are computed.
        predictors: name -> function; the others are compared with the first.
        samples: images with the task's targets.
        preprocessing: what the functions expect.
        batch_size: images at once.
        num_workers: processes that decode; 0 decodes here.
        progress: show a bar.
        findings: takes the outputs of the first predictor.

    Returns:
        for each predictor: the task's scores, ``loss``, ``num_images``, ``agreement`` with the first predictor, and
        ``per_class``, a row with ``name`` and what the task measures of it for each class that can be measured.

    Raises:
        DataError: no images.
    """
    loader = eval_loader(samples, preprocessing, batch_size=batch_size, num_workers=num_workers)
    metrics = {name: task.metrics() for name in predictors}
    sums = {name: {"loss": 0.0, "agreement": 0.0} for name in predictors}
    device = next(task.parameters()).device
    for batch in track(loader, EVALUATING, progress=progress):
        images = task.inputs(preprocessing.normalize(batch.images.to(device)), batch.targets)
        count, first = len(batch.images), None
        for name, predictor in predictors.items():
            with torch.inference_mode():
                output = predictor(images).float().cpu()
                if first is None:
                    first = output
                    if findings is not None:
                        findings.update(output, batch.targets)
                sums[name]["loss"] += count * float(task.loss(output, batch.targets))
                sums[name]["agreement"] += count * task.agreement(output, first)
            metrics[name].update(output, batch.targets)
    return {
        name: _report(task, metrics[name].compute(), {key: value / len(samples) for key, value in sums[name].items()})
        | {"num_images": len(samples)}
        for name in predictors
    }


def _report(task: Task, values: Mapping[str, Tensor], means: dict[str, float]) -> dict[str, Any]:
    columns = {  # torchmetrics makes a scalar of what has one class
        name.removesuffix(PER_CLASS): value.reshape(-1).tolist()
        for name, value in values.items()
        if name.endswith(PER_CLASS)
    }
    rows = [
        {"name": label} | {name: column[index] for name, column in columns.items()}
        for index, label in enumerate(task.classes)
    ]
    measured = [row for row in rows if len(row) == 1 or any(isfinite(row[name]) for name in columns)]
    return {score.name: float(values[score.name]) for score in task.scores} | means | {"per_class": measured}


def evaluate_task(
    task: Task, samples: Samples, preprocessing: Preprocessing, *, batch_size: int = 64, progress: bool = False
) -> dict[str, Any]:
    """One model's figures: a :class:`~vitrail.evaluation.ClassificationReport` of a classifier, else what
    :func:`measure` says, as plain values."""
    if task.per_image and isinstance(samples, ImageSet):
        return evaluate(task, samples, preprocessing, task.classes, batch_size=batch_size, progress=progress).to_dict()
    return measure(task.eval(), {"": task}, samples, preprocessing, batch_size=batch_size, progress=progress)[""]
