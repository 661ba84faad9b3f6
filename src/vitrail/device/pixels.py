"""From an image file to the input of a model, with NumPy and Pillow alone; this file can be copied as it is.

``vitrail predict`` prepares the same pixels, bit for bit. So do training and evaluation, in PyTorch, but for
:func:`view`, where some pixels in a thousand differ by 1. docs/exporting.md has the rule in words, and so has every
exported file.

Pixels are uint8 (h, w, 3), RGB. ``how`` is the file's ``preprocessing``: ``image_size`` (height, width), ``mean``,
``std``, ``crop_fraction`` and ``interpolation``.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
How = Mapping[str, Any]
Size = tuple[int, int]
"""(height, width)."""

LONGEST_SIDE_RATIO = 8
"""Pictures more elongated than this are cropped before they are enlarged, or a 1x10000 one would fill the memory."""
MARGIN = 1.25
"""Side of what is seen / side of the object, as in Simple Baselines (Xiao et al., ECCV 2018)."""
BAND = 32
"""Rows that are computed at a time."""
TURNS = dict(enumerate((0, 3, 1, 5, 4, 6, 2), start=2))
"""EXIF orientation -> number of Pillow's transposition that makes it upright."""
TRANSPOSED = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap height and width."""


def read_image(source: str | Path | bytes | Image.Image, how: How | None = None) -> Array:
    """An image file, its bytes or an opened image as pixels: upright, on white, 8 bits, the first frame.

    Args:
        source: the image.
        how: what the file of the model says; its ``pixel_range`` has the values that become black and white in grey
            images of more than 8 bits. Without it these are 0 and 65535, for 16 bits alone.

    Raises:
        ValueError: 32-bit or float grey without a ``pixel_range``.
        OSError: no image, as Pillow says it.
    """
    black_white = (how or {}).get("pixel_range")
    if isinstance(source, Image.Image):
        return np.asarray(_to_rgb(upright(source), black_white))
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        image.load()
        return np.asarray(_to_rgb(upright(image), black_white))


def upright(image: Image.Image) -> Image.Image:
    """An image turned by its :func:`orientation`."""
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(Image.Transpose(turn))


def orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, which is upright, where there is none or none that can be read."""
    image.info.pop("xmp", None)  # Pillow would take it from there too; browsers and decoders of JPEG do not
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 (a damaged block says nothing about the pixels)
        return 1


def _to_rgb(image: Image.Image, black_white: Sequence[float] | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        if black_white is None and not image.mode.startswith("I;16"):
            raise ValueError(
                f"the image is grey with 32 bits (mode {image.mode}), and the model's file has no pixel_range for it; "
                f"save the image with 8 or 16 bits"
            )
        black, white = black_white or (0, 65535)
        values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=black, posinf=white, neginf=black)
        shares = np.clip((values - black) / (white - black), 0, 1)
        return Image.fromarray((shares * 255 + 0.5).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def fit(pixels: Array, how: How) -> Array:
    """Resize and crop in the centre (frame "crop"): (h, w, 3) to (*image_size, 3)."""
    kept, resized = fit_sizes(size_of(pixels), how["image_size"], how["crop_fraction"])
    return _centre(resize(_centre(pixels, kept), resized, how["interpolation"]), how["image_size"])


def fit_sizes(size: Size, frame: Size, crop_fraction: float) -> tuple[Size, Size]:
    """The centre of a picture that is kept, and the size that it is resized to, before ``frame`` is cropped from it."""
    full = max(round(one / crop_fraction) / side for one, side in zip(frame, size, strict=True))
    least = max(one / side for one, side in zip(frame, size, strict=True))
    scale = min(full, max(1.0, least))
    limit = round(LONGEST_SIDE_RATIO * max(frame) / scale)
    kept = (min(size[0], limit), min(size[1], limit))
    return kept, (max(round(kept[0] * scale), frame[0]), max(round(kept[1] * scale), frame[1]))


def letterbox(pixels: Array, how: How) -> Array:
    """The whole picture at the top left of the frame (frame "letterbox"), the rest in the mean colour."""
    inner = letterbox_size(size_of(pixels), how["image_size"])
    grey = np.array([round(255 * mean) for mean in how["mean"]], np.uint8)
    framed = np.broadcast_to(grey, (*how["image_size"], 3)).copy()
    framed[: inner[0], : inner[1]] = resize(pixels, inner, how["interpolation"])
    return framed


def letterbox_size(size: Size, frame: Size) -> Size:
    """The largest size in the frame that keeps a picture's proportions (to a pixel)."""
    scale = min(frame[0] / size[0], frame[1] / size[1])
    return min(max(round(size[0] * scale), 1), frame[0]), min(max(round(size[1] * scale), 1), frame[1])


def view(pixels: Array, box: Sequence[float], how: How) -> Array:
    """A box (left, top, right, bottom) with a margin in the middle of the frame (frame "view"); outside of the picture
    there is the mean colour."""
    frame, (centre, scale) = how["image_size"], view_of(box, how["image_size"])
    mean = np.float32(255) * np.asarray(how["mean"], np.float32)
    size = size_of(pixels)
    if scale < 1:  # points alone would skip pixels
        pixels = resize(pixels, (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)), "bilinear")
    seen = np.pad(pixels.astype(np.float32) - mean, ((1, 1), (1, 1), (0, 0)))
    for axis in (0, 1):
        places = ((np.arange(frame[axis]) + 0.5 - frame[axis] / 2) / scale + centre[1 - axis]) / size[axis]
        places = np.clip(places * pixels.shape[axis] + 0.5, 0, pixels.shape[axis] + 1)  # of the padded picture
        first = np.minimum(places.astype(np.int64), pixels.shape[axis])
        share = (places - first).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        seen = seen.take(first, axis) * (1 - share) + seen.take(first + 1, axis) * share
    return np.clip(np.rint(seen + mean), 0, 255).astype(np.uint8)


def view_of(box: Sequence[float], frame: Size) -> tuple[tuple[float, float], float]:
    """The middle (x, y) of a box, and the pixels of the frame for one of the picture."""
    width, height = max(box[2] - box[0], 1e-3), max(box[3] - box[1], 1e-3)
    scale = min(frame[1] / (width * MARGIN), frame[0] / (height * MARGIN))
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), scale


def normalise(pixels: Array, how: How) -> Array:
    """Pixels (h, w, 3) as a batch of one: (pixels / 255 - mean) / std, float32 (1, 3, h, w)."""
    mean, std = np.asarray(how["mean"], np.float32), np.asarray(how["std"], np.float32)
    normal = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


def resize(pixels: Array, size: Size, interpolation: str) -> Array:
    """As PyTorch resizes uint8, with antialiasing: columns first, each pass rounded to 8 bits."""
    if interpolation in ("nearest", "nearest-exact"):
        rows, columns = (_nearest(*sides, interpolation) for sides in zip(size, pixels.shape[:2], strict=True))
        return pixels[rows][:, columns]
    if size[1] != pixels.shape[1]:
        pixels = _resize_rows(pixels.transpose(1, 0, 2), size[1], interpolation).transpose(1, 0, 2)
    return pixels if size[0] == pixels.shape[0] else _resize_rows(pixels, size[0], interpolation)


def _nearest(count: int, sources: int, interpolation: str) -> Array:
    half = np.float32(0.5 if interpolation == "nearest-exact" else 0)
    places = (np.arange(count, dtype=np.float32) + half) * (np.float32(sources) / np.float32(count))
    return np.minimum(places.astype(np.int64), sources - 1)


def _bilinear(x: Array) -> Array:
    return np.maximum(1 - x, 0)


def _bicubic(x: Array) -> Array:
    inner, outer = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _lanczos(x: Array) -> Array:
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


KERNELS: dict[str, tuple[Callable[[Array], Array], int]] = {
    "bilinear": (_bilinear, 1),
    "bicubic": (_bicubic, 2),
    "lanczos": (_lanczos, 3),
}
"""Name -> weight at a distance in pixels, and the distance from which it is 0."""


def _weights(sources: int, count: int, interpolation: str) -> tuple[Array, Array, int]:
    """First source pixel of each result (count,), whole weights (count, taps), and the bits of their sum."""
    if interpolation not in KERNELS:
        known = ", ".join(("nearest", "nearest-exact", *KERNELS))
        raise ValueError(f"interpolation '{interpolation}' is not known here; known: {known}")
    kernel, radius = KERNELS[interpolation]
    scale = sources / count
    support = radius * max(scale, 1.0)
    taps = np.arange(2 * math.ceil(support) + 1)
    centres = scale * (np.arange(count) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    number = np.minimum((centres + support + 0.5).astype(np.int64), sources) - first
    distances = np.abs((taps + first[:, None] - centres[:, None] + 0.5) * (1 / max(scale, 1.0)))
    weights = np.where(taps < number[:, None], kernel(distances), 0.0)
    weights /= weights.cumsum(1)[:, -1:]
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**15:
        bits += 1
    return first, np.trunc(weights * 2**bits + np.copysign(0.5, weights)), bits


def _resize_rows(pixels: Array, count: int, interpolation: str) -> Array:
    """(h, w, 3) to (count, w, 3); sums of whole numbers, which floats of 64 bits hold exactly."""
    first, weights, bits = _weights(len(pixels), count, interpolation)
    taps = weights.shape[1]
    flat = pixels.reshape(len(pixels), -1)
    result = np.empty((count, flat.shape[1]), np.uint8)
    for start in range(0, count, BAND):
        part = slice(start, start + BAND)
        low, high = first[part][0], min(first[part][-1] + taps, len(pixels))
        matrix = np.zeros((len(first[part]), high - low + taps))
        np.put_along_axis(matrix, (first[part] - low)[:, None] + np.arange(taps), weights[part], 1)
        sums = matrix[:, : high - low] @ flat[low:high].astype(np.float64)
        result[part] = np.clip(np.floor(sums / 2**bits + 0.5), 0, 255)
    return result.reshape(count, *pixels.shape[1:])


def size_of(pixels: Array) -> Size:
    """(height, width) of pixels."""
    return pixels.shape[0], pixels.shape[1]


def _centre(pixels: Array, size: Size) -> Array:
    top, left = (round((one - wanted) / 2) for one, wanted in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + size[0], left : left + size[1]]
