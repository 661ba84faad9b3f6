"""The test result of a run on the held-out images, per image or of all images together.

Classifiers have ``predictions.npz`` with logits, so that two of them can be compared image by image. Tasks with scores
of all images together, such as mIoU or mAP, have ``scores.json``::

    {"version": 1, "scores": {"miou": 0.71, ...}, "names": [names of the images, ...]}
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.core.errors import RunError
from vitrail.core.files import atomic_path, open_regular, write_json
from vitrail.core.types import Preprocessing
from vitrail.data import ImageSet, eval_loader
from vitrail.evaluation import measure
from vitrail.runs.data import load_run_data
from vitrail.runs.load import load_task, task_of
from vitrail.runs.run import Run
from vitrail.runs.schema import VERSION, ScoresFile, read_file
from vitrail.tasks import Score

Answers = Callable[[Tensor], Tensor]
"""Normalised images (b, 3, h, w) to a task's raw output."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The test result of a run.

    Attributes:
        per_image: True if every image is right or wrong.
        values: (images,) 1 for a right image, else 0, in the order of ``names``; else (1,) the task's first score.
        names: names of the held-out images, sorted.
    """

    per_image: bool
    values: NDArray[np.float64]
    names: tuple[str, ...]


def score_of(run: Run) -> Score:
    """The main score of the task, which is the score of an :class:`Outcome`."""
    return task_of(run).scores[0]


def outcome_file(run: Run) -> Path:
    """Path of the outcome of a run."""
    return run.predictions if task_of(run).task.per_image else run.scores


def has_outcome(run: Run) -> bool:
    """Whether the run was trained and tested."""
    return run.description.exists() and outcome_file(run).exists()


def write_outcome(run: Run, answers: Answers | None = None, batch_size: int = 64) -> None:
    """Test a run on its held-out images and write the outcome.

    Args:
        run: trained run.
        answers: predictor to test. Default: the run's weights in PyTorch.
        batch_size: number of images at once.
    """
    task, images, preprocessing = load_task(run), load_run_data(run).held_out, run.read().preprocessing
    answers = answers or task
    if task.per_image:
        _write_predictions(run, answers, images, preprocessing, batch_size)
    else:
        report = measure(task, {"": answers}, images, preprocessing, batch_size=batch_size)[""]
        scores = {score.name: report[score.name] for score in task.scores}
        write_json(run.scores, {"version": VERSION, "scores": scores, "names": images.names})


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
    """Read the outcome that :func:`write_outcome` wrote.

    Raises:
        RunError: the score is missing, or the file is damaged.
    """
    if outcome_file(run) == run.predictions:
        try:
            with open_regular(run.predictions) as file, np.load(file, allow_pickle=False) as arrays:
                answers, labels, names = arrays["logits"].argmax(1), arrays["labels"], arrays["names"]
            if not answers.shape == labels.shape == names.shape:
                raise ValueError(f"{len(answers)} answers, {len(labels)} labels, {len(names)} names")
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise RunError(f"{run.predictions} is damaged ({error}); delete it, and it is made again") from error
        right, order = answers == labels, np.argsort(names)
        return Outcome(per_image=True, values=right[order].astype(np.float64), names=tuple(names[order].tolist()))
    values, score = read_file(ScoresFile, run.scores, "delete it, and it is made again"), score_of(run)
    if score.name not in values.scores:
        raise RunError(f"{run.scores} has no {score.name}; delete it, and it is made again")
    return Outcome(per_image=False, values=np.array([values.scores[score.name]]), names=tuple(sorted(values.names)))
