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
from vitrail.data import IGNORE, DataConfig, load_masks

CATEGORIES = [{"id": 92, "name": "sky"}, {"id": 7, "name": "train"}, {"id": 1, "name": "person"}]
SIZE = (12, 16)


def segments() -> np.ndarray:
    """A sky over a train of two segments, a person of a large number, and a corner of nothing."""
    numbers = np.full(SIZE, 5, np.int64)
    numbers[6:, :8], numbers[6:, 8:] = 300, 301
    numbers[2:9, 4:6] = 70_000
    numbers[10:, 14:] = 0
    return numbers


INFO = [
    {"id": 5, "category_id": 92},
    {"id": 300, "category_id": 7},
    {"id": 301, "category_id": 7},
    {"id": 70_000, "category_id": 1},
]


def images(root: Path, part: str) -> list[dict[str, Any]]:
    (root / part).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    for number in range(2):
        Image.new("RGB", SIZE[::-1], (number, 0, 0)).save(root / part / f"{number}.png")
    return [{"id": i, "file_name": f"{i}.png", "width": SIZE[1], "height": SIZE[0]} for i in range(2)]


@pytest.fixture
def panoptic(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        values = {
            "images": images(tmp_path, part),
            "annotations": [{"image_id": i, "file_name": f"{i}.png", "segments_info": INFO} for i in range(2)],
            "categories": CATEGORIES,
        }
        (tmp_path / "annotations" / f"panoptic_{part}.json").write_text(json.dumps(values))
        folder = tmp_path / "annotations" / f"panoptic_{part}"
        folder.mkdir()
        numbers = segments()
        colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)
        for i in range(2):
            Image.fromarray(colours).save(folder / f"{i}.png")
    return tmp_path


def test_panoptic_segments_become_classes(panoptic: Path) -> None:
    data = load_masks(DataConfig(path=str(panoptic)))
    assert data.classes == ("person", "train", "sky"), "by id"
    assert (len(data.train), len(data.val)) == (2, 2)
    mask = data.train.target(0)
    want = torch.from_numpy(np.select([segments() == 5, segments() == 70_000, segments() == 0], [2, 0, IGNORE], 1))
    assert torch.equal(mask.long(), want)
    image, fitted = data.train.fitted(0, Preprocessing(image_size=(24, 32)))
    assert image.shape[-2:] == fitted.shape == (24, 32)
    ignored = load_masks(DataConfig(path=str(panoptic), ignore_classes=("sky",)))
    assert ignored.classes == ("person", "train")
    assert ignored.train.target(0)[0, 0] == IGNORE


def change(root: Path, how: Callable[[dict[str, Any]], None], file: str = "panoptic_train") -> None:
    path = root / "annotations" / f"{file}.json"
    values = json.loads(path.read_text())
    how(values)
    path.write_text(json.dumps(values))


WRONG: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda v: v["annotations"].pop(), r"train/1.png: annotations/panoptic_train.json has no usable annotation"),
    (lambda v: v["annotations"].append(v["annotations"][0]), "annotation of image 0: this image is annotated twice"),
    (lambda v: v["images"].append(v["images"][0]), "image 0: this image id occurs twice"),
    (lambda v: v["annotations"][1].update(image_id=9), "annotation of image 9: there is no such image"),
    (lambda v: v["annotations"][1].update(file_name="no.png"), r"'no.png' is no file in panoptic_train/"),
    (lambda v: v["annotations"][1].update(file_name="../../train/1.png"), "has segments that are not in segments_info"),
    (lambda v: v["annotations"][1].update(file_name="../../../x.png"), "is no file in"),
    (lambda v: v["annotations"][1].update(segments_info=INFO[:2]), "not in segments_info: 301, 70000"),
    (lambda v: v["annotations"][1].update(segments_info=[INFO[0], INFO[0]]), "segment id 5 occurs twice"),
    (lambda v: v["annotations"][1].update(segments_info=[3]), "3 in segments_info has no id"),
    (lambda v: v["annotations"][1].update(segments_info=[{"id": 5, "category_id": 4}]), "there is no category 4"),
    (lambda v: v["images"].append(3), r"annotations/panoptic_train.json images\[2\]: is int instead of an object"),
    (lambda v: v["annotations"].append({"image_id": [1]}), r"annotations\[2\]: its image_id \[1\] is neither"),
    (lambda v: v["images"][1].update(file_name="2.png"), "image 1: file_name '2.png' is no file"),
]


@pytest.mark.parametrize(("how", "words"), WRONG)
def test_wrong_annotations_are_refused_or_listed(
    panoptic: Path, how: Callable[[dict[str, Any]], Any], words: str
) -> None:
    change(panoptic, how)
    with pytest.raises(DataError, match=words):
        load_masks(DataConfig(path=str(panoptic)))
    data = load_masks(DataConfig(path=str(panoptic), bad_annotations="skip"))
    assert data.skipped
    assert 1 <= len(data.train) <= 2
    assert len(data.val) == 2


def test_masks_of_another_size_or_kind_are_refused(panoptic: Path) -> None:
    Image.new("RGB", (16, 11)).save(panoptic / "annotations/panoptic_train/0.png")
    with pytest.raises(DataError, match="is 16x11 pixels, but the image is 16x12"):
        load_masks(DataConfig(path=str(panoptic)))
    Image.new("L", (16, 12)).save(panoptic / "annotations/panoptic_train/0.png")
    with pytest.raises(DataError, match="has mode L; panoptic masks are RGB"):
        load_masks(DataConfig(path=str(panoptic)))


@pytest.mark.parametrize("name", ["stuff_train", "instances_train", "train"])
def test_polygons_and_run_lengths_are_drawn(tmp_path: Path, name: str) -> None:
    shapes = [
        (92, [[0, 0, 16, 0, 16, 6, 0, 6]], [0, 0, 16, 6]),
        (1, [[4, 2, 6, 2, 6, 5, 4, 5]], [4, 2, 2, 3]),
        (7, {"size": list(SIZE), "counts": [12 * 8 + 8, 4, 12 * 7]}, [8, 8, 1, 4]),
    ]
    for part in ("train", "val"):
        annotations = [
            {"id": i, "image_id": 0, "category_id": category, "segmentation": shape, "bbox": box}
            for i, (category, shape, box) in enumerate(reversed(shapes))
        ]
        values = {"images": images(tmp_path, part), "annotations": annotations, "categories": CATEGORIES}
        (tmp_path / "annotations" / f"{name.replace('train', part)}.json").write_text(json.dumps(values))
    data = load_masks(DataConfig(path=str(tmp_path)))
    mask = data.train.target(0)
    assert mask[0, 0] == 2
    assert mask[3, 4] == 0, "the small one lies over the large one"
    assert mask[8:, 8].tolist() == [1] * 4
    assert mask[11, 15] == IGNORE
    assert (data.train.target(1) == IGNORE).all(), "an image without objects"
    change(tmp_path, lambda values: values["annotations"][0].update(segmentation=[[1, 2]]), name)
    with pytest.raises(DataError, match=f"annotations/{name}.json annotation 0: its mask has a polygon"):
        load_masks(DataConfig(path=str(tmp_path)))
