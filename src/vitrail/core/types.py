"""Small frozen dataclasses that several packages share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vitrail.core.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

ImageSize = tuple[int, int]
"""(height, width) in pixels."""

PixelRange = tuple[float, float]
"""Values that become black and white in grey images of more than 8 bits."""


def as_image_size(size: int | Sequence[int]) -> ImageSize:
    """``224`` or ``(height, width)`` as a pair of positive ints.

    Raises:
        ConfigError: the size is not one or two positive integers.
    """
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ConfigError("is not a positive number of pixels, or two: height and width", image_size=size)
    return pair


@dataclass(frozen=True, kw_only=True)
class FeatureInfo:
    """One level of features of a backbone.

    Attributes:
        name: path of the module that computes the level, e.g. ``stages.2`` or ``blocks.11``.
        channels: number of channels of the level.
        stride: pixels of the image per step of the level, on each axis.
    """

    name: str
    channels: int
    stride: int


Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic"]
"""Resize methods of torchvision for tensors."""


def as_channels(name: str, values: Sequence[float]) -> tuple[float, float, float]:
    """One number for all channels, or three (red, green, blue), as three.

    Raises:
        ConfigError: another number of numbers, one that is not finite, or a deviation (``name="std"``) of 0 or less.
    """
    numbers = isinstance(values, Sequence) and all(isinstance(value, int | float) for value in values)
    if not numbers or len(values) not in (1, 3):
        raise ConfigError("is not one number, or three (red, green, blue)", **{name: values})
    if not all(map(isfinite, values)):
        raise ConfigError("has a value that is not finite; numbers from 0 to 1 are usual", **{name: values})
    if name == "std" and min(values) <= 0:
        raise ConfigError("must be above 0; 0.5 and ImageNet's 0.229 0.224 0.225 are usual", std=values)
    red, green, blue = [float(value) for value in values] * (3 // len(values))
    return red, green, blue


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The conversion of a decoded image to the input of a model.

    The image is resized to just cover ``image_size / crop_fraction``, but it is never enlarged beyond the size that
    covers ``image_size``. It is then cropped in the centre, scaled to [0, 1] and normalised: ``(x - mean) / std`` per
    channel (RGB).

    Attributes:
        image_size: height and width of the input.
        mean, std: numbers of the normalisation, one a channel.
        crop_fraction: share of the resized image's side that is kept.
        interpolation: method that resizes.
        pixel_range: values that become black and white where a file is grey with more than 8 bits; None if the model
            was trained without such files.
    """

    image_size: ImageSize = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_fraction: float = 0.875
    interpolation: str = "bicubic"
    pixel_range: PixelRange | None = None

    def normalize(self, images: Tensor) -> Tensor:
        """Convert uint8 images (..., c, h, w) to normalised float32 images on the same device."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.to(torch.float32) / 255 - mean) / std

    def changed(
        self,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        crop_fraction: float | None = None,
        interpolation: str | None = None,
    ) -> Self:
        """This preprocessing with the given fields; one number stands for all three channels.

        Raises:
            ConfigError: a value that is not allowed.
        """
        given: dict[str, Any] = {}
        if mean is not None:
            given["mean"] = as_channels("mean", mean)
        if std is not None:
            given["std"] = as_channels("std", std)
        if crop_fraction is not None:
            if not 0 < crop_fraction <= 1:
                raise ConfigError("is outside (0, 1]; 0.875 is usual", crop_fraction=crop_fraction)
            given["crop_fraction"] = crop_fraction
        if interpolation is not None:
            if interpolation not in get_args(Interpolation):
                known = ", ".join(get_args(Interpolation))
                raise ConfigError(f"is not allowed; choose one of {known}", interpolation=interpolation)
            given["interpolation"] = interpolation
        return replace(self, **given)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; without ``pixel_range`` where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also for values from JSON."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of a data loader.

    Attributes:
        images: images (b, c, h, w), uint8 before :meth:`Preprocessing.normalize`.
        targets: targets as the data set collates them: class indices (b,) int64 (soft labels (b, num_classes) after
            mixup/cutmix), or any nesting of lists, dictionaries and tensors.
        keys: which image and which of its random views each one is (b, 2); None where the views are not counted.
    """

    images: Tensor
    targets: Any
    keys: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Move the tensors to a device; Lightning calls this."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        keys = None if self.keys is None else change(self.keys)
        return Batch(images=change(self.images), targets=tree_map_only(Tensor, change, self.targets), keys=keys)
