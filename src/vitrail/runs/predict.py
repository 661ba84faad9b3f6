"""Answers of a run to images without labels, and pictures that a run makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.paths import user_path
from vitrail.core.types import PixelRange
from vitrail.data import MAX_PIXELS, decode_image, pixels_of
from vitrail.evaluation import Prediction, Predictions, predict_images, write_samples
from vitrail.runs.load import load_task
from vitrail.runs.run import Run
from vitrail.runs.trusted_answers import trusted_answers
from vitrail.tasks import Task, answers_of

ImageSource = str | Path | Image.Image | NDArray[Any] | Tensor
"""An image file or a folder; a PIL image; uint8 pixels (h, w, 3) or (h, w) of NumPy, (3, h, w) of PyTorch."""


def predict_run(
    run: Run,
    sources: Sequence[ImageSource],
    *,
    top_k: int | None = None,
    min_confidence: float | None = None,
    coverage: float | None = None,
    outlier_score: bool = False,
    batch_size: int = 32,
    pictures: Path | None = None,
    progress: bool = False,
) -> Predictions:
    """The answers of a run's task to images.

    Args:
        run: run with weights.
        sources: images; folders are searched for images at any depth.
        top_k: number of entries in an answer. Default: the task's own number.
        min_confidence: least probability of an object or a class in an answer and its picture. Default: the best one on
            the validation images (with any number of classes an image, each class has its own), as ``vitrail evaluate``
            and ``vitrail export`` find it, or one half.
        coverage: share of images whose set of classes shall hold the right one; None makes no sets.
        outlier_score: whether each answer says how unlike the training images its image is.
        batch_size: number of images at once; it changes speed, never the result.
        pictures: folder for a picture of every answer; only for image files.
        progress: show a bar.

    Raises:
        ConfigError: the task takes no images, there are no sources, or ``min_confidence`` is no probability or given
            to a task that does not name several things; or ``coverage`` or ``outlier_score`` to one that gives an
            image no class.
        RunError: ``coverage`` or ``outlier_score`` is wanted, and ``vitrail trust`` has not been called.
        DataError: a folder has no images, no image can be decoded, or pixels have another shape or type.
    """
    task = load_task(run)
    if not task.takes_images:
        raise ConfigError(f"a model of the task '{task.name}' takes no images; make pictures with: vitrail predict RUN")
    if not sources:
        raise ConfigError("no images given; name files or folders, or pass images")
    if min_confidence is not None:
        _bound(task, min_confidence)
    paths = [user_path(source) for source in sources if isinstance(source, str | Path)]
    with trusted_answers(run, task, coverage, outlier_score=outlier_score) as trusted:
        if len(paths) < len(sources):
            return trusted.attach(_predict_pixels(task, run, sources, top_k=top_k, batch_size=batch_size))
        predictions = predict_images(
            task,
            paths,
            run.read().preprocessing,
            top_k=top_k,
            batch_size=batch_size,
            pictures=pictures,
            progress=progress,
        )
    if not predictions.images:
        first, count = predictions.skipped[0].reason, len(predictions.skipped)
        raise DataError(first if count == 1 else f"none of the {count} images could be decoded; the first: {first}")
    return trusted.attach(predictions)


def _bound(task: Task, min_confidence: float) -> None:
    if task.min_confidence is None:
        raise ConfigError(
            f"is for objects, and a model of the task '{task.name}' names none", min_confidence=min_confidence
        )
    if not 0 <= min_confidence < 1:
        raise ConfigError("is outside [0, 1)", min_confidence=min_confidence)
    task.min_confidence, task.min_confidences = min_confidence, ()


def _predict_pixels(
    task: Task, run: Run, sources: Sequence[ImageSource], *, top_k: int | None, batch_size: int
) -> Predictions:
    """Answers to decoded images, which are named "image 1" and so on."""
    preprocessing = run.read().preprocessing
    images = {
        Path(source if isinstance(source, str | Path) else f"image {number}"): _pixels(
            source, preprocessing.pixel_range
        )
        for number, source in enumerate(sources, start=1)
    }
    names, answers = list(images), answers_of(task)
    found: list[Prediction] = []
    for start in range(0, len(names), batch_size):
        part = names[start : start + batch_size]
        decoded = answers.predict([images[name] for name in part], preprocessing, top_k)
        found += [Prediction(name, answer) for name, answer in zip(part, decoded, strict=True)]
    return Predictions(images=tuple(found), skipped=(), answers=answers)


def _pixels(source: ImageSource, pixel_range: PixelRange | None) -> Tensor:
    """A source as uint8 RGB (3, h, w)."""
    if isinstance(source, str | Path):
        return decode_image(user_path(source), MAX_PIXELS, pixel_range)
    if isinstance(source, Tensor):
        source = source.permute(1, 2, 0).numpy() if source.ndim == 3 else source.numpy()
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.shape[2:] not in ((), (1,), (3,), (4,)):
            raise DataError(
                f"an image of shape {source.shape} and type {source.dtype}: pass uint8 pixels, (h, w, 3) or (h, w) as "
                f"an array, (3, h, w) as a tensor"
            )
        source = Image.fromarray(source.squeeze(2) if source.shape[2:] == (1,) else source)
    return pixels_of(source, pixel_range)


def sample_run(run: Run, folder: Path, *, count: int, seed: int) -> list[Path]:
    """Write pictures that a run's task makes without images, with overview pages.

    Args:
        run: run of a task that takes no images.
        folder: folder of the pictures.
        count: number of pictures.
        seed: start of the random numbers; the same seed gives the same pictures.

    Returns:
        the files, the pages first.

    Raises:
        ConfigError: the task takes images, or ``count`` is below 1.
    """
    return write_samples(load_task(run), folder, count=count, seed=seed)
