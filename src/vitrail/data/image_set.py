"""Labelled images, decoded when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from vitrail.core.errors import DataError
from vitrail.data.decode import MAX_PIXELS, decode_image


class ImageSet(Dataset[tuple[Tensor, int]]):
    """A data set that yields (uint8 RGB image (3, h, w), label); images may differ in size.

    Attributes:
        names: for each image, its path inside the data folder, or an identifier where there is no file.
        sources: for each image, its file or the bytes of one.
        labels: class indices (n,), int64.
        mirrored_alike: a mirrored image keeps its label; training flips images only then.
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
        self.names = list(names)
        self.sources = list(sources)
        self.labels = torch.as_tensor(labels, dtype=torch.int64).reshape(-1)
        self.max_pixels = max_pixels
        self.mirrored_alike = mirrored_alike
        if not len(self.names) == len(self.sources) == len(self.labels):
            raise DataError(
                f"{len(self.names)} names, {len(self.sources)} images, {len(self.labels)} labels: need as many of each"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return decode_image(self.sources[index], self.max_pixels), int(self.labels[index])

    def subset(self, indices: Sequence[int]) -> Self:
        """The images at ``indices``, in that order."""
        return type(self)(
            [self.names[i] for i in indices],
            [self.sources[i] for i in indices],
            self.labels[torch.as_tensor(indices, dtype=torch.int64)],
            max_pixels=self.max_pixels,
            mirrored_alike=self.mirrored_alike,
        )

    def sample(self, count: int, seed: int) -> Self:
        """``count`` images (all, if there are fewer) chosen by ``seed`` and the names alone."""
        order = draw_order(self.names, seed)
        return self.subset(order[:count])

    def relabel(self, labels: Tensor) -> Self:
        """The same images under other labels."""
        return type(self)(
            self.names, self.sources, labels, max_pixels=self.max_pixels, mirrored_alike=self.mirrored_alike
        )


@dataclass(frozen=True)
class DataSplits:
    """A data set ready for use.

    Attributes:
        classes: names, in the order of the labels.
        train, val, test: the parts; ``test`` is None where the data has none.
        fingerprint: SHA-256 over names, labels and contents of all usable images; independent of where they lie.
        skipped: "path: reason" of every image that could not be decoded.
        source: the path as the user gave it.
    """

    classes: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    test: ImageSet | None
    fingerprint: str
    skipped: tuple[str, ...]
    source: str

    @property
    def held_out(self) -> ImageSet:
        """What to evaluate on: the test images, or the validation images where there are none."""
        return self.val if self.test is None else self.test

    def align(self, classes: Sequence[str]) -> DataSplits:
        """The same data with the labels of a model that was trained with ``classes``.

        Raises:
            DataError: the data has a class that the model does not know.
        """
        if tuple(classes) == self.classes:
            return self
        unknown = [name for name in self.classes if name not in classes]
        if unknown:
            known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
            raise DataError(
                f"{self.source} has {len(unknown)} classes that the model does not know ({', '.join(unknown[:5])}); "
                f"rename the folders to the model's classes: {known}"
            )
        table = torch.tensor([list(classes).index(name) for name in self.classes])

        def moved(images: ImageSet) -> ImageSet:
            return images.relabel(table[images.labels])

        test = None if self.test is None else moved(self.test)
        return replace(self, classes=tuple(classes), train=moved(self.train), val=moved(self.val), test=test)


def draw_order(names: Sequence[str], seed: int) -> list[int]:
    """A permutation of the indices that depends on the seed and each name alone.

    Hashing, unlike a random generator, gives the same draw with every library version and on every machine, and adding
    images to the data does not reshuffle the others.
    """
    keys = [hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest() for name in names]
    return sorted(range(len(names)), key=lambda i: (keys[i], names[i]))
