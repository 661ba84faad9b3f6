"""Which data is read, and how strictly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vitrail.core.config import convert_fields
from vitrail.core.errors import ConfigError
from vitrail.core.types import PixelRange
from vitrail.data.pixels.decode import MAX_PIXELS


def check_pixel_range(pixel_range: PixelRange | None) -> None:
    """
    Raises:
        ConfigError: it is not two finite numbers, the smaller one first.
    """
    if pixel_range is None:
        return
    if len(pixel_range) != 2 or not all(map(math.isfinite, pixel_range)) or pixel_range[0] >= pixel_range[1]:
        raise ConfigError("is not the values of black and of white, the smaller one first", pixel_range=pixel_range)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are split.

    Attributes:
        path: folder of images, or "sample" for the built-in photographs of hand signs. The folder has class folders;
            train/, val/ and perhaps test/ with class folders; a labels.csv or scores.csv; COCO JSON, YOLO text,
            Pascal VOC's XML, or masks.
        val_fraction: share of the training images that is kept for validation where the data names no validation part,
            above 0 and up to 1; 1 keeps all of them (to evaluate on a folder).
        max_bad_fraction: largest share of undecodable images, 0 to 1; fewer are listed and skipped, more are an error.
            Default: 1 %, or 3 files if that is more.
        seed: seed of the split; the same seed gives the same split on every machine.
        max_pixels: largest image, in pixels (height x width); a larger one counts as undecodable.
        ignore_classes: names of classes that are neither learnt nor measured (segmentation only).
        bad_annotations: treatment of wrong boxes, masks, keypoints and scores, and of images that occur twice with
            different classes: "refuse" (an error) or "skip" (they are left out and listed).
        mirror_pairs: keypoints that change places in a mirror image, each pair as NAME=NAME (pose only). Default: the
            pairs that the JSON gives, else those whose names differ by left and right; where neither says it, images
            are not mirrored.
        pixel_range: values that become black and white in grey images of more than 8 bits. Default: 0 and 65535 for
            16-bit images; for floats and 32-bit integers a range that fits all images.
        strict: refuse data that gives a warning, such as an image that is in two parts.
    """

    path: str = "sample"
    val_fraction: float = 0.15
    max_bad_fraction: float | None = None
    seed: int = 0
    max_pixels: int = MAX_PIXELS
    ignore_classes: tuple[str, ...] = ()
    bad_annotations: Literal["refuse", "skip"] = "refuse"
    mirror_pairs: tuple[str, ...] = ()
    pixel_range: PixelRange | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        convert_fields(self)
        if not 0 < self.val_fraction <= 1:
            raise ConfigError("is outside (0, 1]; 0.15 is usual", val_fraction=self.val_fraction)
        if self.max_bad_fraction is not None and not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError("is outside [0, 1]; 0.01 is usual", max_bad_fraction=self.max_bad_fraction)
        if self.max_pixels < 1:
            raise ConfigError(f"is not positive; {MAX_PIXELS} is usual", max_pixels=self.max_pixels)
        check_pixel_range(self.pixel_range)
