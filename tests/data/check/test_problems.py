"""The reason is told before, or with, an error about what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from written_data import coco_values

from vitrail.core.errors import DataError
from vitrail.data import DataConfig, load_boxes, load_instances, load_keypoints, load_masks, load_scores

Write = Callable[..., Path]
IMAGES = {"train": ["0.png", "1.png"]}


def refusals(load: Callable[[DataConfig], Any], root: Path) -> tuple[str, str]:
    """What is told when wrong annotations are refused, and when they are skipped."""
    told = []
    for how in ("refuse", "skip"):
        with pytest.raises(DataError) as caught:
            load(DataConfig(path=str(root), bad_annotations=how))  # type: ignore[arg-type]
        told.append(str(caught.value))
    return told[0], told[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 24, "height": 32}, "its size is 24x32, but the file has 32x24"),
        ({"file_name": "photos/9.png"}, "file_name 'photos/9.png' is no file in train/"),
        ({"id": None}, "images[0]: it has no id"),
    ],
)
@pytest.mark.parametrize("load", [load_boxes, load_instances, load_masks])
def test_coco_whose_images_are_all_wrong(
    load: Callable[[DataConfig], Any], change: dict[str, Any], words: str, write_coco: Write
) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    values["images"] = [entry | change for entry in values["images"]]
    root = write_coco({"annotations/train.json": values}, IMAGES)
    for told in refusals(load, root):
        assert words in told


def test_coco_whose_categories_are_all_wrong(write_coco: Write) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    values["categories"] = [{"id": 1}, {"name": "dog"}]
    root = write_coco({"annotations/train.json": values}, IMAGES)
    for load in (load_boxes, load_keypoints):
        for told in refusals(load, root):
            assert "annotations/train.json categories[0]: it needs an id and a name" in told


@pytest.mark.parametrize(
    ("mode", "size", "words"),
    [
        ("RGB", (16, 12), "is a mask of mode RGB; save it as 8-bit grey or palette PNG"),
        ("RGBA", (16, 12), "is a mask of mode RGBA"),
        ("I;16", (16, 12), "is a mask of mode I;16"),
        ("L", (12, 16), "is 12x16 pixels, but the image is 16x12"),
    ],
)
@pytest.mark.parametrize("names", [None, "0 sky\n1 road\n"])
def test_masks_that_are_all_wrong(
    mode: str, size: tuple[int, int], words: str, names: str | None, tmp_path: Path
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (16, 12)).save(tmp_path / f"images/{name}.png")
        Image.new(mode, size).save(tmp_path / f"masks/{name}.png")
    if names:
        (tmp_path / "classes.txt").write_text(names)
    for told in refusals(load_masks, tmp_path):
        assert words in told
        assert "a.png" in told


def test_masks_that_are_all_missing(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(tmp_path / "images/a.png")
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(tmp_path / "masks/b.png")
    for told in refusals(load_masks, tmp_path):
        assert "images/a.png: there is no mask" in told


def test_labels_that_are_all_wrong(write_yolo: Write) -> None:
    root = write_yolo({"data.yaml": "names: [cat]", "label/a.txt": "0 0.5 0.5 0.1 0.1"}, ["images/a.png"])
    for told in refusals(load_boxes, root):
        assert "images: none of its 1 images has a label file" in told


def test_keypoints_that_are_all_wrong(write_coco: Write) -> None:
    values = coco_values({1: "mouse"})
    values["categories"][0]["keypoints"] = ["nose"]
    root = write_coco({"annotations/train.json": values}, IMAGES)
    for told in refusals(load_keypoints, root):
        assert "annotation 0: its keypoints are not 1 triples of numbers" in told


def test_scores_that_are_all_wrong(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("image,score\nnone.jpg,3\ngone.jpg,2\n")
    for told in refusals(load_scores, tmp_path):
        assert "scores.csv line 2: image 'none.jpg' is missing" in told
