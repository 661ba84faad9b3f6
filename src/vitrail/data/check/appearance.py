"""What images look like in numbers, from one pass over their pixels: light, contrast, sharpness, a small grey copy."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence, Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitrail.core.errors import DataError
from vitrail.core.progress import track
from vitrail.core.types import PixelRange
from vitrail.data.check.decoding import CHUNK, num_threads
from vitrail.data.pixels.decode import decode_image
from vitrail.data.records import Record

THUMBNAIL_SIDE = 32
"""Pixels a side of the grey copy: enough for the lowest waves of an image, and 1 KB an image."""

SHARPNESS_SIDE = 256
"""Longer side, in pixels, at which sharpness is measured: a large picture is not blurred because it is large."""

GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Shares of red, green and blue in what the eye sees as light (ITU-R BT.601)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Appearance:
    """What one image looks like.

    Attributes:
        width, height: pixels, upright.
        kind: format and channels of the file, such as "JPEG RGB".
        pixels: hash of the decoded pixels: equal where two files show the same, whatever their bytes.
        brightness: mean grey, 0 (black) to 255 (white).
        contrast: standard deviation of the grey.
        sharpness: variance of the grey's Laplacian, of the image at most :data:`SHARPNESS_SIDE` pixels a side.
        thumbnail: the whole image in grey, squeezed to (:data:`THUMBNAIL_SIDE`, :data:`THUMBNAIL_SIDE`), uint8.
    """

    width: int
    height: int
    kind: str
    pixels: str
    brightness: float
    contrast: float
    sharpness: float
    thumbnail: NDArray[np.uint8]

    @property
    def aspect(self) -> float:
        """Longer side over shorter side."""
        return max(self.width, self.height) / min(self.width, self.height)


def look_at(
    records: Sequence[Record],
    *,
    max_pixels: int,
    pixel_range: PixelRange | None = None,
    damaged: AbstractSet[str] = frozenset(),
    progress: bool = False,
) -> dict[str, Appearance]:
    """The appearance of every image file of ``records``, by the path inside the data folder.

    Several samples of one file are one image. A file that has gone since it was listed is left out.

    Args:
        records: samples that are usable.
        max_pixels, pixel_range, damaged: as in :class:`~vitrail.data.Samples`.
        progress: show a bar with the time that is left.
    """
    sources: Mapping[str, Path | bytes] = {record.files[0]: record.source for record in records}
    names = list(sources)
    look = partial(_look, max_pixels=max_pixels, pixel_range=pixel_range)
    with ThreadPoolExecutor(max_workers=num_threads()) as pool:
        results = (
            found
            for start in range(0, len(names), CHUNK)
            for found in pool.map(
                lambda name: look(sources[name], careful=name in damaged), names[start : start + CHUNK]
            )
        )
        steps = track(results, "Looking at images", total=len(names), progress=progress)
        every = dict(zip(names, steps, strict=True))
    return {name: found for name, found in every.items() if found is not None}


def _look(source: Path | bytes, *, max_pixels: int, pixel_range: PixelRange | None, careful: bool) -> Appearance | None:
    try:
        image = decode_image(source, max_pixels, pixel_range, careful=careful)
        kind = _kind(source)
    except (DataError, OSError):
        return None
    height, width = image.shape[1:]
    grey = _grey(image)
    small = Image.fromarray(grey)
    thumbnail = small.resize(
        (THUMBNAIL_SIDE, THUMBNAIL_SIDE),
        Image.Resampling.BOX if min(grey.shape) > THUMBNAIL_SIDE else Image.Resampling.BICUBIC,
    )
    if max(grey.shape) > SHARPNESS_SIDE:
        small.thumbnail((SHARPNESS_SIDE, SHARPNESS_SIDE), Image.Resampling.BOX)
    return Appearance(
        width=width,
        height=height,
        kind=kind,
        pixels=hashlib.blake2b(f"{width} ".encode() + image.numpy().tobytes(), digest_size=16).hexdigest(),
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        sharpness=_laplacian_variance(np.asarray(small, dtype=np.float32)),
        thumbnail=np.asarray(thumbnail),
    )


def _kind(source: Path | bytes) -> str:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        return f"{image.format} {image.mode}"


def _grey(image: Tensor) -> NDArray[np.uint8]:
    grey = np.tensordot(GREY, image.numpy().astype(np.float32), axes=1)
    return (grey + 0.5).astype(np.uint8)


def _laplacian_variance(grey: NDArray[np.float32]) -> float:
    """Zero for an image of less than three pixels a side."""
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var())
