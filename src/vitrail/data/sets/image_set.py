"""Images with one class each: what is learnt is the class (ImageSet), or the image itself (PictureSet)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Self

import torch
from torch import Tensor
from torchvision.transforms import v2

from vitrail.core.types import Preprocessing
from vitrail.data.pixels.augment import BatchMix, ResolvedAugment, crop_and_mirror, image_transform
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

    def occurs(self, label: int) -> bool:
        """Whether an image has class ``label``."""
        return any(record.label == label for record in self.records)

    def class_shares(self, num_classes: int) -> Tensor:
        """The number of images of each class (num_classes,)."""
        return self.labels.bincount(minlength=num_classes)

    def renumber(self, table: Tensor) -> Self:
        """The same images; class i becomes ``table[i]``."""
        new: list[int] = table.tolist()
        return replace(self, records=[replace(record, label=new[record.label]) for record in self.records])


class ImageSet(LabelledSamples):
    """Images whose class is learnt."""

    def fit(self, image: Tensor, target: int, preprocessing: Preprocessing) -> tuple[Tensor, int]:
        """The image resized and cropped, see :func:`~vitrail.data.pixels.fit.fit_image`."""
        return fit_image(image, preprocessing), target

    def train_transform(self, preprocessing: Preprocessing, augment: ResolvedAugment) -> Transform:
        """Changes of the image alone."""
        return partial(image_alone, image_transform(preprocessing, augment, mirrored_alike=self.mirrored_alike))

    def collate(self, targets: list[int]) -> Tensor:
        """Class indices (b,)."""
        return torch.tensor(targets)

    def mix(self, augment: ResolvedAugment, num_classes: int) -> Mix | None:
        """Mixup and cutmix, to soft labels (b, num_classes)."""
        return BatchMix(augment, num_classes) if augment.mixes else None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PictureSet(LabelledSamples):
    """Images whose target is the image itself, for masked pretraining and for generation; where there are no classes,
    every label is 0.

    Attributes:
        crops: whether training cuts random parts out of the images; otherwise it only mirrors them.
    """

    crops: bool

    def fit(self, image: Tensor, target: int, preprocessing: Preprocessing) -> tuple[Tensor, tuple[Tensor, int]]:
        """The image resized and cropped in the centre; the target is that image, and the class."""
        fitted = fit_image(image, preprocessing)
        return fitted, (fitted, target)

    def train_transform(self, preprocessing: Preprocessing, augment: ResolvedAugment) -> Transform:
        """Random crops and mirror images. Colours stay: the image is to be learnt as it is."""
        crop, mirror = crop_and_mirror(preprocessing, augment, mirrored_alike=self.mirrored_alike)
        first = crop if self.crops else partial(fit_image, preprocessing=preprocessing)
        return partial(_change, v2.Compose([first, mirror]))

    def collate(self, targets: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        """``image`` (b, 3, h, w), uint8, and ``label`` (b,)."""
        images, labels = zip(*targets, strict=True)
        return {"image": torch.stack(images), "label": torch.tensor(labels)}


def _change(change: v2.Transform, image: Tensor, target: int) -> tuple[Tensor, tuple[Tensor, int]]:
    image = change(image)
    return image, (image, target)
