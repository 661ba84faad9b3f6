"""From an image file to RGB pixels, whatever the file is.

JPEG files, nearly all of what people have, take a fast path (libjpeg-turbo through torchcodec, without the interpreter
lock); everything else, and every JPEG file that the fast path refuses, goes through Pillow.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined]  # public, but not in an __all__

from vitrail.core.errors import DataError
from vitrail.core.types import ImageSize
from vitrail.device.pixels import TRANSPOSED, orientation, upright

MAX_PIXELS = 100_000_000
"""More than a phone's camera gives; a file with more is taken for a decompression bomb."""

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm".split()  # noqa: SIM905 (a table)
)

_JPEG_MAGIC = b"\xff\xd8\xff"
_pillow_limit = threading.Lock()


def decode_image(source: Path | bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode to uint8 RGB (3, h, w), upright.

    The EXIF orientation is applied; of animated or multi-page files the first frame is taken; transparency is laid on
    white; 16-bit grey is scaled to 8 bits; CMYK is converted.

    Args:
        source: a file, or the bytes of one.
        max_pixels: largest height x width that is decoded; checked before memory is taken for the pixels.

    Raises:
        DataError: missing, empty, truncated, corrupt, not an image, or larger than ``max_pixels``.
    """
    name = str(source) if isinstance(source, Path) else "image"
    data = _read(source) if isinstance(source, Path) else source
    if not data:
        raise DataError(f"{name} is empty (0 bytes); copy it again or delete it")
    try:
        return _decode(data, name, max_pixels)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not an image of a known kind; convert it to JPEG or PNG, or delete it") from error
    except MemoryError as error:
        raise DataError(f"{name} does not fit into memory; lower max_pixels={max_pixels} to skip such files") from error
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name} cannot be decoded ({_short(reason)}); copy it again or delete it") from error


def image_size_of(path: Path) -> ImageSize | None:
    """(height, width) as the decoder will give it, from the head of the file; None where that cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = orientation(image) in TRANSPOSED
    except Exception:  # noqa: BLE001 (the check of the images says what is wrong with it)
        return None
    return (width, height) if turned else (height, width)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error


def _decode(data: bytes, name: str, max_pixels: int) -> Tensor:
    with _no_pillow_limit():
        image = Image.open(io.BytesIO(data))
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"{name} has {width}x{height} pixels, more than max_pixels={max_pixels}; shrink it or raise max_pixels"
            )
        if data.startswith(_JPEG_MAGIC) and image.mode in ("RGB", "L"):
            try:
                pixels = decode_jpeg(data)  # applies the EXIF orientation itself
                assert isinstance(pixels, Tensor)
                return pixels
            except RuntimeError:
                pass  # libjpeg through Pillow accepts more files, and says better what is wrong
        image.load()
        return pixels_of(image)


@contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Pillow warns or fails at a limit of its own, for the whole process; ours is the caller's to choose."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def pixels_of(image: Image.Image) -> Tensor:
    """An opened image as uint8 RGB (3, h, w), upright, by the rules of :func:`decode_image`."""
    array = np.asarray(_to_rgb(upright(image)))
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> Image.Image:
    """Grey with more than 8 bits; Pillow's own conversion would clip it at 255.

    Two-byte integers are divided by 257. Four-byte integers and floats have no agreed white: it is taken to be the
    smallest of 1 (floats), 255 and 65535 that is not exceeded, else the largest value.
    """
    if values.dtype.itemsize == 2:
        white = 65535.0
    else:
        top = float(values.max(initial=0))
        whites = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
        white = next((white for white in whites if top <= white), top)
    scaled = np.clip(np.nan_to_num(values.astype(np.float64)) / white, 0, 1)
    return Image.fromarray((scaled * 255 + 0.5).astype(np.uint8))


def _short(reason: str, limit: int = 120) -> str:
    return reason if len(reason) <= limit else reason[: limit - 3] + "..."
