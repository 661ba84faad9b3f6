"""Made pictures: a page of them, and what lies between two."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from vitrail.core.errors import ConfigError
from vitrail.core.files import atomic_path
from vitrail.tasks import GenerationTask

STEPS = 8
"""Pictures from one latent to another, both included."""

PATHS = 6
"""Rows of the page of interpolations."""

ENLARGED_BELOW = 64
"""Pixels a side; smaller pictures are shown twice as large."""

BATCH_SIZE = 64


def write_samples(task: GenerationTask, folder: Path, *, count: int, seed: int) -> list[Path]:
    """Write ``count`` pictures, ``samples.png`` with all of them, and ``interpolations.png``.

    Args:
        task: in evaluation mode. Of a conditional one, the classes take turns.
        folder: for the files; pictures are called ``0000.png`` and so on.
        count: how many.
        seed: of the latents; the same seed gives the same pictures.

    Returns:
        the files, the two pages first.

    Raises:
        ConfigError: no picture is asked for.
    """
    if count < 1:
        raise ConfigError("is below 1; 64 is usual", count=count)
    noise = latents(task, count, seed)
    labels = [i % task.num_labels for i in range(count)] if task.num_labels else []
    made = made_pictures(task, noise, labels)
    pages = {
        "samples": _page(made, max(round(count**0.5), 1)),
        "interpolations": _page(interpolations(task, seed), STEPS),
    }
    pages |= {f"{i:04d}": picture for i, picture in enumerate(made)}
    return [_save(picture, folder / f"{name}.png") for name, picture in pages.items()]


def latents(task: GenerationTask, count: int, seed: int) -> Tensor:
    """Normal random numbers (count, latent_dim)."""
    return torch.randn(count, task.backbone.config.latent_dim, generator=torch.Generator().manual_seed(seed))


def made_pictures(task: GenerationTask, noise: Tensor, labels: list[int]) -> Tensor:
    """(n, 3, h, w), uint8."""
    parts = [
        task.sample(noise[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE])
        for start in range(0, len(noise), BATCH_SIZE)
    ]
    return torch.stack([picture.pixels for part in parts for picture in part])


def interpolations(task: GenerationTask, seed: int) -> Tensor:
    """Rows of pictures from one latent to the next, along the sphere on which normal random numbers lie.

    Source: White, "Sampling Generative Networks", 2016, arXiv:1609.04468.
    """
    ends = latents(task, 2 * PATHS, seed + 1).unflatten(0, (PATHS, 2))
    first, last = ends[:, :1], ends[:, 1:]
    angle = torch.nn.functional.cosine_similarity(first, last, dim=2).clamp(-1 + 1e-6, 1 - 1e-6).acos().unsqueeze(2)
    share = torch.linspace(0, 1, STEPS).view(1, STEPS, 1)
    path = (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()
    labels = [row % task.num_labels for row in range(PATHS) for _ in range(STEPS)] if task.num_labels else []
    return made_pictures(task, path.flatten(0, 1), labels)


def _page(pictures: Tensor, columns: int) -> Tensor:
    if pictures.shape[-1] < ENLARGED_BELOW:
        pictures = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return make_grid(pictures, nrow=columns, padding=2, pad_value=255)


def _save(picture: Tensor, path: Path) -> Path:
    with atomic_path(path) as temporary:
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(temporary)
    return path
