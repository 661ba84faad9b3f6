"""Images with a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from vitrail.core.types import Preprocessing
from vitrail.data.pixels.augment import ResolvedAugment, change_together, placed_transform
from vitrail.data.pixels.letterbox import Letterbox
from vitrail.data.records import IGNORE, MaskedImage
from vitrail.data.sets.samples import Samples, Transform


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MaskSet(Samples):
    """Images with masks.

    Attributes:
        table: class index, or :data:`~vitrail.data.IGNORE`, of each value in the masks: (256,) uint8.
    """

    records: Sequence[MaskedImage]
    table: Tensor

    def target(self, index: int) -> Tensor:
        """Class indices (h, w), uint8."""
        return self.table[torch.from_numpy(self.records[index].read_mask()).long()]

    def class_shares(self, num_classes: int) -> Tensor:
        """The sum over the images of each class's share of the pixels that have a class (num_classes,)."""
        with ThreadPoolExecutor() as pool:
            counts = list(pool.map(partial(self._count, num_classes), range(len(self))))
        return torch.stack([count / count.sum().clamp(min=1) for count in counts]).sum(0)

    def _count(self, num_classes: int, index: int) -> Tensor:
        target = self.target(index)
        return target[target != IGNORE].long().bincount(minlength=num_classes).double()

    def fit(self, image: Tensor, target: Tensor, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
        """The whole picture in a frame; the frame's rest is ignored."""
        box = Letterbox.of((image.shape[-2], image.shape[-1]), preprocessing.image_size)
        return box.image(image, preprocessing), box.mask(target, IGNORE)

    def train_transform(self, preprocessing: Preprocessing, augment: ResolvedAugment) -> Transform:
        """Random crops and mirror images of both, and other colours. (RandAugment would move the image alone.)"""
        return partial(_change, placed_transform(preprocessing, augment, mirrored_alike=self.mirrored_alike))

    def collate(self, targets: list[Tensor]) -> Tensor:
        """(b, h, w) int64."""
        return torch.stack(targets).long()

    def renumber(self, table: Tensor) -> Self:
        """The same masks; class i becomes ``table[i]``."""
        known = self.table != IGNORE
        new = self.table.clone()
        new[known] = table[self.table[known].long()].to(torch.uint8)
        return replace(self, table=new)


def _change(change: v2.Transform, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    image, mask = change_together(change, image, tv_tensors.Mask(target))
    return image, mask
