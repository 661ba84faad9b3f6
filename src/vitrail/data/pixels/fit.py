"""An image as it is evaluated: resized and cropped to the size that the model takes (uint8, torchvision v2)."""

from __future__ import annotations

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing

LONGEST_SIDE_RATIO = 8
"""Pictures more elongated than this are cropped before they are enlarged, or a 1x10000 one would fill the memory."""


def interpolation_mode(preprocessing: Preprocessing) -> InterpolationMode:
    """
    Raises:
        ConfigError: no such interpolation.
    """
    try:
        return InterpolationMode(preprocessing.interpolation)
    except ValueError as error:
        known = ", ".join(mode.value for mode in InterpolationMode)
        raise ConfigError(f"interpolation '{preprocessing.interpolation}' does not exist; known: {known}") from error


def fit_image(image: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Resize and crop in the centre, for evaluation: (3, h, w) to (3, *image_size), uint8.

    The picture is resized so that it just covers ``image_size / crop_fraction``, and cropped. It is never enlarged
    more than the crop needs: one that covers ``image_size`` but not ``image_size / crop_fraction`` is only cropped,
    and one of exactly the right size is returned as it is.
    """
    height, width = preprocessing.image_size
    crop = preprocessing.crop_fraction
    full = max(round(height / crop) / image.shape[-2], round(width / crop) / image.shape[-1])
    least = max(height / image.shape[-2], width / image.shape[-1])
    scale = min(full, max(1.0, least))
    image = _limit_sides(image, round(LONGEST_SIDE_RATIO * max(height, width) / scale))
    size = [max(round(image.shape[-2] * scale), height), max(round(image.shape[-1] * scale), width)]
    if size != list(image.shape[-2:]):
        image = F.resize(image, size, interpolation=interpolation_mode(preprocessing), antialias=True)
    fitted: Tensor = F.center_crop(image, [height, width])
    return fitted


def _limit_sides(image: Tensor, limit: int) -> Tensor:
    height, width = min(image.shape[-2], limit), min(image.shape[-1], limit)
    return image if (height, width) == image.shape[-2:] else F.center_crop(image, [height, width])
