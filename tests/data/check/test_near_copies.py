from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from written_data import scene

from vitrail.data import LabelledImage
from vitrail.data.check.appearance import look_at
from vitrail.data.check.near_copies import TILE, find_near_copies
from vitrail.data.check.zoomed_copies import find_zoomed_copies

MAX_PIXELS = 10_000_000


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX))


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again": jpeg,
    "resized": lambda image: image.resize((48, 48)),
    "mirrored": ImageOps.mirror,
    "cut": lambda image: image.crop((4, 0, 95, 91)),
}


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [scene(seed, 96) for seed in range(60)]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(change: str, scenes: list[Image.Image]) -> None:
    copies = [CHANGES[change](one) for one in scenes[:10]]
    found = find_near_copies(np.stack([thumbnail(one) for one in (*scenes, *copies)]))
    assert sorted((one.first, one.second) for one in found) == [(index, 60 + index) for index in range(10)]
    assert {one.mirrored for one in found} == {change == "mirrored"}


def test_two_images_are_enough(scenes: list[Image.Image]) -> None:
    first, copy, other = (thumbnail(one) for one in (scenes[0], jpeg(scenes[0]), scenes[1]))
    assert [(one.first, one.second) for one in find_near_copies(np.stack([first, copy]))] == [(0, 1)]
    assert find_near_copies(np.stack([first, other])) == []
    assert find_near_copies(np.stack([first])) == []
    assert find_near_copies(np.zeros((0, 32, 32), np.uint8)) == []


def test_pictures_of_one_shade_are_no_copies() -> None:
    shades = np.stack([np.full((32, 32), shade, np.uint8) for shade in (0, 100, 100, 255)])
    assert find_near_copies(shades) == []


def test_a_set_of_equal_images_is_not_compared_pair_by_pair(scenes: list[Image.Image]) -> None:
    """Every image is found, but not each of its millions of pairs."""
    same = np.stack([thumbnail(scenes[0])] * (TILE // 4))
    found = find_near_copies(same)
    assert len(found) <= 20 * len(same)
    assert {index for one in found for index in (one.first, one.second)} == set(range(len(same)))


@pytest.mark.parametrize("mirrored", [False, True])
def test_parts_of_other_images_are_found(mirrored: bool, scenes: list[Image.Image]) -> None:
    parts = [one.crop((11, 3, 11 + side, 3 + side)) for one, side in zip(scenes, (84, 77, 70, 62), strict=False)]
    parts = [ImageOps.mirror(one) if mirrored else one for one in parts]
    thumbnails = np.stack([thumbnail(one) for one in (*scenes[:20], *parts)])
    pairs = [(index, 20 + part) for index in range(20) for part in range(4)]
    found = find_zoomed_copies(thumbnails, pairs)
    assert sorted((one.first, one.second) for one in found) == [(index, 20 + index) for index in range(4)]
    assert {one.mirrored for one in found} == {mirrored}
    assert find_zoomed_copies(np.zeros((2, 32, 32), np.uint8), [(0, 1)]) == []
    assert find_zoomed_copies(np.zeros((0, 32, 32), np.uint8), []) == []


def test_what_images_look_like(tmp_path: Path) -> None:
    sharp = scene(3, 96)
    sharp.save(tmp_path / "a.png")
    sharp.save(tmp_path / "b.bmp")
    sharp.resize((6, 6)).resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / "blurred.png")
    Image.new("L", (40, 10), 7).save(tmp_path / "dark.png")
    Image.new("RGB", (1, 1), 7).save(tmp_path / "dot.png")
    names = ["a.png", "b.bmp", "blurred.png", "dark.png", "dot.png", "gone.png"]
    records = [LabelledImage(name=name, source=tmp_path / name, label=0) for name in names]
    looks = look_at(records, max_pixels=MAX_PIXELS)
    assert list(looks) == names[:-1]
    assert looks["a.png"].pixels == looks["b.bmp"].pixels != looks["blurred.png"].pixels
    assert (looks["a.png"].kind, looks["b.bmp"].kind, looks["dark.png"].kind) == ("PNG RGB", "BMP RGB", "PNG L")
    assert looks["a.png"].sharpness > 10 * looks["blurred.png"].sharpness
    assert (looks["dark.png"].brightness, looks["dark.png"].contrast, looks["dark.png"].aspect) == (7, 0, 4)
    assert looks["dot.png"].sharpness == 0
