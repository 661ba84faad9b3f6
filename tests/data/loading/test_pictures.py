"""Images that are their own targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.types import Preprocessing
from vitrail.data import AugmentConfig, DataConfig, load_pictures, train_loader

PREPROCESSING = Preprocessing(image_size=(16, 16), crop_fraction=1.0)


def write(path: Path, seed: int, size: tuple[int, int] = (20, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)


def test_any_folder_of_images_will_do(tmp_path: Path) -> None:
    for i in range(10):
        write(tmp_path / ("deep/er" if i % 2 else ".") / f"{i}.png", i)
    (tmp_path / "notes.txt").write_text("no image")
    data = load_pictures(DataConfig(path=str(tmp_path), val_fraction=0.2), labelled=False, crops=True)
    assert (len(data.train), len(data.val), data.test, data.classes) == (8, 2, None, ())
    again = load_pictures(DataConfig(path=str(tmp_path), val_fraction=0.2), labelled=False, crops=True)
    assert (again.train.names, again.fingerprint) == (data.train.names, data.fingerprint)
    assert data.align([]) is data


def test_parts_that_the_folder_names_are_kept(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        for i in range(count):
            write(tmp_path / part / "any" / f"{i}.png", i)
    data = load_pictures(DataConfig(path=str(tmp_path)), labelled=False, crops=True)
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == (5, 2, 3)
    named = load_pictures(DataConfig(path=str(tmp_path)), labelled=False, crops=True)
    assert not set(named.train.names) & set(data.test.names)


def test_classes_where_they_are_wanted(tmp_path: Path) -> None:
    for seed, label in ((0, "cat"), (4, "dog")):
        for i in range(4):
            write(tmp_path / label / f"{i}.png", seed + i)
    data = load_pictures(DataConfig(path=str(tmp_path), val_fraction=0.25), labelled=True, crops=False)
    assert data.classes == ("cat", "dog")
    assert sorted(data.train.labels.tolist()) == [0] * 3 + [1] * 3
    turned = data.align(["dog", "cat"])
    assert (turned.train.labels == 1 - data.train.labels).all()


@pytest.mark.parametrize("crops", [True, False])
def test_the_target_is_the_image_after_its_changes(tmp_path: Path, crops: bool) -> None:
    for i in range(6):
        write(tmp_path / f"{i}.png", i)
    data = load_pictures(DataConfig(path=str(tmp_path), val_fraction=0.3), labelled=False, crops=crops)
    batches = train_loader(
        data.train, PREPROCESSING, AugmentConfig(), batch_size=4, num_workers=0, seed=0, num_classes=0
    )
    (batch,) = batches
    assert torch.equal(batch.images, batch.targets["image"])
    assert batch.targets["label"].tolist() == [0] * 4
    image, (target, _) = data.val.fitted(0, PREPROCESSING)
    assert torch.equal(image, target)
    if not crops:  # only mirrored: each is one of the fitted images, or its mirror image
        fitted = [data.train.fitted(i, PREPROCESSING)[0] for i in range(len(data.train))]
        for image in batch.images:
            assert any(torch.equal(image, one) or torch.equal(image, one.flip(2)) for one in fitted)


def test_the_sample_has_no_labels_here() -> None:
    data = load_pictures(DataConfig(), labelled=False, crops=True)
    assert (data.classes, len(data.train) + len(data.val)) == ((), 900)
    assert not data.train.labels.any()


def test_what_cannot_be_pretrained_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_pictures(DataConfig(path=str(tmp_path / "none")), labelled=False, crops=True)
    with pytest.raises(DataError, match="no images at any depth"):
        load_pictures(DataConfig(path=str(tmp_path)), labelled=False, crops=True)
    write(tmp_path / "one.png", 0)
    with pytest.raises(DataError, match="give at least 2"):
        load_pictures(DataConfig(path=str(tmp_path)), labelled=False, crops=True)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 2 images .* unusable"):
        load_pictures(DataConfig(path=str(tmp_path), max_bad_fraction=0.1), labelled=False, crops=True)
    for i in range(4):
        write(tmp_path / f"{i}.png", i)
    data = load_pictures(DataConfig(path=str(tmp_path), max_bad_fraction=0.3), labelled=False, crops=True)
    assert [text.split(":")[0] for text in data.skipped] == ["broken.png"]
    with pytest.raises(ConfigError, match="can be mixed"):
        train_loader(
            data.train,
            PREPROCESSING,
            AugmentConfig(mixup_alpha=0.2),
            batch_size=2,
            num_workers=0,
            seed=0,
            num_classes=0,
        )
