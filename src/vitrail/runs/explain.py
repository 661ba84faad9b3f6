"""Explanation of a run's model, as pictures and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from vitrail.core.errors import ConfigError
from vitrail.data import MAX_PIXELS, decode_image, find_images, fit_image
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
) -> tuple[Explanation, list[Path]]:
    """Explain a run's model on image files and folders.

    Args:
        run: run with weights.
        sources: image files, or folders, which are searched for images at any depth.
        folder: folder of ``arrays.npz`` and the pictures. Default: ``run.explanation``.
        format: format of the pictures.
        batch_size: number of images at once; memory grows with it.

    Returns:
        the explanation, and the files that were written.

    Raises:
        ConfigError: the task takes no images, or the sources hold none.
        DataError: an image cannot be decoded.
    """
    with run.writing() if folder is None else nullcontext():
        task = load_task(run)
        if task.input_shape is not None:
            raise ConfigError(f"a model of the task '{task.name}' takes no images; there is nothing to explain")
        preprocessing = run.read().preprocessing
        files = [file for path in sources for file in (find_images(path) if path.is_dir() else [path])]
        if not files:
            raise ConfigError("the given paths have no images; name image files, or folders with images")
        images = torch.stack(
            [fit_image(decode_image(file, MAX_PIXELS, preprocessing.pixel_range), preprocessing) for file in files]
        )
        explanation = explain_images(task, images, preprocessing, batch_size=batch_size)
        return explanation, write_explanation(explanation, folder or run.explanation, format)
