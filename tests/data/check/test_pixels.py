"""What a data set's pixels say about it: one range for all deep grey images, damaged files, images that occur twice."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, DataSplits, load_boxes, load_data, load_masks, load_pictures, load_scores

WriteImages = Callable[..., Path]


def load(root: Path, **options: object) -> DataSplits:
    return load_data(DataConfig(path=str(root), **options))


def write_grey(root: Path, images: dict[str, object], dtype: type = np.float32) -> Path:
    for name, values in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([values], dtype=dtype)).save(root / f"{name}.tif")
    return root


def grey(data: DataSplits) -> dict[str, list[int]]:
    every = data.choose("all")
    return {name: every[i][0][0, 0].tolist() for i, name in enumerate(every.names)}


# --- the range of deep grey


@pytest.mark.parametrize(
    ("dtype", "images", "expected", "pixel_range"),
    [
        (np.float32, {"a/0": [0, 0.5], "b/0": [0, 200.0]}, {"a/0": [0, 1], "b/0": [0, 200]}, (0, 255)),
        (np.float32, {"a/0": [0, 254.0], "b/0": [0, 510.0]}, {"a/0": [0, 127], "b/0": [0, 255]}, (0, 510)),
        (np.float32, {"a/0": [np.nan, 1], "b/0": [np.inf, 0.5]}, {"a/0": [0, 255], "b/0": [255, 128]}, (0, 1)),
        (np.float32, {"a/0": [-2, 0], "b/0": [0, 2]}, {"a/0": [0, 128], "b/0": [128, 255]}, (-2, 2)),
        (np.int32, {"a/0": [0, 255], "b/0": [0, 65535]}, {"a/0": [0, 1], "b/0": [0, 255]}, (0, 65535)),
        (np.uint16, {"a/0": [0, 255], "b/0": [257, 65535]}, {"a/0": [0, 1], "b/0": [1, 255]}, (0, 65535)),
    ],
)
def test_all_images_share_one_range(
    dtype: type, images: dict[str, object], expected: dict[str, list[int]], pixel_range: object, tmp_path: Path
) -> None:
    data = load(write_grey(tmp_path, images, dtype), val_fraction=1)
    assert grey(data) == {f"{name}.tif": values for name, values in expected.items()}
    assert data.pixel_range == pixel_range
    assert data.warnings == ()
    again = load(tmp_path, val_fraction=1)
    assert (grey(again), again.pixel_range) == (grey(data), pixel_range), "from the cache"


@pytest.mark.parametrize(
    ("dtype", "least", "most", "words"),
    [
        (np.float32, 290, 300, "4 float images have values from 290 to 300, 3.3% of the range from 0 .black. to 300"),
        (np.uint16, 0, 255, "4 16-bit images have values from 0 to 255, 0.4% of the range from 0 .black. to 65535"),
        (np.uint16, 0, 4095, "0 to 4095, 6.2% of the range"),
        (np.int32, 1000, 1010, "4 32-bit images have values from 1000 to 1010"),
    ],
)
def test_images_of_nearly_one_shade_are_told_and_an_option_spreads_them(
    dtype: type, least: float, most: float, words: str, tmp_path: Path
) -> None:
    names = ("a/0", "a/1", "b/0", "b/1")
    root = write_grey(tmp_path / "deep", {name: [least, most, most - i] for i, name in enumerate(names)}, dtype)
    data = load(root)
    (warning,) = data.warnings
    assert re.search(words, warning)
    assert warning.endswith(f"--pixel-range {least} {most} spreads them")
    with pytest.raises(DataError, match="nearly one shade"):
        load(root, strict=True)
    spread = load(root, pixel_range=(least, most))
    assert (spread.warnings, spread.pixel_range) == ((), (least, most))
    assert all((values[0], values[1]) == (0, 255) for values in grey(spread).values())


@pytest.mark.parametrize(("brightest", "told"), [(3000, True), (40000, False)])
def test_dark_colours_of_16_bits_are_told(brightest: int, told: bool, tmp_path: Path) -> None:
    """As a camera of twelve bits writes them into files of sixteen."""
    random = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "deep" / label).mkdir(parents=True)
        for index in range(2):
            pixels = random.integers(0, brightest, (4, 6, 3), endpoint=True)
            head = b"P6 6 4 65535\n"
            (tmp_path / "deep" / label / f"{index}.ppm").write_bytes(head + pixels.astype(">u2").tobytes())
    data = load(tmp_path / "deep")
    assert data.pixel_range is None
    assert [text.split(" images")[0] for text in data.warnings] == ["4 16-bit colour"] * told
    assert all(text.endswith("save them with 8 bits that fill the range") for text in data.warnings)


def test_wide_ranges_are_not_told(write_images: WriteImages, tmp_path: Path) -> None:
    assert load(write_images({"a": 2, "b": 2})).pixel_range is None
    data = load(write_grey(tmp_path / "deep", {"a/0": [0, 4200], "b/0": [0, 5]}, np.uint16), val_fraction=1)
    assert (data.warnings, data.pixel_range) == ((), (0, 65535))


def test_the_range_of_the_run_comes_before_that_of_the_data(tmp_path: Path) -> None:
    data = load(write_grey(tmp_path, {"a/0": [0, 50, 100], "b/0": [0, 100, 200]}), val_fraction=1)
    preprocessing = Preprocessing(image_size=(1, 3), crop_fraction=1.0, pixel_range=(0.0, 400.0))
    assert data.val.fitted(1, preprocessing)[0][0, 0].tolist() == [0, 64, 128]
    assert data.val[1][0][0, 0].tolist() == [0, 100, 200]


@pytest.mark.parametrize("pixel_range", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0), (0.0,)])
def test_a_range_is_two_numbers(pixel_range: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"the smaller one first|field required"):
        DataConfig(pixel_range=pixel_range)


def test_preprocessing_without_deep_grey_is_written_as_before() -> None:
    assert "pixel_range" not in Preprocessing().to_dict()
    deep = Preprocessing(pixel_range=(0.0, 300.0))
    assert Preprocessing.from_dict(json.loads(json.dumps(deep.to_dict()))) == deep


# --- damaged files


def damage(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(200) + data[len(data) // 2 + 200 :])


def test_jpeg_files_that_are_damaged_inside_are_named(
    write_images: WriteImages, capfd: pytest.CaptureFixture[str]
) -> None:
    root = write_images({"a": 3, "b": 3})
    damage(root / "b" / "001.jpg")
    for _ in range(2):  # the second time from the cache
        data = load(root)
        (warning,) = data.warnings
        assert warning.startswith(
            "1 JPEG files are damaged inside and used as they decode: b/001.jpg (Corrupt JPEG data"
        )
        assert data.skipped == ()
    every = data.choose("all")
    assert [every[i][0].shape[0] for i in range(len(every))] == [3] * 6
    assert capfd.readouterr().err == "", "libjpeg's own line names no file"


def test_pipes_and_devices_are_left_out(write_images: WriteImages) -> None:
    root = write_images({"a": 2, "b": 2})
    os.mkfifo(root / "a" / "pipe.jpg")
    (root / "b" / "zero.png").symlink_to("/dev/zero")
    assert load(root).skipped == ("a/pipe.jpg: is no regular file", "b/zero.png: is no regular file")


# --- the same image twice


def test_an_image_of_two_classes_is_refused_or_left_out(write_images: WriteImages) -> None:
    root = write_images({"cat": 4, "dog": 4})
    shutil.copy(root / "cat" / "001.jpg", root / "dog" / "copy.jpg")
    words = r"cat/001\.jpg: is the same image as dog/copy\.jpg, but of class 'cat' and not 'dog'"
    with pytest.raises(DataError, match=words):
        load(root)
    data = load(root, bad_annotations="skip")
    assert [text.split(":")[0] for text in data.skipped] == ["cat/001.jpg", "dog/copy.jpg"]
    assert len(data.train) + len(data.val) == 7
    measured = load(root, val_fraction=1)
    assert len(measured.val) == 9
    assert "1 images occur twice with different annotations (dog/copy.jpg = cat/001.jpg)" in measured.warnings[0]


def test_copies_in_several_parts_are_counted(write_images: WriteImages) -> None:
    root = write_images({"train/cat": 3, "train/dog": 3, "val/cat": 1, "test/dog": 1})
    for name in ("000", "001"):
        shutil.copy(root / "train" / "cat" / f"{name}.jpg", root / "val" / "cat" / f"of {name}.jpg")
    shutil.copy(root / "train" / "dog" / "000.jpg", root / "train" / "dog" / "again.jpg")
    data = load(root)
    (warning,) = data.warnings
    assert warning.startswith(
        "2 images are in more than one part of the data (val/cat/of 000.jpg = train/cat/000.jpg, "
    )
    with pytest.raises(DataError, match=r"2 images are in more than one part .*--strict"):
        load(root, strict=True)


def test_copies_stay_together_where_the_validation_part_is_drawn(write_images: WriteImages) -> None:
    root = write_images({"cat": 6, "dog": 6})
    for name in ("000", "001", "002"):
        shutil.copy(root / "cat" / f"{name}.jpg", root / "cat" / f"of {name}.jpg")
    for seed in range(5):
        data = load(root, strict=True, seed=seed, val_fraction=0.5)
        assert len(data.train) + len(data.val) == 15
        names = data.val.names
        assert all((f"cat/{name}.jpg" in names) == (f"cat/of {name}.jpg" in names) for name in ("000", "001", "002"))


def test_copies_are_counted_in_other_tasks_too(tmp_path: Path, write_images: WriteImages) -> None:
    root = write_images({"train": 3, "val": 1})
    shutil.copy(root / "train" / "000.jpg", root / "val" / "copy.jpg")
    shutil.copy(root / "train" / "000.jpg", root / "train" / "copy.jpg")
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    rows = [f"{name},{3 + i},{name.split('/')[0]}" for i, name in enumerate(files)]
    (root / "scores.csv").write_text("image,score,split\n" + "\n".join(rows))
    shared, doubtful = load_scores(DataConfig(path=str(root))).warnings
    assert shared.startswith("1 images are in more than one part of the data (val/copy.jpg = train/000.jpg)")
    assert doubtful.startswith("1 images occur twice with different annotations (train/copy.jpg = train/000.jpg)")
    pictures = load_pictures(DataConfig(path=str(root)), labelled=False, crops=False)
    assert [text.split(" (")[0] for text in pictures.warnings] == ["1 images are in more than one part of the data"]


# --- what no annotation names


def test_images_that_no_annotation_names_are_listed(write_images: WriteImages) -> None:
    root = write_images({"images": 4, "masks": 0, "spare": 1})
    (root / "labels.csv").write_text("image,label\n000.jpg,a\n001.jpg,b\n")
    unused = ("images/002.jpg", "images/003.jpg", "spare/000.jpg")
    expected = tuple(f"{name}: belongs to no part, class or annotation" for name in unused)
    assert load(root).skipped == expected
    assert load(root).num_skipped == 3
    (root / "labels.csv").unlink()
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    with Image.open(root / "images" / "000.jpg") as image:
        size = {"width": image.width, "height": image.height}
    boxes = [{"id": i, "image_id": 0, "category_id": i, "bbox": [0, 0, 4, 4]} for i in (1, 2)]
    values = {"images": [{"id": 0, "file_name": "000.jpg"} | size], "annotations": boxes, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(values))
    found = load_boxes(DataConfig(path=str(root), val_fraction=1))
    assert found.skipped == ("images/001.jpg: belongs to no part, class or annotation", *expected)


def test_masks_are_no_images_that_are_left_out(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            Image.fromarray(np.full((4, 4), i % 2, np.uint8)).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "overlays").mkdir()
    shutil.copy(tmp_path / "images" / "0.png", tmp_path / "overlays")
    data = load_masks(DataConfig(path=str(tmp_path)))
    assert data.skipped == ("overlays/0.png: belongs to no part, class or annotation",)
