"""A run's answers to images that nobody has labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitrail.evaluation import Predictions
from vitrail.runs.run import Run


def predict_run(
    run: Run,
    sources: Sequence[str | Path],
    *,
    top_k: int | None = None,
    batch_size: int = 32,
    pictures: Path | None = None,
    progress: bool = False,
) -> Predictions:
    """The answers of a run's task to image files and folders.

    Args:
        run: with weights.
        sources: image files, or folders, which are searched for images at any depth.
        top_k: number of things that an answer names; the task's own number by default.
        batch_size: images at once.
        pictures: folder for a picture of every answer.
        progress: show a bar.

    Raises:
        ConfigError: the task looks at no images.
        DataError: a folder without images, or no sources at all.
    """
