from __future__ import annotations

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


def test_a_folder_without_parts_is_cut_by_seed(folder: Path) -> None:
    flat = folder / "train"
    data = load_masks(config(flat, val_fraction=0.25))
    assert (len(data.train), len(data.val)) == (3, 1)
    assert load_masks(config(flat, val_fraction=0.25)).val.names == data.val.names
    assert len(load_masks(config(flat, val_fraction=1.0)).val) == 4
