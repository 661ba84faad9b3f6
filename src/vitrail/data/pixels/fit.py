"""An image as it is evaluated: resized and cropped to the size that the model takes (uint8, torchvision v2)."""

from __future__ import annotations

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from vitrail.core.errors import ConfigError
from vitrail.core.types import Preprocessing
from vitrail.device.pixels import fit_sizes


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
    size = (image.shape[-2], image.shape[-1])
    kept, resized = fit_sizes(size, preprocessing.image_size, preprocessing.crop_fraction)
    image = F.center_crop(image, list(kept))
    if resized != kept:
        image = F.resize(image, list(resized), interpolation=interpolation_mode(preprocessing), antialias=True)
    fitted: Tensor = F.center_crop(image, list(preprocessing.image_size))
    return fitted
