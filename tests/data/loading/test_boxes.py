from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data import AugmentConfig, DataConfig, load_boxes, train_loader

CLASSES = ("cell", "plate")
# image number -> (class, left, top, width, height)
OBJECTS = {0: [(0, 10, 5, 20, 10), (1, 2, 20, 8, 8)], 1: [(1, 30, 10, 10, 20)], 2: [], 3: [(0, 0, 0, 64, 48)]}

Annotations = dict[str, Any]


def picture(path: Path, objects: list[tuple[int, ...]]) -> None:
    """Black, with every object white: a test can see where it went."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    for _, left, top, width, height in objects:
        pixels[top : top + height, left : left + width] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def coco_values() -> Annotations:
    rows = [(i, *one) for i, objects in OBJECTS.items() for one in objects]
    return {
        "images": [{"id": 10 + i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in OBJECTS],
        "annotations": [
            {"id": number, "image_id": 10 + image, "category_id": 7 + label, "bbox": list(box), "iscrowd": 0}
            for number, (image, label, *box) in enumerate(rows)
        ],
        "categories": [{"id": 7, "name": "cell"}, {"id": 8, "name": "plate"}],
    }


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for i, objects in OBJECTS.items():
            picture(tmp_path / part / f"{i}.png", objects)
        write(tmp_path, part, coco_values())
    return tmp_path


def write(root: Path, part: str, values: Annotations) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"{part}.json").write_text(json.dumps(values))


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for i, objects in OBJECTS.items():
            picture(tmp_path / "images" / part / f"{i}.png", objects)
            label = tmp_path / "labels" / part / f"{i}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{c} {(x + w / 2) / 64} {(y + h / 2) / 48} {w / 64} {h / 48}" for c, x, y, w, h in objects]
            label.write_text("\n".join(lines))
    (tmp_path / "data.yaml").write_text("names:\n  0: cell\n  1: plate\n")
    return tmp_path


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_both_layouts_say_the_same(layout: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(layout)
    data = load_boxes(DataConfig(path=str(folder)))
    assert data.classes == CLASSES
    assert (len(data.train), len(data.val), data.test, data.skipped) == (4, 4, None, ())
    for index, objects in OBJECTS.items():
        target = data.train.target(index)
        expected = [[x, y, x + w, y + h] for _, x, y, w, h in objects]
        torch.testing.assert_close(target["boxes"], torch.tensor(expected, dtype=torch.float32).reshape(-1, 4))
        assert target["labels"].tolist() == [label for label, *_ in objects]
    assert data.align(("plate", "other", "cell")).train.target(0)["labels"].tolist() == [2, 0]


def test_objects_of_a_side_are_not_mirrored(coco: Path) -> None:
    assert load_boxes(DataConfig(path=str(coco))).train.mirrored_alike
    values = coco_values()
    values["categories"] = [{"id": 7, "name": "Left shoe"}, {"id": 8, "name": "Right shoe"}]
    for part in ("train", "val"):
        write(coco, part, values)
    data = load_boxes(DataConfig(path=str(coco)))
    assert not data.train.mirrored_alike
    assert "(Left shoe, Right shoe)" in data.remarks[0]


def test_cocos_own_names_and_crowds(coco: Path) -> None:
    values = coco_values()
    values["annotations"][0]["iscrowd"] = 1
    for part in ("train", "val"):
        (coco / "annotations" / f"{part}.json").unlink()
        (coco / part).rename(coco / f"{part}2017")
        write(coco, f"instances_{part}2017", values)
        write(coco, f"captions_{part}2017", {"images": []})
    data = load_boxes(DataConfig(path=str(coco)))
    assert len(data.train) == 4
    assert data.train.target(0)["iscrowd"].tolist() == [True, False]


def test_boxes_move_with_their_images(coco: Path) -> None:
    """Where an object is white, the mean inside its box is high after every change."""
    train = load_boxes(DataConfig(path=str(coco))).train.subset([0, 1])
    augment = AugmentConfig(rand_augment_num_ops=0, random_resized_crop_scale=(0.5, 1.0))
    how = Preprocessing(image_size=(64, 96))
    loader = train_loader(train, how, augment, batch_size=2, num_workers=0, seed=0, num_classes=2)
    seen = 0
    for epoch in range(8):
        loader.set_epoch(epoch)
        (batch,) = loader
        for image, target in zip(batch.images, batch.targets, strict=True):
            assert len(target["boxes"]) == len(target["labels"]) == len(target["iscrowd"])
            for left, top, right, bottom in (target["boxes"] * torch.tensor([96, 64, 96, 64])).round().int().tolist():
                assert 0 <= left < right <= 96
                assert 0 <= top < bottom <= 64
                assert image[:, top:bottom, left:right].float().mean() > 200
                seen += 1
    assert seen > 15


def test_fitted_boxes_are_shares_of_the_frame(coco: Path) -> None:
    data = load_boxes(DataConfig(path=str(coco)))
    image, target = data.val.fitted(3, Preprocessing(image_size=(96, 96)))
    torch.testing.assert_close(target["boxes"], torch.tensor([[0, 0, 1, 0.75]]))
    assert image[:, 70, 90].tolist() == [255] * 3
    assert image[:, 80, 90].tolist() != [255] * 3


def annotation(**changes: Any) -> Callable[[Annotations], None]:
    return lambda values: values["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (annotation(bbox=[60, 5, 20, 10]), r"annotation 0: its box 60, 5, 20, 10 reaches out of the image of 64x48"),
        (annotation(bbox=[10, 5, 0, 10]), r"annotation 0: its box has no area"),
        (annotation(bbox=[10, 5, -3, 10]), r"has no area \(width -3"),
        (annotation(bbox=[10, 5, 3]), r"is not four numbers"),
        (annotation(bbox=[10, 5, float("nan"), 3]), r"is not four numbers"),
        (annotation(category_id=99), r"there is no category 99"),
        (annotation(image_id=99), r"there is no image 99"),
        (annotation(id=1), r"annotation 1: this annotation id occurs twice"),
        (lambda values: values["images"][0].update(id=11), r"image 11: this image id occurs twice"),
        (lambda values: values["images"][0].update(width=65), r"image 10: its size is 65x48, but the file has 64x48"),
        (lambda values: values["images"][0].update(file_name="../../x.png"), r"'../../x.png' is no file in train/"),
    ],
)
def test_wrong_annotations_are_listed_and_refused_or_skipped(
    coco: Path, change: Callable[[Annotations], None], words: str
) -> None:
    values = coco_values()
    change(values)
    write(coco, "train", values)
    with pytest.raises(DataError, match=words) as caught:
        load_boxes(DataConfig(path=str(coco)))
    assert "annotations/train.json" in str(caught.value)
    data = load_boxes(DataConfig(path=str(coco), bad_annotations="skip"))
    assert data.skipped
    assert all(text.startswith("annotations/train.json") for text in data.skipped)
    assert sum(len(one.labels) for one in data.train.records) < 4
    assert sum(len(one.labels) for one in data.val.records) == 4


def test_a_box_that_reaches_out_by_rounding_is_cut(coco: Path) -> None:
    values = coco_values()
    values["annotations"][0]["bbox"] = [-0.6, 5, 20, 43.7]
    write(coco, "train", values)
    assert load_boxes(DataConfig(path=str(coco))).train.target(0)["boxes"][0].tolist() == pytest.approx(
        [0, 5, 19.4, 48]
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("5 0.5 0.5 0.1 0.1", r"labels/train/1.txt line 2: class 5 does not exist; there are 2"),
        ("0 0.5 0.5 0.1", r"line 2: '0 0.5 0.5 0.1' is not 'CLASS X Y WIDTH HEIGHT'"),
        ("cell 0.5 0.5 0.1 0.1", r"is not 'CLASS X Y WIDTH HEIGHT'"),
        ("0 0.99 0.5 0.2 0.1", r"line 2: its box .* reaches out of the image"),
        ("0 0.5 0.5 0 0.1", r"line 2: its box has no area"),
    ],
)
def test_wrong_lines_are_listed_with_file_and_line(yolo: Path, line: str, words: str) -> None:
    file = yolo / "labels/train/1.txt"
    file.write_text(file.read_text() + "\n" + line)
    with pytest.raises(DataError, match=words):
        load_boxes(DataConfig(path=str(yolo)))
    data = load_boxes(DataConfig(path=str(yolo), bad_annotations="skip"))
    assert len(data.skipped) == 1
    assert data.train.target(1)["labels"].tolist() == [1]


def test_missing_files(yolo: Path, tmp_path: Path) -> None:
    (yolo / "labels/train/2.txt").unlink()
    data = load_boxes(DataConfig(path=str(yolo)))
    assert len(data.train) == 4
    assert "Images of images/train without a label file, which count as images without objects: 1" in data.remarks
    (yolo / "data.yaml").unlink()
    with pytest.raises(DataError, match="has no class names"):
        load_boxes(DataConfig(path=str(yolo)))
    with pytest.raises(DataError, match="does not exist"):
        load_boxes(DataConfig(path=str(tmp_path / "gone")))


def test_json_of_another_kind(coco: Path) -> None:
    (coco / "annotations/train.json").write_text("[1]")
    with pytest.raises(DataError, match="is no COCO JSON"):
        load_boxes(DataConfig(path=str(coco)))
