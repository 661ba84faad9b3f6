"""Images whose target is the image itself: for masked pretraining and for generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.data.pixels.augment import AugmentConfig, crop_and_mirror
from vitrail.data.pixels.fit import fit_image
from vitrail.data.sets.image_set import LabelledSamples
from vitrail.data.sets.samples import Transform


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PictureSet(LabelledSamples):
    """Images, with a class each where there are classes; without, every label is 0.

    Attributes:
        crops: whether training cuts random parts out of the images; otherwise it only mirrors them.
    """

    crops: bool

    def fit(self, image: Tensor, target: int, preprocessing: Preprocessing) -> tuple[Tensor, tuple[Tensor, int]]:
        """The image resized and cropped in the centre; the target is that image, and the class."""
        fitted = fit_image(image, preprocessing)
        return fitted, (fitted, target)

    def train_transform(self, preprocessing: Preprocessing, augment: AugmentConfig) -> Transform:
        """Random crops and mirror images. Colours stay: the image is to be learnt as it is."""
        crop, mirror = crop_and_mirror(preprocessing, augment, mirrored_alike=self.mirrored_alike)
        return partial(_change, [crop if self.crops else partial(fit_image, preprocessing=preprocessing), mirror])

    def collate(self, targets: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
        """``image`` (b, 3, h, w), uint8, and ``label`` (b,)."""
        images, labels = zip(*targets, strict=True)
        return {"image": torch.stack(images), "label": torch.tensor(labels)}


def _change(steps: Sequence[Callable[..., Tensor]], image: Tensor, target: int) -> tuple[Tensor, tuple[Tensor, int]]:
    for step in steps:
        image = step(image)
    return image, (image, target)
