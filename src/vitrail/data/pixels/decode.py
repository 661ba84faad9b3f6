"""From an image file to RGB pixels, whatever the file is.

JPEG files, nearly all of what people have, take a fast path (libjpeg-turbo through torchcodec, without the interpreter
lock); everything else, and every JPEG file that the fast path refuses, goes through Pillow.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined]  # public, but not in an __all__

from vitrail.core.errors import DataError
from vitrail.core.types import ImageSize, PixelRange
from vitrail.device.pixels import TRANSPOSED, TURNS, orientation, upright

MAX_PIXELS = 100_000_000
"""More than a phone's camera gives; a file with more is taken for a decompression bomb."""

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .avif .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm".split()  # noqa: SIM905 (a table)
)

MAX_PIXEL_BYTES = 16
"""Bytes a pixel, at most, of a file that is read: four channels of 32 bits without compression."""

NARROW = 1 / 16
"""Share of the range from black to white below which grey values are all but one shade."""

COLOUR = "16-bit colour"
FULL_RANGE = (0.0, 65535.0)
"""What 16 bits can hold."""

ORIENTATION, SHORT = 0x0112, 3
"""Number of the EXIF entry, and of its usual type."""

_JPEG_MAGIC = b"\xff\xd8\xff"
_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS")
_pillow_limit = threading.Lock()


@dataclass(frozen=True)
class DeepPixels:
    """The values of an image with more than 8 bits.

    Attributes:
        kind: "16-bit", "32-bit" or "float" for grey, :data:`COLOUR` for colours, of which the upper 8 bits are taken.
        low: smallest finite value.
        high: largest finite value.
    """

    kind: str
    low: float
    high: float


def decode_image(
    source: Path | bytes, max_pixels: int = MAX_PIXELS, pixel_range: PixelRange | None = None, *, careful: bool = False
) -> Tensor:
    """Decode to uint8 RGB (3, h, w), upright.

    The EXIF orientation is applied; of animated or multi-page files the first frame is taken; transparency is laid on
    white; CMYK is converted; grey with more than 8 bits is scaled to 8 bits.

    Args:
        source: a regular file, or the bytes of one.
        max_pixels: largest height x width that is decoded; checked before memory is taken for the pixels.
        pixel_range: values that become black and white in grey images of more than 8 bits; None for
            :func:`range_of` the image alone.
        careful: whether to keep to Pillow, which prints nothing about damaged files.

    Raises:
        DataError: missing, empty, truncated, corrupt, not an image, or larger than ``max_pixels``.
    """
    return _decode_source(source, max_pixels, pixel_range, careful=careful)[0]


def inspect_image(data: bytes, max_pixels: int = MAX_PIXELS) -> DeepPixels | None:
    """Decode the bytes of a file, and give its values if they have more than 8 bits; None for other images.

    Raises:
        DataError: as :func:`decode_image`.
    """
    return _decode_source(data, max_pixels, None, careful=False)[1]


def range_of(images: Sequence[DeepPixels]) -> PixelRange:
    """Values that become black and white in grey images of more than 8 bits, one range for all of them.

    Black is 0, or the smallest value if that is negative. White is 65535 where all are 16-bit. Four-byte integers and
    floats have no agreed white: it is the smallest of 1 (floats alone), 255 and 65535 that no value exceeds, or the
    largest value if that is below a sixteenth of it or above all of them.
    """
    if {one.kind for one in images} == {"16-bit"}:
        return FULL_RANGE
    low, high = min(0.0, *(one.low for one in images)), max(one.high for one in images)
    whites = (1.0, 255.0, 65535.0) if {one.kind for one in images} == {"float"} else (255.0, 65535.0)
    white = next((white for white in whites if high <= white), high)
    white = high if high < NARROW * white else white
    return low, white if white > low else low + 1


@contextmanager
def libjpeg_words() -> Iterator[list[str]]:
    """What libjpeg says about damaged files while the block runs, filled in at its end.

    It prints to the standard error of the process and names no file. Other lines are printed when the block ends.
    """
    words: list[str] = []
    try:
        sys.stderr.flush()
        file, kept = tempfile.TemporaryFile(), os.dup(2)  # noqa: SIM115 (closed below)
    except (OSError, AttributeError):  # without a standard error nothing is printed
        yield words
        return
    os.dup2(file.fileno(), 2)
    try:
        yield words
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        file.seek(0)
        for line in file.read().splitlines(keepends=True):
            if _DAMAGE.match(text := line.decode("utf-8", "replace").strip()):
                words.append(text)
            else:
                os.write(2, line)
        file.close()


def _decode_source(
    source: Path | bytes, max_pixels: int, pixel_range: PixelRange | None, *, careful: bool
) -> tuple[Tensor, DeepPixels | None]:
    name = str(source) if isinstance(source, Path) else "image"
    data = _read(source, max_pixels) if isinstance(source, Path) else source
    if not data:
        raise DataError(f"{name} is empty (0 bytes); copy it again or delete it")
    try:
        return _decode(data, name, max_pixels, pixel_range, careful=careful)
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
        if not path.is_file():
            return None
        with Image.open(path) as image:
            width, height = image.size
            turned = orientation(image) in TRANSPOSED
    except Exception:  # noqa: BLE001 (the check of the images says what is wrong with it)
        return None
    return (width, height) if turned else (height, width)


def read_image(path: Path, max_pixels: int) -> bytes:
    """The contents of an image file; nothing is opened that may never end, such as a named pipe or a device.

    Raises:
        OSError: it cannot be read.
        DataError: it is no regular file, or too long for an image of ``max_pixels``.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise DataError(f"{path} is no regular file, but a pipe, a device or a socket; save the image as a file")
    limit = MAX_PIXEL_BYTES * max_pixels + 2**20
    if status.st_size > limit:
        raise DataError(
            f"{path} has {status.st_size} bytes, more than an image of max_pixels={max_pixels} takes; shrink it or "
            f"raise max_pixels"
        )
    return path.read_bytes()


def _read(path: Path, max_pixels: int) -> bytes:
    try:
        return read_image(path, max_pixels)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error


def _decode(
    data: bytes, name: str, max_pixels: int, pixel_range: PixelRange | None, *, careful: bool
) -> tuple[Tensor, DeepPixels | None]:
    with _no_pillow_limit():
        image = Image.open(io.BytesIO(data))
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"{name} has {width}x{height} pixels, more than max_pixels={max_pixels}; shrink it or raise max_pixels"
            )
        if data.startswith(_JPEG_MAGIC) and image.mode in ("RGB", "L") and not careful and _turned_alike(image):
            try:
                pixels = decode_jpeg(data)  # applies the EXIF orientation itself
                assert isinstance(pixels, Tensor)
                return pixels, None
            except RuntimeError:
                pass  # libjpeg through Pillow accepts more files, and says better what is wrong
        deep_colour = _is_deep_colour(image)
        image.load()
        found = _deep_grey(np.asarray(image), name) if _is_deep(image) else None
        pixels = pixels_of(image, pixel_range)
        if deep_colour:
            found = DeepPixels(COLOUR, float(pixels.min()) * 257, float(pixels.max()) * 257)
        return pixels, found


def _turned_alike(image: Image.Image) -> bool:
    """Whether the fast path turns the picture as Pillow does: it knows the orientation as a number of two bytes alone,
    while some programs write four."""
    exif = image.info.get("exif")
    if not isinstance(exif, bytes) or orientation(image) not in TURNS:
        return True
    block = exif.removeprefix(b"Exif\0\0")
    order = ">" if block.startswith(b"MM") else "<"
    try:
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        entries = [struct.unpack_from(f"{order}HH", block, first + 2 + 12 * index) for index in range(count)]
    except struct.error:
        return False
    return (ORIENTATION, SHORT) in entries


@contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Pillow warns or fails at a limit of its own, for the whole process; ours is the caller's to choose."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def pixels_of(image: Image.Image, pixel_range: PixelRange | None = None) -> Tensor:
    """An opened image as uint8 RGB (3, h, w), upright, by the rules of :func:`decode_image`.

    Raises:
        DataError: a grey image without a finite value.
    """
    array = np.asarray(_to_rgb(upright(image), pixel_range))
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


def _is_deep_colour(image: Image.Image) -> bool:
    """Pillow has no such mode, but the file's own is known before it is loaded."""
    for codec, _, _, arguments in getattr(image, "tile", ()):
        deep_ppm = codec.startswith("ppm") and isinstance(arguments, tuple) and arguments[-1] > 255
        if image.mode in ("RGB", "RGBA") and (deep_ppm or ";16" in str(arguments)):
            return True
    return False


def _to_rgb(image: Image.Image, pixel_range: PixelRange | None) -> Image.Image:
    if _is_deep(image):
        values = np.asarray(image)
        return _eight_bits(values, pixel_range or range_of([_deep_grey(values, "image")])).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _deep_grey(values: np.ndarray, name: str) -> DeepPixels:
    kind = "16-bit" if values.dtype.itemsize == 2 else "float" if values.dtype.kind == "f" else "32-bit"
    finite = values[np.isfinite(values)] if kind == "float" else values
    if not finite.size:
        raise DataError(f"{name} has no finite value; write it again or delete it")
    return DeepPixels(kind, float(finite.min()), float(finite.max()))


def _eight_bits(values: np.ndarray, pixel_range: PixelRange) -> Image.Image:
    """Grey with more than 8 bits; Pillow's own conversion would clip it at 255. What is no number becomes black."""
    low, high = pixel_range
    finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    scaled = np.clip((finite - low) / (high - low), 0, 1)
    return Image.fromarray((scaled * 255 + 0.5).astype(np.uint8))


def _short(reason: str, limit: int = 120) -> str:
    return reason if len(reason) <= limit else reason[: limit - 3] + "..."
