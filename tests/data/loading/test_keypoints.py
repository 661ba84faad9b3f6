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
from vitrail.data import AugmentConfig, DataConfig, load_keypoints, train_loader

NAMES = ["left_eye", "right_eye", "tail"]
COLOURS = ([255, 0, 0], [0, 255, 0], [0, 0, 255])
POINTS = [(30.5, 20.5), (50.5, 24.5), (40.5, 50.5)]
HOW = Preprocessing(image_size=(48, 64), mean=(0, 0, 0), std=(1, 1, 1))

Annotations = dict[str, Any]


def values() -> Annotations:
    triples = [number for (x, y) in POINTS for number in (x, y, 2)]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 90, "height": 70} for i in (1, 2)],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 1, "bbox": [20, 10, 40, 50], "area": 900.0, "keypoints": triples},
            {"id": 6, "image_id": 2, "category_id": 1, "bbox": [20, 10, 40, 50], "keypoints": [0] * 9},
            {"id": 7, "image_id": 2, "category_id": 1, "bbox": [20, 10, 40, 50], "keypoints": [*triples[:6], 0, 0, 0]},
        ],
        "categories": [{"id": 1, "name": "mouse", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every keypoint is a dot of its own colour."""
    pixels = np.zeros((70, 90, 3), np.uint8)
    for (x, y), colour in zip(POINTS, COLOURS, strict=True):
        pixels[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3] = colour
    (tmp_path / "annotations").mkdir()
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for i in (1, 2):
            Image.fromarray(pixels).save(tmp_path / part / f"{i}.png")
        (tmp_path / "annotations" / f"{part}.json").write_text(json.dumps(values()))
    return tmp_path


def test_objects_become_samples(folder: Path) -> None:
    data = load_keypoints(DataConfig(path=str(folder)))
    assert data.classes == tuple(NAMES)
    assert data.train.names == ["train/1.png#5", "train/2.png#7"]
    assert data.train.skeleton == ((0, 1), (0, 2))
    assert data.skipped == ("2 objects without labelled keypoints",)
    target = data.train.target(1)
    assert target["keypoints"][:, 2].tolist() == [1, 1, 0]
    assert (target["area"], data.train.target(0)["area"]) == (2000, 900), "the box's where the file says none"


def dots(image: torch.Tensor) -> list[tuple[float, float]]:
    """Centre of each colour, as shares of the frame."""
    found = []
    for channel in range(3):
        weight = image[channel].double()
        total = weight.sum()
        y, x = (torch.arange(n) + 0.5 for n in weight.shape)
        found.append(
            (float((weight.sum(0) * x).sum() / total / len(x)), float((weight.sum(1) * y).sum() / total / len(y)))
        )
    return found


def test_keypoints_lie_on_what_they_name_after_every_change(folder: Path) -> None:
    train = load_keypoints(DataConfig(path=str(folder))).train.subset([0])
    image, target = train.fitted(0, HOW)
    assert torch.tensor(dots(image)) == pytest.approx(target["keypoints"][:, :2], abs=0.02)
    augment = AugmentConfig(rand_augment_num_ops=0, random_resized_crop_scale=(0.8, 1.0))
    loader = train_loader(train, HOW, augment, batch_size=1, num_workers=0, seed=0, num_classes=3)
    flips = 0
    for epoch in range(8):
        loader.set_epoch(epoch)
        (batch,) = loader
        places = batch.targets["keypoints"][0, :, :2]
        seen = torch.tensor(dots(batch.images[0]))
        upright, mirrored = ((seen[order] - places).abs().max() < 0.03 for order in ([0, 1, 2], [1, 0, 2]))
        assert upright or mirrored
        flips += int(mirrored)
    assert 0 < flips < 8, "in the mirror the red dot is the right eye"


def annotation(**changes: Any) -> Callable[[Annotations], None]:
    return lambda found: found["annotations"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (annotation(keypoints=[1, 2, 2]), "annotation 5: its keypoints are not 3 triples"),
        (annotation(keypoints=[1, 2, 2, 95, 5, 2, 0, 0, 0]), "keypoint 2 at 95, 5 lies outside of the image of 90x70"),
        (annotation(bbox=[20, 10, 0, 0]), "its box has no area"),
    ],
)
def test_wrong_keypoints_are_listed_and_refused_or_skipped(
    folder: Path, change: Callable[[Annotations], None], words: str
) -> None:
    found = values()
    change(found)
    (folder / "annotations/train.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match=words):
        load_keypoints(DataConfig(path=str(folder)))
    data = load_keypoints(DataConfig(path=str(folder), bad_annotations="skip"))
    assert (len(data.train), len(data.val), len(data.skipped)) == (1, 2, 2)


def test_categories_of_different_skeletons(folder: Path) -> None:
    found = values()
    found["categories"].append({"id": 2, "name": "cat", "keypoints": ["nose"]})
    (folder / "annotations/train.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="2 skeletons among"):
        load_keypoints(DataConfig(path=str(folder)))


def rename(folder: Path, names: list[str], **category: Any) -> Path:
    """The same folder with other names of keypoints, and further entries of the category."""
    found = values()
    found["categories"][0] |= {"keypoints": names} | category
    for part in ("train", "val"):
        (folder / "annotations" / f"{part}.json").write_text(json.dumps(found))
    return folder


def test_spellings_of_other_tools_change_places(folder: Path) -> None:
    data = load_keypoints(DataConfig(path=str(rename(folder, ["L_Eye", "R_Eye", "Tail"]))))
    assert (data.train.mirror, data.train.mirrored_alike) == ((1, 0, 2), True)
    assert data.remarks[0] == (
        "Pairs of keypoints that change places in mirror images: 1 (L_Eye = R_Eye); keypoints that stay: 1 (Tail)"
    )


def test_without_known_sides_nothing_is_mirrored_whatever_the_option_says(folder: Path) -> None:
    data = load_keypoints(DataConfig(path=str(rename(folder, ["kp_1", "kp_2", "kp_3"]))))
    assert not data.train.mirrored_alike
    assert data.remarks[0].startswith(
        "Images are not mirrored: it is not known which of the keypoints kp_1, kp_2, kp_3"
    )
    augment = AugmentConfig(hflip=1.0, rand_augment_num_ops=0, random_resized_crop_scale=(0.8, 1.0))
    loader = train_loader(data.train.subset([0]), HOW, augment, batch_size=1, num_workers=0, seed=0, num_classes=3)
    for epoch in range(4):
        loader.set_epoch(epoch)
        (batch,) = loader
        assert (torch.tensor(dots(batch.images[0])) - batch.targets["keypoints"][0, :, :2]).abs().max() < 0.03
        assert batch.targets["keypoints"][0, 0, 0] < batch.targets["keypoints"][0, 1, 0], "turned, not mirrored"


@pytest.mark.parametrize(
    "category",
    [
        {"flip_idx": [2, 1, 0]},
        {"flip_pairs": [[0, 2]]},
        {"flip_pairs": [["c", "a"]], "flip_idx": [2, 1, 0]},
        {"keypoint_flip_map": [["a", "c"]]},
    ],
)
def test_pairs_of_the_json_are_taken(folder: Path, category: dict[str, Any]) -> None:
    data = load_keypoints(DataConfig(path=str(rename(folder, ["a", "b", "c"], **category))))
    assert (data.train.mirror, data.train.mirrored_alike) == ((2, 1, 0), True)


def test_pairs_of_the_option_come_first(folder: Path) -> None:
    rename(folder, ["a", "b=", "c"], flip_idx=[2, 1, 0])
    data = load_keypoints(DataConfig(path=str(folder), mirror_pairs=("b==c",)))
    assert (data.train.mirror, data.train.mirrored_alike) == ((0, 2, 1), True)


@pytest.mark.parametrize(
    ("category", "given", "words"),
    [
        ({"flip_idx": [1, 2, 0]}, (), "a keypoint takes the place of one that does not take its place"),
        ({"flip_idx": [1, 0]}, (), "not the numbers 0 to 2"),
        ({"flip_idx": [1.0, 0.0, 2.0]}, (), "not the numbers 0 to 2"),
        ({"flip_pairs": [[1, 3]]}, (), "3 is no keypoint"),
        ({"flip_pairs": [["a", "d"]]}, (), "'d' is no keypoint"),
        ({"flip_pairs": [[["a"], "b"]]}, (), "is no keypoint"),
        ({"flip_pairs": "a=b"}, (), "not a list of pairs"),
        ({"flip_pairs": [["a", "b"], ["b", "c"]]}, (), "'b' twice"),
        ({"flip_pairs": [["a", "b"]], "flip_idx": [2, 1, 0]}, (), r"different pairs of keypoints \(flip_idx and"),
        ({}, ("a=d",), "mirror_pairs has 'a=d'"),
        ({}, ("ab",), "mirror_pairs has 'ab'"),
        ({}, ("a=b", "c=a"), "mirror_pairs has keypoint 'a' twice"),
    ],
)
def test_wrong_pairs_are_refused(folder: Path, category: dict[str, Any], given: tuple[str, ...], words: str) -> None:
    rename(folder, ["a", "b", "c"], **category)
    with pytest.raises(DataError, match=words):
        load_keypoints(DataConfig(path=str(folder), mirror_pairs=given))


def test_json_that_contradicts_itself_or_its_names_is_refused(folder: Path) -> None:
    """Indices that begin at 1 are the usual mistake."""
    names = ["nose", "left_eye", "right_eye"]
    rename(folder, names, flip_pairs=[[2, 1]])
    assert load_keypoints(DataConfig(path=str(folder))).train.mirror == (0, 2, 1)
    rename(folder, names, flip_pairs=[[0, 1]])
    with pytest.raises(DataError, match="contradict the sides in the keypoints' names"):
        load_keypoints(DataConfig(path=str(folder)))
    found = values()
    found["categories"] = [
        {"id": id, "name": f"{id}", "keypoints": ["a", "b", "c"], "flip_idx": order}
        for id, order in ((1, [1, 0, 2]), (2, [2, 1, 0]))
    ]
    for part in ("train", "val"):
        (folder / "annotations" / f"{part}.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match="different pairs of keypoints"):
        load_keypoints(DataConfig(path=str(folder)))
