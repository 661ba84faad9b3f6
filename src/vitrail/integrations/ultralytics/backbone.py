"""The module that a YOLO model file names. It has its own file because checkpoints of ultralytics pickle its path."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.core.errors import ConfigError, ImageSizeError
from vitrail.core.types import ImageSize
from vitrail.models import Backbone, create_model

LEVELS = 3
"""What a YOLO neck takes: P3, P4, P5."""


class VitrailBackbone(nn.Module):
    """A variant by its name, from images in [0, 1] to its last three strides.

    YOLO's images are not normalised; this module normalises them as the family's weights expect. Where a family needs
    larger multiples than YOLO's 32, or one size, images are padded with zeros below and to the right, and the maps are
    cropped.

    Args:
        variant: e.g. ``edgevit_xxs``.
        image_size: size that the backbone is built for, where its tables or windows depend on it.
        weights: weights for :func:`vitrail.create_model`, e.g. ``pretrained``.

    Attributes:
        strides, channels: strides and channels of the maps, finest first.

    Raises:
        ConfigError: the variant has fewer than three strides.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, variant: str, image_size: int | tuple[int, int] | None = None, weights: str | None = None
    ) -> None:
        super().__init__()
        self.backbone = create_model(
            variant, image_size=image_size, weights=weights, num_classes=0, replace_head=weights is not None
        )
        self.indices = last_levels(self.backbone)
        info = [self.backbone.feature_info[index] for index in self.indices]
        self.strides = tuple(level.stride for level in info)
        self.channels = tuple(level.channels for level in info)
        preprocessing = self.backbone.preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, -1, 1, 1), persistent=False)
        for module in self.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = KeptBatchNorm2d

    def forward(self, images: Tensor) -> list[Tensor]:
        """(b, 3, h, w) to maps (b, channels[i], h / strides[i], w / strides[i])."""
        size = (images.shape[-2], images.shape[-1])
        legal = legal_size(self.backbone, size)
        x = (images - self.mean) / self.std
        if legal != size:
            x = F.pad(x, (0, legal[1] - size[1], 0, legal[0] - size[0]))
        maps: list[Tensor] = self.backbone.forward_intermediates(x, self.indices, norm=True, intermediates_only=True)
        if legal == size:
            return maps
        cut = zip(maps, self.strides, strict=True)
        return [level[..., : -(-size[0] // stride), : -(-size[1] // stride)] for level, stride in cut]


class KeptBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d of another type: ultralytics changes ``eps`` and ``momentum`` of every module whose type is
    BatchNorm2d itself, and with another ``eps`` a trained backbone has other outputs."""


def last_levels(backbone: Backbone) -> list[int]:
    """Indices of the last level of each of the three largest strides, ascending.

    Raises:
        ConfigError: there are fewer than three.
    """
    last = {level.stride: index for index, level in enumerate(backbone.feature_info)}
    if len(last) < LEVELS:
        raise ConfigError(
            f"{type(backbone).__name__} has {len(last)} strides, and a YOLO neck needs {LEVELS}; take a pyramid "
            f"family, e.g. edgevit_xxs, or train a plain one with vitrail train --task detection"
        )
    return [last[stride] for stride in sorted(last)][-LEVELS:]


def legal_size(backbone: Backbone, size: ImageSize) -> ImageSize:
    """The least size at least as large as ``size`` that the backbone takes.

    Raises:
        ImageSizeError: there is none.
    """
    divisor = backbone.size_divisor
    rounded = (-(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor)
    built = backbone.config.image_size
    for candidate in (size, rounded, built):
        if candidate[0] >= size[0] and candidate[1] >= size[1] and _takes(backbone, candidate):
            return candidate
    backbone.check_image_size(*size)
    raise AssertionError("unreachable: check_image_size refused this size before")


def _takes(backbone: Backbone, size: ImageSize) -> bool:
    try:
        backbone.check_image_size(*size)
    except ImageSizeError:
        return False
    return True
