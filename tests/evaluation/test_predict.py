from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import ConfigError, DataError
from vitrail.core.types import Preprocessing
from vitrail.evaluation import predict_images
from vitrail.models import create_model
from vitrail.tasks import ClassificationTask, answers_of

PREPROCESSING = Preprocessing(image_size=(32, 32))


@pytest.fixture
def task() -> ClassificationTask:
    return ClassificationTask(create_model("vit_tiny_patch16", num_classes=3, image_size=32), ("a", "b", "c"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, colour in (("x/1.png", "red"), ("x/2.jpg", "lime"), ("3.jpg", "blue")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    (tmp_path / "x" / "notes.txt").write_text("no image")
    (tmp_path / "x" / ".hidden.jpg").write_text("no image")
    return tmp_path


def test_files_and_folders_in_order_and_once(task: ClassificationTask, photos: Path) -> None:
    found = predict_images(task, [str(photos / "3.jpg"), photos], PREPROCESSING, top_k=2, batch_size=2)
    assert [p.path.relative_to(photos).as_posix() for p in found.images] == ["3.jpg", "x/1.png", "x/2.jpg"]
    assert all(len(p.answer) == 2 and p.answer[0].probability >= p.answer[1].probability for p in found.images)
    assert [(one.path.name, one.reason.split(": ")[1]) for one in found.skipped] == [(".hidden.jpg", "is hidden")]


def test_scores_are_those_of_the_task(task: ClassificationTask, photos: Path) -> None:
    task.train()
    (prediction,) = predict_images(task, [photos / "x" / "1.png"], PREPROCESSING, top_k=5).images
    assert task.training
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    (expected,) = answers_of(task.eval()).decode(task(PREPROCESSING.normalize(red)))
    assert [score.label for score in prediction.answer] == [score.label for score in expected]
    assert prediction.answer[0].probability == pytest.approx(expected[0].probability, abs=1e-5)


def test_undecodable_files_are_listed_with_the_reason(task: ClassificationTask, photos: Path) -> None:
    (photos / "x" / "0.jpg").write_bytes(b"")
    found = predict_images(task, [photos / "x", photos / "gone.jpg"], PREPROCESSING)
    assert [p.path.name for p in found.images] == ["1.png", "2.jpg"]
    assert [s.path.name for s in found.skipped] == [".hidden.jpg", "0.jpg", "gone.jpg"]
    assert "empty" in found.skipped[1].reason
    assert "cannot be read" in found.skipped[2].reason
    assert predict_images(task, [photos / "x" / "0.jpg"], PREPROCESSING).images == ()


def test_what_lies_beside_images_is_named_and_nothing_is_waited_for(task: ClassificationTask, photos: Path) -> None:
    (photos / "x" / "IMG_1.HEIC").write_bytes(b"")
    os.mkfifo(photos / "x" / "pipe.jpg")
    os.mkfifo(photos / "pipe")
    (photos / "zeros.png").symlink_to("/dev/zero")
    found = predict_images(task, [photos / "x", photos / "pipe", photos / "zeros.png"], PREPROCESSING)
    assert [p.path.name for p in found.images] == ["1.png", "2.jpg"]
    reasons = {one.path.name: one.reason for one in found.skipped}
    assert "is a .heic file, a kind that is not read" in reasons["IMG_1.HEIC"]
    for name in ("pipe.jpg", "pipe", "zeros.png"):
        assert "is no regular file" in reasons[name]
    shutil.rmtree(photos / "x")
    (photos / "x").mkdir()
    (photos / "x" / "a.dng").write_bytes(b"")
    with pytest.raises(DataError, match=r"has no images; .*a\.dng is a \.dng file, a kind that is not read"):
        predict_images(task, [photos / "x"], PREPROCESSING)


def test_an_answer_to_a_damaged_image_is_doubted(
    task: ClassificationTask, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / "x" / "2.jpg")
    data = (photos / "x" / "2.jpg").read_bytes()
    half = len(data) // 2
    (photos / "x" / "2.jpg").write_bytes(data[:half] + bytes(200) + data[half + 200 :])
    found = predict_images(task, [photos / "3.jpg", photos / "x"], PREPROCESSING)
    assert [one.path.name for one in found.images] == ["3.jpg", "1.png", "2.jpg"]
    assert [one.path.name for one in found.damaged] == ["2.jpg"]
    assert "2.jpg is damaged inside (Corrupt JPEG data" in found.damaged[0].reason
    assert capfd.readouterr().err == ""


def test_deep_grey_images_have_the_range_of_the_training(task: ClassificationTask, photos: Path) -> None:
    for name, value in (("a", 290.0), ("b", 295.0)):
        Image.fromarray(np.full((32, 32), value, np.float32)).save(photos / f"{name}.tif")
    deep = replace(PREPROCESSING, pixel_range=(290.0, 300.0))
    found = predict_images(task, [photos / "a.tif", photos / "b.tif"], deep, top_k=3).images
    for one, grey in zip(found, (0, 128), strict=True):
        pixels = torch.full((1, 3, 32, 32), grey, dtype=torch.uint8)
        (expected,) = answers_of(task.eval()).decode(task(PREPROCESSING.normalize(pixels)))
        assert one.answer[0].probability == pytest.approx(expected[0].probability, abs=1e-5)


def test_nothing_to_classify_is_an_error(task: ClassificationTask, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images to look at"):
        predict_images(task, [], PREPROCESSING)
    with pytest.raises(DataError, match="has no images; known are"):
        predict_images(task, [tmp_path], PREPROCESSING)
    with pytest.raises(ConfigError, match="top_k=0"):
        predict_images(task, [tmp_path], PREPROCESSING, top_k=0)
