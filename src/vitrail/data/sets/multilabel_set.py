"""Images with any number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.data.pixels.augment import BatchMix, ResolvedAugment, image_transform
from vitrail.data.pixels.fit import fit_image
from vitrail.data.records import MultiLabelImage
from vitrail.data.sets.samples import Mix, Samples, Transform, image_alone

UNKNOWN = -1.0
"""Entry of a target where nobody said whether the image has the class: it is neither learnt nor measured."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MultiLabelSet(Samples):
    """Images with an entry for each class: 1 where they have it, 0 where they do not, :data:`UNKNOWN`.

    Attributes:
        num_classes: number of entries of a target.
        named: the classes that the data says something of; all others are unknown. None for all, as in data that
            lists the classes of an image.
    """

    records: Sequence[MultiLabelImage]
    num_classes: int
    named: frozenset[int] | None = None

    def target(self, index: int) -> Tensor:
        """An entry for each class (num_classes,)."""
        record = self.records[index]
        target = torch.zeros(self.num_classes)
        target[list(record.labels)] = 1.0
        target[list(record.unknown)] = UNKNOWN
        if self.named is not None:
            target[[label for label in range(self.num_classes) if label not in self.named]] = UNKNOWN
        return target

    def targets(self) -> Tensor:
        """The targets of all samples (n, num_classes)."""
        rows = [self.target(index) for index in range(len(self))]
        return torch.stack(rows) if rows else torch.zeros(0, self.num_classes)

    def fit(self, image: Tensor, target: Tensor, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
        """The image resized and cropped, see :func:`~vitrail.data.pixels.fit.fit_image`."""
        return fit_image(image, preprocessing), target

    def train_transform(self, preprocessing: Preprocessing, augment: ResolvedAugment) -> Transform:
        """Changes of the image alone."""
        return partial(image_alone, image_transform(preprocessing, augment, mirrored_alike=self.mirrored_alike))

    def collate(self, targets: list[Tensor]) -> Tensor:
        """(b, num_classes)."""
        return torch.stack(targets)

    def mix(self, augment: ResolvedAugment, num_classes: int) -> Mix | None:
        """Mixup and cutmix; an entry that is unknown in one of two mixed images stays unknown."""
        return _KnownMix(BatchMix(augment, num_classes)) if augment.mixes else None

    def occurs(self, label: int) -> bool:
        """Whether an image has class ``label``."""
        return any(label in record.labels for record in self.records)

    def class_shares(self, num_classes: int) -> Tensor:
        """How many images have each class not, and how many have it (2, num_classes)."""
        targets = self.targets()
        return torch.stack([(targets == 0).sum(0), (targets == 1).sum(0)])

    def renumber(self, table: Tensor) -> Self:
        """The same images; class i becomes ``table[i]``, or is left out below 0."""
        new: list[int] = table.tolist()

        def changed(labels: Sequence[int] | frozenset[int]) -> tuple[int, ...]:
            return tuple(sorted(new[label] for label in labels if new[label] >= 0))

        records = [replace(one, labels=changed(one.labels), unknown=changed(one.unknown)) for one in self.records]
        return replace(self, records=records, named=None if self.named is None else frozenset(changed(self.named)))

    def for_classes(self, count: int) -> Self:
        """The same images with ``count`` entries in a target."""
        return replace(self, num_classes=count)


class _KnownMix:
    """A mix of (b, num_classes) that has unknown entries: they are no numbers while the others are mixed."""

    def __init__(self, mix: BatchMix) -> None:
        self.mix = mix

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        mixed, soft = self.mix(images, targets.masked_fill(targets < 0, torch.nan))
        return mixed, soft.nan_to_num(nan=UNKNOWN)
