"""Images with targets of any kind; a kind of target is one subclass."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

from torch import Tensor
from torch.utils.data import Dataset

from vitrail.core.errors import ConfigError
from vitrail.core.types import PixelRange, Preprocessing
from vitrail.data.pixels.augment import ResolvedAugment
from vitrail.data.pixels.decode import MAX_PIXELS, decode_image
from vitrail.data.records import Record

Transform = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""(uint8 image, target) to the same, changed together; random ones draw from PyTorch's global generator."""

Mix = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""The same for a whole batch: mixup, cutmix."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Samples(Dataset[tuple[Tensor, Any]], ABC):
    """A data set that yields (uint8 RGB image (3, h, w), target); images may differ in size, and are decoded late.

    A subclass says what its targets are and how they change together with their images.

    Attributes:
        records: what is known of each sample.
        max_pixels: largest height x width that is decoded.
        mirrored_alike: whether a mirrored image keeps its target; training mirrors images only then.
        pixel_range: values that become black and white in grey images of more than 8 bits; None for each image's own.
        damaged: images that are decoded by the careful way, see :func:`~vitrail.data.decode_image`.
    """

    records: Sequence[Record]
    max_pixels: int = MAX_PIXELS
    mirrored_alike: bool = True
    pixel_range: PixelRange | None = None
    damaged: Set[str] = frozenset()

    @abstractmethod
    def target(self, index: int) -> Any:
        """The target as the data has it, in pixels of the undistorted image."""

    @abstractmethod
    def fit(self, image: Tensor, target: Any, preprocessing: Preprocessing) -> tuple[Tensor, Any]:
        """A sample as it is evaluated: a uint8 image (3, *image_size), and the target that belongs to it."""

    @abstractmethod
    def train_transform(self, preprocessing: Preprocessing, augment: ResolvedAugment) -> Transform:
        """A sample as it is trained on: the same with random changes."""

    @abstractmethod
    def collate(self, targets: list[Any]) -> Any:
        """The targets of a batch: a tensor, or lists and dictionaries of tensors."""

    @abstractmethod
    def renumber(self, table: Tensor) -> Self:
        """The same samples; class i becomes ``table[i]``, or is left out below 0. Targets that name no classes stay."""

    def occurs(self, label: int) -> bool:
        """Whether a target names class ``label``, as far as that is known without reading the targets."""
        return True

    def class_shares(self, num_classes: int) -> Tensor | None:
        """How many images each class has (num_classes,), in fractions where the pixels of an image have several; where
        an image has any number of classes, how many have each not, and how many have it (2, num_classes); None where
        targets are neither."""
        return None

    def for_classes(self, count: int) -> Self:
        """The same samples for a model of so many classes, after :meth:`renumber`; targets with an entry for each class
        differ."""
        return self

    def mix(self, augment: ResolvedAugment, num_classes: int) -> Mix | None:
        """What mixes the images of a batch, or None.

        Raises:
            ConfigError: mixing is wanted, and targets of this kind cannot be mixed.
        """
        if augment.mixes:
            raise ConfigError(
                f"mixup_alpha={augment.mixup_alpha}, cutmix_alpha={augment.cutmix_alpha}: only images with one class "
                f"each can be mixed; set both to 0"
            )
        return None

    @cached_property
    def names(self) -> list[str]:
        """Name of each sample, see :class:`~vitrail.data.records.Record`."""
        return [record.name for record in self.records]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        record = self.records[index]
        careful = record.files[0] in self.damaged
        return decode_image(record.source, self.max_pixels, self.pixel_range, careful=careful), self.target(index)

    def fitted(self, index: int, preprocessing: Preprocessing) -> tuple[Tensor, Any]:
        """Sample ``index`` as it is evaluated; the range of ``preprocessing`` comes before that of the data."""
        samples = replace(self, pixel_range=preprocessing.pixel_range) if preprocessing.pixel_range else self
        return self.fit(*samples[index], preprocessing)

    def subset(self, indices: Sequence[int]) -> Self:
        """The samples at ``indices``, in that order."""
        return replace(self, records=[self.records[i] for i in indices])

    def sample(self, count: int, seed: int) -> Self:
        """``count`` samples (all, if there are fewer) chosen by ``seed`` and the names alone."""
        return self.subset(draw_order(self.names, seed)[:count])


def image_alone(change: Callable[[Tensor], Tensor], image: Tensor, target: Any) -> tuple[Tensor, Any]:
    """A change that leaves the target as it is."""
    return change(image), target


def draw_order(names: Sequence[str], seed: int) -> list[int]:
    """A permutation of the indices that depends on the seed and each name alone.

    Hashing, unlike a random generator, gives the same draw with every library version and on every machine, and adding
    images to the data does not reshuffle the others.
    """
    keys = [hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest() for name in names]
    return sorted(range(len(names)), key=lambda i: (keys[i], names[i]))
