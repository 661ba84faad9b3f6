"""Masks of single objects as COCO's JSON has them: polygons, or run lengths.

``segmentation`` of an annotation is a list of polygons ``[x, y, x, y, ...]`` in pixels, or ``{"size": [h, w], "counts":
...}`` with run lengths, down the columns, as numbers or as pycocotools packs them.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from vitrail.core.extras import import_extra
from vitrail.core.types import ImageSize
from vitrail.data.formats.coco import is_numbers


def require_pycocotools() -> None:
    """
    Raises:
        MissingDependencyError: it is not installed.
    """
    import_extra("pycocotools.mask", "pycocotools", "detection")


def decode_mask(shape: Any, size: ImageSize) -> Tensor:
    """A checked ``segmentation`` as a mask (h, w), uint8; None as an empty one."""
    from pycocotools import mask as coco

    if shape is None:
        return torch.zeros(*size, dtype=torch.uint8)
    if isinstance(shape, dict):
        packed = coco.frPyObjects(shape, *size) if isinstance(shape["counts"], list) else shape
    else:
        packed = coco.merge(coco.frPyObjects(shape, *size))
    with warnings.catch_warnings():  # pycocotools 2.0.11 is older than NumPy's present rules for arrays
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.from_numpy(coco.decode(packed))


def problem_of_mask(shape: Any, size: ImageSize) -> str | None:
    """What is wrong with a ``segmentation`` of an image of (height, width)."""
    if isinstance(shape, list):
        for polygon in shape:
            count = len(polygon) if isinstance(polygon, list) else 0
            if count < 6 or count % 2 or not is_numbers(polygon, count):
                return "its mask has a polygon that is not three or more pairs of numbers"
        return None if shape else "it has no mask (an empty segmentation)"
    if not isinstance(shape, dict) or not isinstance(shape.get("counts"), list | str):
        return "it has no mask (segmentation is neither polygons nor run lengths)"
    if shape.get("size") != list(size):
        return f"its mask has the size {shape.get('size')}, but the image {list(size)} (height, width)"
    counts = shape["counts"] if isinstance(shape["counts"], list) else unpack(shape["counts"])
    whole = all(isinstance(n, int) and n >= 0 for n in counts) and sum(counts) == size[0] * size[1]
    return None if whole else "the run lengths of its mask do not add up to its size"


def unpack(text: str) -> list[int]:
    """Run lengths from COCO's packed form: five bits a character, the sixth says that more follow; from the fourth
    number on, differences from the last but one. What is no such text gives numbers that fit no image."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return [-1]
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return [-1] if shift else counts
