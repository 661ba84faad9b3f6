from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, ResolvedAugment, eval_loader, load_instances
from vitrail.data.formats.coco_shapes import decode_mask, problem_of_mask

# a triangle, a square as two polygons, a square as run lengths
TRIANGLE = [[10, 10, 30, 10, 10, 30]]
SQUARE = [[40, 20, 45, 20, 45, 30, 40, 30], [45, 20, 50, 20, 50, 30, 45, 30]]
RUNS = {"size": [48, 64], "counts": [48 * 4 + 8, 10, *[38, 10] * 9, 48 * 50 + 30]}


def annotation(number: int, image: int, box: list[float], shape: Any, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 1, "bbox": box, "segmentation": shape} | more


def write(root: Path, annotations: list[dict[str, Any]]) -> Path:
    """Three images of noise whose objects are white."""
    for part in ("train", "val"):
        (root / part).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            pixels = np.zeros((48, 64, 3), np.uint8)
            for one in annotations:
                if one["image_id"] == number and problem_of_mask(one["segmentation"], (48, 64)) is None:
                    pixels[decode_mask(one["segmentation"], (48, 64)).numpy() > 0] = 255
            Image.fromarray(pixels).save(root / part / f"{number}.png")
        (root / "annotations").mkdir(exist_ok=True)
        values = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(3)],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "thing"}],
        }
        (root / "annotations" / f"{part}.json").write_text(json.dumps(values))
    return root


GOOD = [
    annotation(0, 0, [10, 10, 20, 20], TRIANGLE),
    annotation(1, 0, [40, 20, 10, 10], SQUARE),
    annotation(2, 1, [4, 8, 10, 10], RUNS),
    annotation(3, 1, [0, 0, 60, 40], [], iscrowd=1),
]


def test_masks_are_read(tmp_path: Path) -> None:
    data = load_instances(DataConfig(path=str(write(tmp_path, GOOD))))
    first, second, third = (data.train.target(i)["masks"] for i in range(3))
    assert first.shape == (2, 48, 64)
    assert 180 <= int(first[0].sum()) <= 220
    assert first[0, 12, 12] == 1
    assert first[0, 28, 28] == 0
    assert first[1, 20:30, 40:50].all()
    assert int(first[1].sum()) == 100, "two polygons, one object"
    assert second[0, 8:18, 4:14].all()
    assert int(second[0].sum()) == 100
    assert int(second[1].sum()) == 0, "a crowd"
    assert third.shape == (0, 48, 64)


@pytest.mark.parametrize("frame", [(48, 64), (96, 96), (40, 30)])
def test_masks_stay_on_their_objects(tmp_path: Path, frame: tuple[int, int]) -> None:
    """Objects are white: fitted or cropped and mirrored, the pixels of a mask are."""
    data = load_instances(DataConfig(path=str(write(tmp_path, GOOD))))
    preprocessing = Preprocessing(image_size=frame)
    change = data.train.train_transform(preprocessing, ResolvedAugment(random_resized_crop_scale=(0.5, 1.0)))
    for image, target in [data.train.fitted(0, preprocessing), *(change(*data.train[0]) for _ in range(8))]:
        assert target["masks"].shape == (len(target["boxes"]), *frame)
        for mask, box in zip(target["masks"], target["boxes"], strict=True):
            assert image[:, mask > 0].float().mean() > 0.75 * image.max(), "colours vary too"
            rows, columns = mask.nonzero(as_tuple=True)
            left, top, right, bottom = (box * torch.tensor([frame[1], frame[0]] * 2)).tolist()
            assert columns.min() >= left - 1.5
            assert columns.max() <= right + 1.5
            assert rows.min() >= top - 1.5
            assert rows.max() <= bottom + 1.5


def test_batches(tmp_path: Path) -> None:
    data = load_instances(DataConfig(path=str(write(tmp_path, GOOD))))
    batch = next(iter(eval_loader(data.val, Preprocessing(image_size=(48, 64)), batch_size=3, num_workers=0)))
    assert [len(target["masks"]) for target in batch.targets] == [2, 2, 0]


WRONG = [
    (None, "segmentation is neither polygons nor run lengths"),
    ([], "an empty segmentation"),
    ([[1, 2, 3, 4]], "not three or more pairs of numbers"),
    ([[1, 2, 3, 4, 5, "x"]], "not three or more pairs"),
    ([[1, 2, 3, 4, 5, 6, 7]], "not three or more pairs"),
    ({"size": [64, 48], "counts": [3072]}, r"has the size \[64, 48\], but the image \[48, 64\]"),
    ({"size": [48, 64], "counts": [3071]}, "do not add up"),
    ({"size": [48, 64], "counts": [-5, 3077]}, "do not add up"),
    ({"size": [48, 64], "counts": "zz~"}, "do not add up"),
    ({"size": [48, 64], "counts": "P"}, "do not add up"),
]


@pytest.mark.parametrize(("shape", "words"), WRONG)
def test_wrong_masks_are_refused_or_listed(tmp_path: Path, shape: Any, words: str) -> None:
    root = write(tmp_path, [*GOOD, annotation(9, 2, [1, 1, 5, 5], shape)])
    with pytest.raises(DataError, match=rf"annotations/train.json annotation 9: .*{words}"):
        load_instances(DataConfig(path=str(root)))
    data = load_instances(DataConfig(path=str(root), bad_annotations="skip"))
    assert len(data.skipped) == 2, "train and val"
    assert len(data.train.target(2)["boxes"]) == 0


def test_masks_count_for_the_fingerprint(tmp_path: Path) -> None:
    before = load_instances(DataConfig(path=str(write(tmp_path / "a", GOOD)))).fingerprint
    changed = [GOOD[0] | {"segmentation": [[10, 10, 30, 10, 30, 30]]}, *GOOD[1:]]
    write(tmp_path / "b", GOOD)  # the same pictures
    for part in ("train", "val"):
        file = tmp_path / "b" / "annotations" / f"{part}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": changed}))
    assert load_instances(DataConfig(path=str(tmp_path / "b"))).fingerprint != before


def test_text_files_have_no_masks(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="has no masks of objects; give COCO JSON"):
        load_instances(DataConfig(path=str(tmp_path)))
