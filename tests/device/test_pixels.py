"""What a device prepares is what predict, evaluation and training prepare, pixel for pixel."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from PIL import Image
from torch import Tensor

from vitrail.core.types import Preprocessing
from vitrail.data import Letterbox, View, decode_image, fit_image, image_size_of
from vitrail.device import pixels as device

ORIENTATION = 0x0112
SIDES = st.one_of(st.integers(1, 9), st.integers(10, 90), st.integers(200, 400))
FRAME_SIDES = st.integers(4, 64)
INTERPOLATIONS = st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic", "lanczos"])


def noise(height: int, width: int, *, sharp: bool = False) -> np.ndarray:
    """Black and white (``sharp``) is what overshoots most."""
    made = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return (made // 128 * 255).astype(np.uint8) if sharp else made


def as_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def as_pixels(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@settings(max_examples=80)
@given(
    st.tuples(SIDES, SIDES),
    st.tuples(FRAME_SIDES, FRAME_SIDES),
    INTERPOLATIONS,
    st.sampled_from([1.0, 0.95, 0.875, 0.9, 0.5, 0.1]),
    st.booleans(),
)
@example((1, 1), (7, 5), "bicubic", 0.875, False)
@example((1, 3000), (32, 32), "bicubic", 0.875, True)
@example((2000, 1), (9, 32), "bilinear", 1.0, False)
@example((47, 53), (48, 48), "bicubic", 0.875, True)
@example((51, 53), (48, 48), "bicubic", 0.875, True)
def test_a_fitted_picture(
    size: tuple[int, int], frame: tuple[int, int], interpolation: str, crop_fraction: float, sharp: bool
) -> None:
    how = Preprocessing(image_size=frame, interpolation=interpolation, crop_fraction=crop_fraction)
    picture = noise(*size, sharp=sharp)
    np.testing.assert_array_equal(
        device.fit(picture, how.to_dict()), as_pixels(fit_image(as_tensor(picture), how)), strict=True
    )


@settings(max_examples=60)
@given(st.tuples(SIDES, SIDES), st.tuples(FRAME_SIDES, FRAME_SIDES), INTERPOLATIONS)
@example((1, 1), (8, 8), "bilinear")
@example((1, 400), (8, 64), "bicubic")
def test_a_letterbox(size: tuple[int, int], frame: tuple[int, int], interpolation: str) -> None:
    how = Preprocessing(image_size=frame, interpolation=interpolation)
    picture = noise(*size)
    framed = Letterbox.of(size, frame).image(as_tensor(picture), how)
    np.testing.assert_array_equal(device.letterbox(picture, how.to_dict()), as_pixels(framed), strict=True)


@settings(max_examples=40)
@given(
    st.tuples(SIDES, SIDES),
    st.tuples(FRAME_SIDES, FRAME_SIDES),
    st.tuples(st.floats(-0.2, 0.8), st.floats(-0.2, 0.8), st.floats(0.1, 1.2), st.floats(0.1, 1.2)),
)
@example((30, 40), (48, 32), (0.0, 0.0, 1.0, 1.0))
def test_a_view_of_an_object(
    size: tuple[int, int], frame: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    """Training and evaluation compute it in another order, where a tie may fall on either side."""
    corner = (box[0] * size[1], box[1] * size[0])
    sides = (*corner, corner[0] + box[2] * size[1], corner[1] + box[3] * size[0])
    how = Preprocessing(image_size=frame)
    picture = noise(*size)
    seen = device.view(picture, sides, how.to_dict()).astype(int)
    wanted = as_pixels(View.of(sides, frame).image(as_tensor(picture), how)).astype(int)
    assert np.abs(seen - wanted).max() <= 1
    assert (seen != wanted).mean() <= 0.01


def test_a_view_of_a_whole_picture_of_known_colours() -> None:
    how = Preprocessing(image_size=(50, 50), mean=(0.5,) * 3)
    seen = device.view(np.full((40, 40, 3), 200, np.uint8), (0, 0, 40, 40), how.to_dict())
    assert (seen[6:-6, 6:-6] == 200).all(), "a margin of a quarter on each side: 40 of 50 pixels"
    assert (seen[:4] == 128).all()
    assert (seen[:, -4:] == 128).all()


@pytest.mark.parametrize("values", [(0.485, 0.456, 0.406), (0.5, 0.25, 0.125)])
def test_normalised_numbers(values: tuple[float, ...]) -> None:
    how = Preprocessing(mean=values, std=values[::-1])
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    wanted = how.normalize(as_tensor(every).unsqueeze(0)).numpy()
    np.testing.assert_array_equal(device.normalise(every, how.to_dict()), wanted, strict=True)


def test_an_interpolation_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="'hamming' is not known here; known: nearest, nearest-exact, bilinear"):
        device.resize(noise(4, 4), (2, 2), "hamming")


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def smooth(mode: str = "RGB") -> Image.Image:
    small = Image.fromarray(np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return small.resize((35, 25), Image.Resampling.BICUBIC).convert(mode)


def paletted(transparency: Any) -> bytes:
    image = smooth().quantize(16)
    return encode(image, "PNG", transparency=transparency)


def sixteen(kind: str, order: str) -> bytes:
    values = (np.arange(35 * 25, dtype=np.uint32) * 74 % 65536).astype(f"{order}u2").reshape(25, 35)
    if kind == "TIFF":
        return encode(Image.frombytes("I;16B" if order == ">" else "I;16", (35, 25), values.tobytes()), "TIFF")
    return encode(Image.fromarray(values.astype("<u2")), kind)


FILES = {
    "jpeg": lambda: encode(smooth(), "JPEG", quality=80),
    "jpeg 4:4:4": lambda: encode(smooth(), "JPEG", subsampling=0),
    "progressive": lambda: encode(smooth(), "JPEG", progressive=True),
    "grey jpeg": lambda: encode(smooth("L"), "JPEG"),
    "cmyk jpeg": lambda: encode(smooth("CMYK"), "JPEG"),
    "grey": lambda: encode(smooth("L"), "PNG"),
    "grey and alpha": lambda: encode(Image.merge("LA", [smooth("L"), smooth("L").rotate(180)]), "PNG"),
    "colours and alpha": lambda: encode(Image.merge("RGBA", [*smooth().split(), smooth("L")]), "PNG"),
    "a transparent colour": lambda: encode(smooth(), "PNG", transparency=(255, 0, 0)),
    "palette": lambda: encode(smooth().quantize(16), "PNG"),
    "palette, one colour transparent": lambda: paletted(3),
    "palette with alpha": lambda: paletted(bytes(range(0, 256, 16))),
    "gif": lambda: encode(smooth().quantize(16), "GIF", transparency=2),
    "two colours": lambda: encode(smooth("1"), "PNG"),
    "webp with alpha": lambda: encode(Image.merge("RGBA", [*smooth().split(), smooth("L")]), "WEBP", lossless=True),
    "16 bits, png": lambda: sixteen("PNG", "<"),
    "16 bits, tiff": lambda: sixteen("TIFF", "<"),
    "16 bits, big-endian tiff": lambda: sixteen("TIFF", ">"),
    "cmyk tiff": lambda: encode(smooth("CMYK"), "TIFF"),
    "ycbcr tiff": lambda: encode(smooth("YCbCr"), "TIFF"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_any_kind(name: str) -> None:
    data = FILES[name]()
    np.testing.assert_array_equal(device.read_image(data), as_pixels(decode_image(data)), strict=True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_turned_picture(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(smooth(), kind, exif=exif)
    pixels = device.read_image(data)
    assert pixels.shape[:2] == ((35, 25) if orientation in (5, 6, 7, 8) else (25, 35))
    np.testing.assert_array_equal(pixels, as_pixels(decode_image(data)), strict=True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_only_exif_turns_a_picture(kind: str, tmp_path: Path) -> None:
    """An orientation in XMP alone is followed by Pillow, and neither by browsers nor by decoders of JPEG."""
    head = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    tag = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    xmp = f"{head}{tag}</rdf:RDF></x:xmpmeta>".encode()
    (tmp_path / "image").write_bytes(encode(smooth(), kind, xmp=xmp))
    data = (tmp_path / "image").read_bytes()
    assert device.read_image(data).shape == (25, 35, 3)
    assert decode_image(data).shape == (3, 25, 35)
    assert image_size_of(tmp_path / "image") == (25, 35)


def test_grey_of_32_bits_needs_the_range_that_the_model_was_trained_with() -> None:
    kelvin = encode(Image.fromarray(np.linspace(250, 350, 12, dtype=np.float32).reshape(3, 4)), "TIFF")
    with pytest.raises(ValueError, match=r"grey with 32 bits \(mode F\).*no pixel_range"):
        device.read_image(kelvin)
    pixels = device.read_image(kelvin, {"pixel_range": [250, 350]})
    assert pixels[..., 0].ravel().tolist() == [int(255 * i / 11 + 0.5) for i in range(12)]


def test_one_file_is_all_that_is_copied(tmp_path: Path) -> None:
    """It imports neither Vitrail nor PyTorch, whatever the folder is called."""
    assert device.__file__ is not None
    (tmp_path / "prepared.py").write_bytes(Path(device.__file__).read_bytes())
    smooth().save(tmp_path / "image.png")
    how = Preprocessing(image_size=(16, 16)).to_dict()
    code = f"import sys, prepared; print(prepared.fit(prepared.read_image('image.png'), {how}).sum(), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    total, *modules = done.stdout.split()
    assert int(total) == int(fit_image(as_tensor(np.asarray(smooth())), Preprocessing(image_size=(16, 16))).sum())
    assert not {"torch", "vitrail"} & set(modules)
