from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import Tensor

from vitrail.core.errors import DataError
from vitrail.data import decode_image, image_size_of, libjpeg_words
from vitrail.device import pixels as device_pixels

ORIENTATION = 0x0112

UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera that writes the orientation has stored the upright picture."""


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 24, height: int = 16) -> Image.Image:
    small = np.random.default_rng(7).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def as_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def largest_difference(a: Tensor, b: Tensor) -> int:
    assert a.shape == b.shape
    return int((a.int() - b.int()).abs().max())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_every_exif_orientation_gives_the_same_upright_picture(orientation: int, kind: str) -> None:
    upright = picture()
    undo = UNDO[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encode(upright if undo is None else upright.transpose(undo), kind, exif=exif, **options)
    assert largest_difference(decode_image(data), as_tensor(upright)) <= (4 if kind == "JPEG" else 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "number"), [(3, 6), (4, 6), (4, 1), (4, 9)])
def test_an_orientation_of_four_bytes_counts_too(order: str, kind: int, number: int) -> None:
    """Some programs write LONG, where the standard has SHORT; Pillow honours both, and so do exported files."""
    value = struct.pack(f"{order}I", number) if kind == 4 else struct.pack(f"{order}HH", number, 0)
    start = b"II*\0" if order == "<" else b"MM\0*"
    other = struct.pack(f"{order}HHI", 0x0131, 2, 4) + b"abc\0"  # an entry before it
    entry = struct.pack(f"{order}HHI", ORIENTATION, kind, 1) + value
    exif = b"Exif\0\0" + start + struct.pack(f"{order}IH", 8, 2) + entry + other + bytes(4)
    data = encode(picture(), "JPEG", exif=exif, quality=95)
    with Image.open(io.BytesIO(data)) as image:
        wanted = as_tensor(device_pixels.upright(image))
    assert wanted.shape == ((3, 24, 16) if number == 6 else (3, 16, 24))
    assert torch.equal(decode_image(data), wanted)


def test_fast_path_equals_pillow() -> None:
    data = encode(picture(61, 47), "JPEG", quality=85)
    assert torch.equal(decode_image(data), as_tensor(Image.open(io.BytesIO(data))))


def test_grey_jpeg_becomes_rgb() -> None:
    decoded = decode_image(encode(picture().convert("L"), "JPEG"))
    assert decoded.shape == (3, 16, 24)
    assert torch.equal(decoded[0], decoded[2])


def test_cmyk_jpeg_looks_like_the_rgb_one() -> None:
    decoded = decode_image(encode(picture().convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert largest_difference(decoded, as_tensor(picture())) <= 6


def test_transparency_is_laid_on_white() -> None:
    image = picture().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (decode_image(encode(image)) == 255).all()
    image.putalpha(Image.new("L", image.size, 255))
    assert torch.equal(decode_image(encode(image)), as_tensor(picture()))


def test_transparent_palette_colour_is_laid_on_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    decoded = decode_image(encode(image, transparency=0))
    assert decoded[:, 0, 0].tolist() == [255, 255, 255]
    assert decoded[:, 1, 1].tolist() == [0, 0, 255]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 25_700, 65_535]], dtype=np.uint16)
    decoded = decode_image(encode(Image.fromarray(values)))
    assert decoded[1].tolist() == [[0, 1, 100, 255]]


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0, 1e6])
def test_float_grey_is_scaled_by_the_white_it_seems_to_have(white: float) -> None:
    values = np.array([[0.0, white / 2, white]], dtype=np.float32)
    assert decode_image(encode(Image.fromarray(values), "TIFF"))[0].tolist() == [[0, 128, 255]]


def deep(values: object, dtype: type = np.float32) -> bytes:
    return encode(Image.fromarray(np.array([values], dtype=dtype)), "TIFF")


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0.0, 0.5, np.nan, 1.0], np.float32, [0, 128, 0, 255]),
        ([0.0, 0.5, np.inf, -np.inf], np.float32, [0, 128, 255, 0]),
        ([0.0, 100.0, 300.0], np.float32, [0, 85, 255]),
        ([0.0, 0.01, 0.02], np.float32, [0, 128, 255]),
        ([-1.0, 0.0, 1.0], np.float32, [0, 128, 255]),
        ([-80.0, -45.0, -10.0], np.float32, [0, 128, 255]),
        ([-1000, 0, 1000], np.int32, [0, 128, 255]),
        ([0, 5, 10], np.int32, [0, 128, 255]),
        ([0, 0, 0], np.int32, [0, 0, 0]),
        ([7.0, 7.0], np.float32, [255, 255]),
    ],
)
def test_deep_grey_alone_keeps_its_differences(values: list[float], dtype: type, expected: list[int]) -> None:
    assert decode_image(deep(values, dtype))[0].tolist() == [expected]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_given_range_holds_for_every_kind_of_deep_grey(dtype: type) -> None:
    data = deep([100, 290, 295, 300, 400], dtype)
    assert decode_image(data, pixel_range=(290, 300))[0].tolist() == [[0, 0, 128, 255, 255]]


def test_an_image_without_a_number_is_refused() -> None:
    with pytest.raises(DataError, match="has no finite value"):
        decode_image(deep([np.nan, np.inf]))


def test_what_never_ends_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero")):
        with pytest.raises(DataError, match="is no regular file, but a pipe, a device or a socket"):
            decode_image(path)
        assert image_size_of(path) is None
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="more than an image of max_pixels=100000000 takes"):
        decode_image(tmp_path / "long.png")


def test_the_words_of_libjpeg_are_told_apart_from_others(capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(picture(200, 150), "JPEG")
    damaged = data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 :]
    with libjpeg_words() as words:
        fast = decode_image(damaged)
        os.write(2, b"another line\n")
    assert len(words) == 1
    assert words[0].startswith("Corrupt JPEG data: ")
    assert capfd.readouterr().err == "another line\n"
    assert torch.equal(decode_image(damaged, careful=True), fast)
    assert capfd.readouterr().err == ""


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    decoded = decode_image(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded[:, 4, 4].tolist() == [255, 0, 0]


def test_black_and_white_bitmap() -> None:
    assert (decode_image(encode(Image.new("1", (5, 3), 1))) == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_file_is_an_error_that_names_it(kind: str, tmp_path: Path) -> None:
    data = encode(picture(200, 150), kind)
    path = tmp_path / f"broken.{kind.lower()}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="broken") as caught:
        decode_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"no image at all", "not an image of a known kind"),
        (b"\xff\xd8\xff", "not an image|cannot be decoded"),
    ],
)
def test_what_is_no_image_is_an_error(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        decode_image(path)


def test_missing_file_and_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read"):
        decode_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        decode_image(tmp_path)


def test_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="100000x100000 pixels, more than max_pixels=100000000"):
        decode_image(bomb)


def test_max_pixels_is_the_only_limit_and_pillows_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encode(picture(20, 10))
    assert decode_image(data, max_pixels=200).shape == (3, 10, 20)
    with pytest.raises(DataError, match="max_pixels=199"):
        decode_image(data, max_pixels=199)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_damaged_exif_does_not_hide_the_picture() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    data = encode(picture(), "PNG", exif=exif)
    position = data.index(b"eXIf") + 4
    body = b"\xff" * 12
    length = struct.unpack(">I", data[position - 8 : position - 4])[0]
    chunk = b"eXIf" + body
    data = (
        data[: position - 8]
        + struct.pack(">I", 12)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + data[position + length + 4 :]
    )
    assert torch.equal(decode_image(data), as_tensor(picture()))


ENCODED = [encode(picture(), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")]


@settings(max_examples=150)
@given(st.data())
def test_any_bytes_give_pixels_or_a_data_error(data: st.DataObject) -> None:
    broken = bytearray(data.draw(st.sampled_from(ENCODED)))
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    broken = broken[: data.draw(st.integers(0, len(broken)))] if data.draw(st.booleans()) else broken
    with suppress(DataError):
        decoded = decode_image(bytes(broken), max_pixels=1_000_000)
        assert decoded.dtype == torch.uint8
        assert decoded.shape[0] == 3


@pytest.mark.parametrize("orientation", [1, 6])
def test_pillow_takes_over_where_the_fast_path_refuses(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(picture(61, 47), "JPEG", exif=exif)
    fast = decode_image(data)
    calls = []

    def refuse(source: bytes) -> Tensor:
        calls.append(source)
        raise RuntimeError("unsupported")

    monkeypatch.setattr("vitrail.data.pixels.decode.decode_jpeg", refuse)
    assert torch.equal(decode_image(data), fast)
    assert len(calls) == 1
