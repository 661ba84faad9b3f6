"""What a run of a comparison got right, on the held-out images: of every image, or of all together.

Classifiers have ``predictions.npz`` with logits, so that two of them can be compared image by image. Figures such as
mIoU or mAP belong to all images together; such tasks have ``scores.json``::

    {"scores": {"miou": 0.71, ...}, "names": [of the images, ...]}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import RunError
from vitrail.core.files import atomic_path, read_json, write_json
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, eval_loader
from vitrail.evaluation import measure
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task, task_of
from vitrail.runs.run import Run
from vitrail.tasks import Score

Answers = Callable[[Tensor], Tensor]
"""Normalised images (b, 3, h, w) to a task's raw output."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How good a run is.

    Attributes:
        per_image: every image is right or wrong.
        values: (images,) 1 where the image is right, else 0, in the order of ``names``; (1,) the task's first score,
            where there is no right and wrong.
        names: of the held-out images, sorted.
    """

    per_image: bool
    values: NDArray[np.float64]
    names: tuple[str, ...]


def score_of(run: Run) -> Score:
    """What the values of an :class:`Outcome` mean: the score that decides."""
    return task_of(run).scores[0]


def outcome_file(run: Run) -> Path:
    """Where the outcome of a run is, or will be."""
    return run.predictions if task_of(run).task.per_image else run.scores


def has_outcome(run: Run) -> bool:
    """It was trained (and quantised, if it shall be) and tested."""
    return run.description.exists() and outcome_file(run).exists()


def write_outcome(run: Run, answers: Answers | None = None, batch_size: int = 64) -> None:
    """Test a run, or what was made from it, on its held-out images.

    Args:
        run: a trained one.
        answers: what is tested; the run's own weights in PyTorch by default.
        batch_size: images at once.
    """
    task, images, preprocessing = load_task(run), load_run_data(run).held_out, run.read().preprocessing
    answers = answers or task
    if task.per_image:
        _write_predictions(run, answers, images, preprocessing, batch_size)
    else:
        report = measure(task, {"": answers}, images, preprocessing, batch_size=batch_size)[""]
        scores = {score.name: report[score.name] for score in task.scores}
        write_json(run.scores, {"scores": scores, "names": images.names})


def _write_predictions(
    run: Run, answers: Answers, images: ImageSet, preprocessing: Preprocessing, batch_size: int
) -> None:
    logits = []
    with torch.inference_mode():
        for batch in eval_loader(images, preprocessing, batch_size=batch_size):
            logits.append(answers(preprocessing.normalize(batch.images)).float())
    with atomic_path(run.predictions) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, logits=torch.cat(logits).numpy(), labels=images.labels.numpy(), names=np.array(images.names)
        )


def read_outcome(run: Run) -> Outcome:
    """What :func:`write_outcome` wrote.

    Raises:
        RunError: the score is not there.
    """
    if outcome_file(run) == run.predictions:
        with np.load(run.predictions, allow_pickle=False) as arrays:
            right, names = arrays["logits"].argmax(1) == arrays["labels"], arrays["names"]
        order = np.argsort(names)
        return Outcome(per_image=True, values=right[order].astype(np.float64), names=tuple(names[order].tolist()))
    values, score = read_json(run.scores), score_of(run)
    try:
        value, names = float(values["scores"][score.name]), sorted(values["names"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.scores} has no {score.name}; delete it, and it is made again") from error
    return Outcome(per_image=False, values=np.array([value]), names=tuple(names))
