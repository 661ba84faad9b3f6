"""Explanation of a run's model, as pictures and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.types import Preprocessing
from vitrail.data import MAX_PIXELS, decode_image, find_images, fit_image
from vitrail.evaluation import SkippedImage
from vitrail.explain import Explanation, explain_images
from vitrail.figures.explanation import PictureFormat, write_explanation
from vitrail.runs.load import load_task
from vitrail.runs.run import Run


def explain_run(
    run: Run,
    sources: Sequence[Path],
    *,
    folder: Path | None = None,
    format: PictureFormat = "png",
    batch_size: int = 8,
    progress: bool = False,
) -> tuple[Explanation, list[Path], tuple[SkippedImage, ...]]:
    """Explain a run's model on image files and folders.

    Args:
        run: run with weights.
        sources: image files, or folders, which are searched for images at any depth.
        folder: folder of ``arrays.npz`` and the pictures. Default: ``run.explanation``.
        format: format of the pictures.
        batch_size: number of images at once; memory grows with it.
        progress: show bars.

    Returns:
        the explanation, the files that were written, and the images that could not be decoded.

    Raises:
        ConfigError: the task takes no images, or the sources hold none.
        DataError: no image can be decoded.
    """
    with run.writing() if folder is None else nullcontext():
        task = load_task(run)
        if task.input_shape is not None:
            raise ConfigError(f"a model of the task '{task.name}' takes no images; there is nothing to explain")
        preprocessing = run.read().preprocessing
        files = [file for path in sources for file in (find_images(path) if path.is_dir() else [path])]
        if not files:
            raise ConfigError("the given paths have no images; name image files, or folders with images")
        images, skipped = _decoded(files, preprocessing)
        explanation = explain_images(task, images, preprocessing, batch_size=batch_size, progress=progress)
        return explanation, write_explanation(explanation, folder or run.explanation, format), skipped


def _decoded(files: Sequence[Path], preprocessing: Preprocessing) -> tuple[Tensor, tuple[SkippedImage, ...]]:
    """The images (b, 3, h, w), and the files that cannot be decoded."""
    images: list[Tensor] = []
    skipped: list[SkippedImage] = []
    for file in files:
        try:
            images.append(fit_image(decode_image(file, MAX_PIXELS, preprocessing.pixel_range), preprocessing))
        except DataError as error:
            skipped.append(SkippedImage(file, str(error)))
    if not images:
        first, count = skipped[0].reason, len(skipped)
        raise DataError(first if count == 1 else f"none of the {count} images could be decoded; the first: {first}")
    return torch.stack(images), tuple(skipped)
