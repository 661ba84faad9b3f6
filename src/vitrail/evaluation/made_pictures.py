"""Pictures that a model makes, as files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from vitrail.core.files import atomic_path
from vitrail.tasks import Task, answers_of


def write_samples(task: Task, folder: Path, *, count: int, seed: int) -> list[Path]:
    """Write pictures that a task makes without images, see :meth:`vitrail.tasks.Answers.samples`.

    Args:
        task: a trained one, in evaluation mode.
        folder: where the files go.
        count: number of single pictures.
        seed: start of the random numbers; the same seed gives the same pictures.

    Returns:
        the files, overviews first.

    Raises:
        ConfigError: no picture is asked for, or the task answers to images.
    """
    paths = []
    for name, picture in answers_of(task).samples(count, seed).items():
        paths.append(folder / f"{name}.png")
        with atomic_path(paths[-1]) as temporary:
            Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(temporary)
    return paths
