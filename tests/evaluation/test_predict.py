from __future__ import annotations

from pathlib import Path

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
    assert found.skipped == ()


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
    assert [s.path.name for s in found.skipped] == ["0.jpg", "gone.jpg"]
    assert "empty" in found.skipped[0].reason
    assert "cannot be read" in found.skipped[1].reason
    assert predict_images(task, [photos / "x" / "0.jpg"], PREPROCESSING).images == ()


def test_nothing_to_classify_is_an_error(task: ClassificationTask, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images to look at"):
        predict_images(task, [], PREPROCESSING)
    with pytest.raises(DataError, match="has no images; known are"):
        predict_images(task, [tmp_path], PREPROCESSING)
    with pytest.raises(ConfigError, match="top_k=0"):
        predict_images(task, [tmp_path], PREPROCESSING, top_k=0)
