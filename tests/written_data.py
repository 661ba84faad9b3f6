"""Small data sets as labelling tools write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMAGE_SIZE = (24, 32)
"""Height and width of every image."""


def coco_values(names: Mapping[Any, str], images: int = 2) -> dict[str, Any]:
    """A COCO JSON in which image ``i`` has one object of the ``i``-th category."""
    ids = list(names)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 32, "height": 24} for i in range(images)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": ids[i % len(ids)], "bbox": [2, 3, 4 + i, 5]} for i in range(images)
        ],
        "categories": [{"id": key, "name": name} for key, name in names.items()],
    }


def write_plain_images(folder: Path, names: Iterable[str]) -> None:
    """Images of one colour, another one for each."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", IMAGE_SIZE[::-1], (number, 0, len(folder.as_posix()) % 256)).save(folder / name)


def scene(seed: int, side: int = 48) -> Image.Image:
    """A picture with structure at several scales, as photographs have it."""
    draw = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
        for coarse in (draw.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in (2, 4, 8, 16, side))
    ]
    return Image.fromarray(np.average(layers, axis=0, weights=(4, 3, 2, 1, 0.5)).astype(np.uint8))
