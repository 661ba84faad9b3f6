"""Images with one class each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.data.pixels.augment import AugmentConfig, BatchMix, image_transform
from vitrail.data.pixels.fit import fit_image
from vitrail.data.records import LabelledImage
from vitrail.data.sets.samples import Mix, Samples, Transform, image_alone


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LabelledSamples(Samples):
    """Images with one class each, whatever is learnt from them."""

    records: Sequence[LabelledImage]

    @cached_property
    def labels(self) -> Tensor:
        """Class indices (n,), int64."""
        return torch.tensor([record.label for record in self.records], dtype=torch.int64)

    def target(self, index: int) -> int:
        """The class index."""
        return self.records[index].label

    def renumber(self, table: Tensor) -> Self:
        """The same images; class i becomes ``table[i]``."""
        new: list[int] = table.tolist()
        return replace(self, records=[replace(record, label=new[record.label]) for record in self.records])


class ImageSet(LabelledSamples):
    """Images whose class is learnt."""

    def fit(self, image: Tensor, target: int, preprocessing: Preprocessing) -> tuple[Tensor, int]:
        """The image resized and cropped, see :func:`~vitrail.data.pixels.fit.fit_image`."""
        return fit_image(image, preprocessing), target

    def train_transform(self, preprocessing: Preprocessing, augment: AugmentConfig) -> Transform:
        """Changes of the image alone."""
        return image_alone(image_transform(preprocessing, augment, mirrored_alike=self.mirrored_alike))

    def collate(self, targets: list[int]) -> Tensor:
        """Class indices (b,)."""
        return torch.tensor(targets)

    def mix(self, augment: AugmentConfig, num_classes: int) -> Mix | None:
        """Mixup and cutmix, to soft labels (b, num_classes)."""
        return BatchMix(augment, num_classes) if augment.mixes else None
