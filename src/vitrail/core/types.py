"""Small frozen dataclasses that cross package borders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from vitrail.core.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

ImageSize = tuple[int, int]
"""(height, width) in pixels."""


def as_image_size(size: int | Sequence[int]) -> ImageSize:
    """``224`` or ``(height, width)`` as a pair of positive ints.

    Raises:
        ConfigError: not one or two positive integers.
    """
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ConfigError("is not a positive number of pixels, or two: height and width", image_size=size)
    return pair


@dataclass(frozen=True, kw_only=True)
class FeatureInfo:
    """One level of features that a backbone offers.

    Attributes:
        name: module path of what computes the level, e.g. ``stages.2`` or ``blocks.11``.
        channels: width of the level.
        stride: pixels of the image for one step of the level, on each axis.
    """

    name: str
    channels: int
    stride: int


Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic"]
"""How images are resized: what torchvision has for tensors."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From a decoded image to the numbers that a model expects.

    The image is resized so that it just covers ``image_size / crop_fraction``, but never enlarged more than covering
    ``image_size`` needs; then cropped in the centre, scaled to [0, 1] and normalised: ``(x - mean) / std`` per channel
    (RGB).
    """

    image_size: ImageSize = (224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop_fraction: float = 0.875
    interpolation: str = "bicubic"

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 images (..., c, h, w) to normalised float32 ones, on the device where they are."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.to(torch.float32) / 255 - mean) / std

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`, also after a trip through JSON."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a data loader yields.

    Attributes:
        images: (b, c, h, w), uint8 before :meth:`Preprocessing.normalize`.
        targets: what the data set collates: class indices (b,) int64 (soft labels (b, num_classes) after
            mixup/cutmix), or any nesting of lists, dictionaries and tensors.
    """

    images: Tensor
    targets: Any

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Lightning and plain loops move a batch with this."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(images=change(self.images), targets=tree_map_only(Tensor, change, self.targets))
