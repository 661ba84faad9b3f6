from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data import IGNORE, AugmentConfig, DataConfig, load_masks, train_loader

STILL = AugmentConfig(rand_augment_num_ops=0, hflip=0.5, random_resized_crop_scale=(0.3, 0.9))


def write(root: Path, name: str, mask: np.ndarray) -> None:
    """A picture whose red channel is ten times its mask, so that a test sees whether they still belong together."""
    for folder, suffix, pixels in (
        ("images", ".png", np.stack([10 * mask, 0 * mask, 0 * mask], -1)),
        ("masks", ".png", mask),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{name}{suffix}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for index in range(count):
            cells = random.integers(0, 4, (3, 5))
            write(tmp_path / part, f"{part}{index}", np.kron(cells, np.ones((8, 8), int)))
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n2 car\n3 Unlabelled\n")
    return tmp_path


def config(folder: Path, **changes: Any) -> DataConfig:
    return DataConfig(path=str(folder), **changes)


def test_classes_are_named_numbered_and_ignored(folder: Path) -> None:
    data = load_masks(config(folder))
    assert data.classes == ("sky", "road", "car")
    assert (len(data.train), len(data.val), data.test, data.skipped) == (4, 2, None, ())
    image, mask = data.train[0]
    raw = image[0] // 10
    assert torch.equal(mask, torch.where(raw == 3, IGNORE, raw).to(torch.uint8))
    fewer = load_masks(config(folder, ignore_classes=("road",)))
    assert fewer.classes == ("sky", "car")
    assert torch.equal(fewer.train[0][1], torch.tensor([0, IGNORE, 1, IGNORE], dtype=torch.uint8)[raw.long()])
    assert fewer.fingerprint != data.fingerprint


def test_organs_of_a_side_are_not_mirrored(folder: Path) -> None:
    assert load_masks(config(folder)).train.mirrored_alike
    (folder / "classes.txt").write_text("0 background\n1 lung_L\n2 lung_R\n3 heart\n")
    data = load_masks(config(folder))
    assert not data.train.mirrored_alike
    assert "(lung_L, lung_R)" in data.remarks[0]


def test_without_names_the_values_are_the_classes(folder: Path) -> None:
    (folder / "classes.txt").unlink()
    assert load_masks(config(folder)).classes == ("0", "1", "2", "3")


def test_renumbering_follows_the_models_classes(folder: Path) -> None:
    data = load_masks(config(folder))
    moved = data.align(("car", "sky", "tree", "road"))
    table = torch.full((256,), IGNORE, dtype=torch.uint8)
    table[:3] = torch.tensor([1, 3, 0])
    assert torch.equal(moved.train[0][1], table[data.train[0][1].long()])


def test_masks_move_with_their_images(folder: Path) -> None:
    data = load_masks(config(folder))
    loader = train_loader(
        data.train,
        Preprocessing(image_size=(24, 32), interpolation="nearest"),
        STILL,
        batch_size=4,
        num_workers=0,
        seed=0,
        num_classes=3,
    )
    for epoch in range(3):
        loader.set_epoch(epoch)
        (batch,) = loader
        raw = (batch.images[:, 0] // 10).long()
        assert batch.targets.shape == (4, 24, 32)
        known = batch.targets != IGNORE
        agreed = (batch.targets == raw)[known].double().mean()
        assert agreed > 0.97  # the two kinds of nearest neighbour differ by half a pixel at borders


def test_a_fitted_mask_lies_where_its_image_lies(folder: Path) -> None:
    data = load_masks(config(folder))
    image, mask = data.val.fitted(0, Preprocessing(image_size=(48, 48), interpolation="nearest"))
    assert (mask[29:] == IGNORE).all()  # 24x40 in 48x48 leaves the lower 19 rows
    raw = (image[0, :29] // 10).long()
    known = mask[:29] != IGNORE
    assert (mask[:29][known] == raw[known]).double().mean() > 0.93


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda f: (f / "train/masks/train0.png").unlink(), r"train/images/train0.png: there is no mask train/masks/"),
        (lambda f: (f / "val/images/val1.png").unlink(), "val/masks/val1.png: there is no image for this mask"),
        (lambda f: write_mask(f, np.full((24, 40), 77)), "train0.png has values that are no class: 77"),
        (lambda f: write_mask(f, np.zeros((7, 9))), "is 9x7 pixels, but the image is 40x24"),
        (lambda f: write_mask(f, np.zeros((24, 40, 3))), "mask of mode RGB; save it as 8-bit"),
        (lambda f: (f / "train/masks/train0.png").write_bytes(b"x"), "is no readable mask"),
    ],
)
def test_wrong_masks_are_listed_and_refused_or_skipped(folder: Path, break_it: Any, words: str) -> None:
    break_it(folder)
    with pytest.raises(DataError, match=words) as caught:
        load_masks(config(folder))
    assert "bad_annotations=skip" in str(caught.value)
    data = load_masks(config(folder, bad_annotations="skip"))
    assert len(data.train) + len(data.val) == 5
    assert len(data.skipped) == 1


def write_mask(folder: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask.astype(np.uint8)).save(folder / "train/masks/train0.png")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("0 sky\n0 road\n", "twice"),
        ("sky\n\nroad\ncar\n", "line 2 is empty"),
        ("0 sky\n999 road\n", r"line 2: value 999 of 'road' is above 255"),
        ("0 sky\n1 void\n2 ignore\n3 unlabelled", "1 classes besides the ignored"),
    ],
)
def test_bad_class_names(folder: Path, names: str, words: str) -> None:
    (folder / "classes.txt").write_text(names)
    with pytest.raises(DataError, match=words):
        load_masks(config(folder))


def test_bad_folders(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="ignore_classes has 'lamp'"):
        load_masks(config(folder, ignore_classes=("lamp",)))
    with pytest.raises(DataError, match="does not exist"):
        load_masks(config(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no images/ and masks/"):
        load_masks(config(tmp_path / "empty"))


def write_pairs(root: Path, images: str, masks: str) -> Path:
    """Pictures that are told apart by their red channel; a mask's class is half the number of its picture."""
    for folder, names in (("images", images.split()), ("masks", masks.split())):
        for number, name in enumerate(names):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if folder == "images":
                Image.new("RGB", (4, 3), (10 * number, 0, 0)).save(path)
            else:
                Image.new("L", (4, 3), number).save(path)
    return root


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("a/x.jpg b/x.jpg", "a/x.png b/x.png"),
        ("b/x.jpg a/x.jpg", "b/x.png a/x.png"),
        ("a/x.jpg b/y.jpg", "x.png y.png"),
        ("x.jpg y.jpg", "x_mask.png y_mask.png"),
        ("1_sat.jpg 2_sat.jpg", "1_mask.png 2_mask.png"),
        ("image-1.jpg image-2.jpg", "mask-1.png mask-2.png"),
        ("c/x_leftImg8bit.png c/y_leftImg8bit.png", "c/x_gtFine_labelIds.png c/y_gtFine_labelIds.png"),
        ("a/x.jpg b/x.jpg", "a/x_seg.png b/x_seg.png"),
        ("x.jpg y.jpg", "x.tif y.bmp"),
        ("mask.jpg label.jpg", "mask.png label.png"),
        ("sea_label.jpg sea_gt.jpg", "sea_label_mask.png sea_gt_mask.png"),
        ("train/x.jpg val/x.jpg", "train/x.png val/x.png"),
        ("x.v1.jpg x.v2.jpg", "x.v1.png x.v2.png"),
    ],
)
def test_masks_belong_to_the_image_of_their_path_or_of_their_name_alone(
    images: str, masks: str, tmp_path: Path
) -> None:
    data = load_masks(config(write_pairs(tmp_path, images, masks), val_fraction=1.0))
    every = data.choose("all")
    assert [name.removeprefix("images/") for name in every.names] == sorted(images.split())
    for index in range(len(every)):
        image, mask = every[index]
        assert (mask == image[0].float().mean().div(10).round()).all()
    assert {part: samples.names for part, samples in data.parts.items()}.keys() == (
        {"train", "val"} if "train/" in images else {"val"}
    )


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        ("a/x.jpg b/x.jpg", "a/x.png c/x.png", r"images/b/x\.jpg: there is no mask masks/b/x\.png"),
        ("a/x.jpg b/x.jpg", "x.png y.png", r"images/a/x\.jpg: there is no mask masks/a/x\.png"),
        (
            "x.jpg x.png",
            "x.png y.png",
            r"not clear which mask is whose .images images/x\.jpg, images/x\.png; masks masks/x",
        ),
        ("x.jpg y.jpg", "x.png x.tif", r"not clear which mask is whose .*masks masks/x\.png, masks/x\.tif"),
        ("x.jpg y.jpg", "x.png x_mask.png y.png", r"masks/x_mask\.png: there is no image for this mask"),
        ("x.jpg y.jpg", "x.png y.jpg", r"no mask masks/y\.png; y\.jpg is of a kind that does not keep values"),
    ],
)
def test_masks_that_fit_no_image_or_several(images: str, masks: str, words: str, tmp_path: Path) -> None:
    others = " z0.png z1.png z2.png"
    root = write_pairs(tmp_path, images + others, masks + others)
    with pytest.raises(DataError, match=words):
        load_masks(config(root))


def write_values(root: Path, values: list[int], size: int = 64) -> Path:
    for index in range(3):
        for folder in ("images", "masks"):
            (root / folder).mkdir(exist_ok=True)
        pixels = np.resize(np.array(values, np.uint8), (size, size))
        Image.fromarray(pixels).save(root / "masks" / f"{index}.png")
        Image.new("RGB", (size, size), (index, 0, 0)).save(root / "images" / f"{index}.png")
    return root


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 128, 255], r"Value 255 covers 33\.3% .* means 'ignore': .* \(the others are 0, 128\)"),
        ([0, 1, 255, 255], r"Value 255 covers 50\.0% of the masks' pixels"),
        (
            list(range(0, 256, 4)),
            r"The masks have 64 values, and each becomes a class; 0 of them cover less than 0\.1%",
        ),
        ([0] * 2000 + list(range(40)), r"The masks have 40 values, .* 39 of them cover less than 0\.1%"),
    ],
)
def test_values_that_look_like_grey_levels_are_told(values: list[int], words: str, tmp_path: Path) -> None:
    data = load_masks(config(write_values(tmp_path, values)))
    assert re.search(words, data.warnings[0])
    with pytest.raises(DataError, match=words):
        load_masks(config(tmp_path, strict=True))


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 1, 1, 1, 1, 255], [0, 38, 75]])
def test_values_that_look_like_classes_are_not_told(values: list[int], tmp_path: Path) -> None:
    assert load_masks(config(write_values(tmp_path, values))).warnings == ()


@pytest.mark.parametrize("names", [None, "0 sky\n255 road\n"])
def test_masks_of_black_and_white_are_told_what_white_means(names: str | None, tmp_path: Path) -> None:
    write_values(tmp_path, [0, 255])
    if names:
        (tmp_path / "classes.txt").write_text(names)
    words = (
        r"1 classes besides the ignored .* the masks have the values 0, 255, and 255 means 'ignore': save the classes"
    )
    with pytest.raises(DataError, match=words):
        load_masks(config(tmp_path))


def test_a_named_class_that_is_ignored_is_told(tmp_path: Path) -> None:
    write_values(tmp_path, [0, 1, 1, 1, 255])
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n255 void\n")
    assert load_masks(config(tmp_path)).warnings == ()
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n255 car\n")
    assert "Value 255 covers 20.0%" in load_masks(config(tmp_path)).warnings[0]


def test_a_folder_without_parts_is_cut_by_seed(folder: Path) -> None:
    flat = folder / "train"
    data = load_masks(config(flat, val_fraction=0.25))
    assert (len(data.train), len(data.val)) == (3, 1)
    assert load_masks(config(flat, val_fraction=0.25)).val.names == data.val.names
    assert len(load_masks(config(flat, val_fraction=1.0)).val) == 4
