"""Labelled images, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data.decode import MAX_PIXELS
from vitrail.data.samples import Mix, Samples, Transform
from vitrail.data.transforms import AugmentConfig, BatchMix, fit_image, train_transform


class ImageSet(Samples):
    """Images with one class each.

    Attributes:
        labels: class indices (n,), int64.
    """

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[Path | bytes],
        labels: Sequence[int] | Tensor,
        *,
        max_pixels: int = MAX_PIXELS,
        mirrored_alike: bool = True,
    ) -> None:
        self.labels = torch.as_tensor(labels, dtype=torch.int64).reshape(-1)
        if not len(names) == len(sources) == len(self.labels):
            raise DataError(
                f"{len(names)} names, {len(sources)} images, {len(self.labels)} labels: need as many of each"
            )
        super().__init__(names, sources, max_pixels=max_pixels, mirrored_alike=mirrored_alike)

    def target(self, index: int) -> int:
        """The class index."""
        return int(self.labels[index])

    def fit(self, image: Tensor, target: int, preprocessing: Preprocessing) -> tuple[Tensor, int]:
        """The image resized and cropped, see :func:`~vitrail.data.transforms.fit_image`."""
        return fit_image(image, preprocessing), target

    def train_transform(self, preprocessing: Preprocessing, augment: AugmentConfig) -> Transform:
        """Changes of the image alone."""
        return partial(_image_alone, train_transform(preprocessing, augment, mirrored_alike=self.mirrored_alike))

    def collate(self, targets: list[int]) -> Tensor:
        """Class indices (b,)."""
        return torch.tensor(targets)

    def mix(self, augment: AugmentConfig, num_classes: int) -> Mix | None:
        """Mixup and cutmix, to soft labels (b, num_classes)."""
        return BatchMix(augment, num_classes) if augment.mixes else None

    def subset(self, indices: Sequence[int]) -> Self:
        """The images at ``indices``, in that order."""
        chosen = super().subset(indices)
        chosen.labels = self.labels[torch.as_tensor(indices, dtype=torch.int64)]
        return chosen

    def relabel(self, labels: Tensor) -> Self:
        """The same images under other labels."""
        chosen = super().subset(range(len(self)))
        chosen.labels = labels
        return chosen

    def renumber(self, table: Tensor) -> Self:
        """The same images; class i becomes ``table[i]``."""
        return self.relabel(table[self.labels])


def _image_alone(change: Callable[[Tensor], Tensor], image: Tensor, target: int) -> tuple[Tensor, int]:
    return change(image), target
