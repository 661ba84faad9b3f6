"""The classes of images that nobody has labelled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.types import Preprocessing
from vitrail.data import IMAGE_SUFFIXES, MAX_PIXELS, decode_image, find_images, fit_image
from vitrail.tasks import ClassificationTask, ClassScore


@dataclass(frozen=True)
class Prediction:
    """One image's most probable classes, the best first."""

    path: Path
    scores: tuple[ClassScore, ...]


@dataclass(frozen=True)
class SkippedImage:
    """A file that could not be decoded, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Predictions:
    """What :func:`predict_images` found, in the order of the images."""

    images: tuple[Prediction, ...]
    skipped: tuple[SkippedImage, ...]


def predict_images(
    task: ClassificationTask,
    paths: Iterable[str | Path],
    preprocessing: Preprocessing,
    *,
    top_k: int = 5,
    batch_size: int = 32,
    max_pixels: int = MAX_PIXELS,
    progress: bool = False,
) -> Predictions:
    """Classify image files.

    Args:
        task: run in evaluation mode, on its own device.
        paths: image files, or folders, which are searched for images at any depth.
        preprocessing: what the task expects.
        top_k: classes an image (all, if there are fewer).
        batch_size: images at once; at most so many are in memory.
        max_pixels: larger images are skipped.
        progress: show a bar.

    Raises:
        ConfigError: ``top_k`` or ``batch_size`` below 1.
        DataError: a folder without images, or no paths at all.
    """
    if top_k < 1 or batch_size < 1:
        raise ConfigError(f"top_k={top_k}, batch_size={batch_size}: both need to be 1 or more")
    files = _expand(paths)
    predictions: list[Prediction] = []
    skipped: list[SkippedImage] = []
    steps = range(0, len(files), batch_size)
    was_training = task.training
    task.eval()
    for start in track(steps, "Classifying", transient=True, disable=not progress):
        decoded = _decode(files[start : start + batch_size], preprocessing, max_pixels, skipped)
        if decoded:
            scores = _scores(task, torch.stack(list(decoded.values())), preprocessing, top_k)
            predictions += [Prediction(path, row) for path, row in zip(decoded, scores, strict=True)]
    task.train(was_training)
    return Predictions(images=tuple(predictions), skipped=tuple(skipped))


def _expand(paths: Iterable[str | Path]) -> list[Path]:
    """Each file once, in the order of its first mention."""
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        found = find_images(path) if path.is_dir() else [path]
        if not found:
            raise DataError(f"folder {path} has no images; known are {' '.join(sorted(IMAGE_SUFFIXES))}")
        files |= dict.fromkeys(found)
    if not files:
        raise DataError("there are no images to classify; name image files or folders")
    return list(files)


def _decode(
    files: list[Path], preprocessing: Preprocessing, max_pixels: int, skipped: list[SkippedImage]
) -> dict[Path, Tensor]:
    decoded = {}
    for file in files:
        try:
            decoded[file] = fit_image(decode_image(file, max_pixels), preprocessing)
        except DataError as error:
            skipped.append(SkippedImage(file, str(error)))
    return decoded


def _scores(
    task: ClassificationTask, images: Tensor, preprocessing: Preprocessing, top_k: int
) -> list[tuple[ClassScore, ...]]:
    device = next(task.parameters()).device
    with torch.inference_mode():
        return task.predict(task(preprocessing.normalize(images.to(device))), top_k=top_k)
