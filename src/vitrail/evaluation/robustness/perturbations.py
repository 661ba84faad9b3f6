"""Shifts, rotations and zooms of uint8 pictures; doing nothing gives the picture back bit for bit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V


def shift(images: Tensor, down: int, right: int, border: Literal["reflect", "circular"] = "reflect") -> Tensor:
    """Move pictures (..., h, w) by whole pixels; what moves in is the picture mirrored at its edge, or what moved out
    on the other side."""
    if border == "circular":
        return torch.roll(images, (down, right), (-2, -1))
    rows, columns = (_mirrored(size, by, images) for size, by in ((images.shape[-2], down), (images.shape[-1], right)))
    return images[..., rows, :][..., columns]


def _mirrored(size: int, by: int, images: Tensor) -> Tensor:
    """Where each place takes its pixel from: 0 1 2 | 2 1 0 | 0 1 2."""
    places = (torch.arange(size, device=images.device) - by) % (2 * size)
    return torch.minimum(places, 2 * size - 1 - places)


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turn pictures (b, c, h, w) about their centre; corners are filled with the mirrored surroundings."""
    return _affine(images, degrees, 1.0)


def zoom(images: Tensor, factor: float) -> Tensor:
    """Enlarge pictures (b, c, h, w) about their centre, or shrink them amid their mirrored surroundings."""
    return _affine(images, 0.0, factor)


def _affine(images: Tensor, degrees: float, factor: float) -> Tensor:
    if degrees == 0 and factor == 1:
        return images
    height, width = images.shape[-2:]
    top, left = (min(size - 1, size) for size in (height, width))  # the most that can be mirrored
    padded = F.pad(images.float(), (left, left, top, top), mode="reflect")
    turned = V.affine(padded, degrees, [0.0, 0.0], factor, [0.0, 0.0], interpolation=V.InterpolationMode.BILINEAR)
    return V.center_crop(turned, [height, width]).round().clamp(0, 255).to(torch.uint8)
