"""What is planted into data of every kind is found, and what is sound is left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from soundness.conftest import WriteScenes
from written_data import coco_values, scene

from vitrail.core.errors import DataError, UnknownNameError
from vitrail.data import DataConfig, load_data
from vitrail.soundness import CheckConfig, Soundness, check_data
from vitrail.soundness.balance import describe_balance
from vitrail.soundness.recognize import likely_tasks

CLASSES = {"train/cat": 12, "train/dog": 12, "val/cat": 3, "val/dog": 3}


def names(found: Soundness) -> set[str]:
    return {finding.name for finding in found.findings}


def files(found: Soundness, name: str) -> list[tuple[str, ...]]:
    finding = found.find(name)
    assert finding is not None, names(found)
    return [example.files for example in finding.examples]


def test_sound_data_has_no_serious_finding(write_scenes: WriteScenes) -> None:
    found = check_data(write_scenes(CLASSES), CheckConfig(strict=True))
    assert names(found) == {"few-images-in-val"}
    assert found.serious == ()
    found.require_sound()
    known = found.understood
    assert (found.task, known.num_images, known.parts) == ("classification", 30, {"train": 24, "val": 6})
    assert known.classes == {"cat": {"train": 12, "val": 3}, "dog": {"train": 12, "val": 3}}
    assert (known.median, known.num_sizes, known.kinds) == ((48, 48), 1, {"PNG RGB": 30})
    assert known.folders["train/cat"] == 12
    assert any("--weights" in text for text in found.unchecked)


def test_copies_are_told_by_where_they_are(write_scenes: WriteScenes) -> None:
    root = write_scenes(CLASSES)
    shutil.copy(root / "train/cat/0.png", root / "val/cat/same-bytes.png")
    Image.open(root / "train/cat/1.png").save(root / "val/cat/same-pixels.bmp")
    ImageOps.mirror(Image.open(root / "train/dog/2.png")).save(root / "val/dog/mirrored.png")
    Image.open(root / "train/dog/3.png").save(root / "train/dog/again.jpg", quality=60)
    Image.open(root / "train/cat/4.png").save(root / "train/dog/other-class.jpg", quality=60)
    shutil.copy(root / "train/dog/5.png", root / "train/dog/twice.png")
    found = check_data(root, CheckConfig())
    assert {*files(found, "copies-across-parts")} == {
        ("val/cat/same-bytes.png", "train/cat/0.png"),
        ("val/cat/same-pixels.bmp", "train/cat/1.png"),
    }
    assert files(found, "near-copies-across-parts") == [("val/dog/mirrored.png", "train/dog/2.png")]
    assert files(found, "near-copies") == [("train/dog/again.jpg", "train/dog/3.png")]
    assert files(found, "near-copies-two-labels") == [("train/dog/other-class.jpg", "train/cat/4.png")]
    assert files(found, "copies") == [("train/dog/twice.png", "train/dog/5.png")]
    assert {finding.name for finding in found.serious} == {"copies-across-parts", "near-copies-across-parts"}
    with pytest.raises(DataError, match=r"is not sound \(2 images are in more than one part.*; 1 image is all but"):
        found.require_sound()


def test_an_image_with_two_labels_is_serious_and_so_is_what_training_says(write_scenes: WriteScenes) -> None:
    root = write_scenes(CLASSES)
    shutil.copy(root / "train/cat/0.png", root / "train/dog/contradiction.png")
    found = check_data(root, CheckConfig())
    assert files(found, "two-labels") == [("train/dog/contradiction.png", "train/cat/0.png")]
    refused = found.find("refused")
    assert refused is not None
    assert "same image as" in refused.text
    assert "copies" not in names(found)


def test_broken_and_odd_files(write_scenes: WriteScenes) -> None:
    root = write_scenes({"cat": 14, "dog": 14})
    (root / "cat/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (root / "cat/phone.heic").write_bytes(b"x")
    Image.new("RGB", (48, 48), (90, 90, 90)).save(root / "cat/empty.png")
    Image.fromarray(np.asarray(scene(90)) // 6).save(root / "dog/dark.png")
    scene(91).resize((3, 3)).resize((48, 48), Image.Resampling.BICUBIC).save(root / "dog/blurred.png")
    scene(92).resize((400, 40)).save(root / "dog/long.png")
    scene(93).resize((12, 12)).save(root / "dog/small.png")
    found = check_data(root, CheckConfig())
    assert files(found, "empty-pictures") == [("cat/empty.png",)]
    assert files(found, "dark") == [("dog/dark.png",)]
    assert ("dog/blurred.png",) in files(found, "blurred")
    assert files(found, "long-pictures") == [("dog/long.png",)]
    assert files(found, "small-pictures") == [("dog/small.png",)]
    broken = found.find("broken-files")
    assert broken is not None
    assert broken.examples[0].note.startswith("cat/broken.jpg: ")
    left = found.find("left-out")
    assert left is not None
    assert "phone.heic" in left.examples[0].note
    assert found.understood.parts == {"": 33}


def test_rare_and_uneven_classes(write_scenes: WriteScenes) -> None:
    root = write_scenes({"train/cat": 30, "train/dog": 2, "test/cat": 3})
    found = check_data(root, CheckConfig())
    rare, uneven = found.find("rare-classes"), found.find("uneven-classes")
    assert rare is not None
    assert rare.title == "1 class has fewer than 10 images to learn from"
    assert uneven is not None
    assert "'cat' has 30 images, 15 times as many as the smallest ('dog' 2" in uneven.title
    assert "classes-missing-in-test" in names(found)
    (line,) = describe_balance(load_data(DataConfig(path=str(root))))
    assert "times as many as the smallest ('dog' 1" in line


def test_a_balanced_training_says_nothing(write_scenes: WriteScenes) -> None:
    assert describe_balance(load_data(DataConfig(path=str(write_scenes({"cat": 13, "dog": 13}))))) == []


def test_boxes(tmp_path: Path) -> None:
    values: dict[str, Any] = coco_values({1: "cat", 2: "dog"}, images=4)
    annotations = values["annotations"]
    annotations += [
        {"id": 10, "image_id": 0, "category_id": 1, "bbox": [2, 3, 4, 5]},
        {"id": 11, "image_id": 1, "category_id": 1, "bbox": [2, 3, 5, 5]},
        {"id": 12, "image_id": 2, "category_id": 2, "bbox": [10, 10, 0.2, 6]},
        {"id": 13, "image_id": 3, "category_id": 2, "bbox": [30, 20, 90, 90]},
    ]
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for index in range(4):
            scene(index + 10 * (part == "val")).resize((32, 24)).save(tmp_path / part / f"{index}.png")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"{part}.json").write_text(json.dumps(values))
    assert likely_tasks(str(tmp_path)) == ["detection", "instances"]
    found = check_data(tmp_path, CheckConfig())
    assert (found.task, found.others) == ("detection", ("instances",))
    assert [example.note for example in found.find("objects-twice").examples] == ["cat, 4x5 at 2, 3"] * 2  # type: ignore[union-attr]
    assert found.find("objects-with-two-classes").examples[0].note.startswith("dog and cat")  # type: ignore[union-attr]
    tiny = found.find("tiny-objects")
    assert tiny is not None
    assert tiny.examples[0].box == pytest.approx((10, 10, 10.2, 16))
    wrong = found.find("wrong-annotations")
    assert wrong is not None
    assert "reaches out of the image" in wrong.examples[0].note
    assert found.understood.counted == "objects"
    assert found.understood.classes["cat"]["train"] == 4


def test_masks_scores_and_unlabelled_images(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (tmp_path / "seg" / part / kind).mkdir(parents=True)
        for index in range(count):
            scene(index + 50 * (part == "val")).save(tmp_path / "seg" / part / "images" / f"{index}.png")
            mask = np.zeros((48, 48), np.uint8)
            mask[index:] = 1
            Image.fromarray(mask).save(tmp_path / "seg" / part / "masks" / f"{index}.png")
    found = check_data(tmp_path / "seg", CheckConfig())
    assert found.task == "segmentation"
    assert found.understood.classes == {"0": {"train": 3, "val": 1}, "1": {"train": 4, "val": 2}}

    scored = tmp_path / "scored"
    (scored / "images").mkdir(parents=True)
    for index in range(3):
        scene(index).save(scored / "images" / f"{index}.png")
    shutil.copy(scored / "images/0.png", scored / "images/3.png")
    (scored / "scores.csv").write_text("image,score_1_to_9\n0.png,2\n1.png,3\n2.png,9\n3.png,8\n")
    found = check_data(scored, CheckConfig())
    assert found.task == "aesthetics"
    assert found.understood.notes == ("Scores go from 2 to 9; half of them are above 5.5",)
    assert files(found, "two-labels") == [("images/3.png", "images/0.png")]

    loose = tmp_path / "loose"
    loose.mkdir()
    scene(0).save(loose / "a b é.png")
    found = check_data(loose, CheckConfig())
    assert (found.task, found.understood.num_images) == ("pretraining", 1)


def test_which_task_is_meant(tmp_path: Path, write_scenes: WriteScenes) -> None:
    assert likely_tasks("sample") == ["classification"]
    root = write_scenes(CLASSES)
    assert likely_tasks(str(root)) == ["classification"]
    yolo = tmp_path / "yolo"
    for kind in ("images", "labels"):
        (yolo / kind / "train").mkdir(parents=True)
    scene(0).save(yolo / "images/train/0.png")
    (yolo / "labels/train/0.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (yolo / "data.yaml").write_text("names: [cat]\ntrain: images/train\n")
    assert likely_tasks(str(yolo)) == ["detection"]
    values = coco_values({1: "mouse"})
    values["categories"][0]["keypoints"] = ["nose", "tail"]
    (tmp_path / "pose/train").mkdir(parents=True)
    (tmp_path / "pose/train.json").write_text(json.dumps(values))
    assert likely_tasks(str(tmp_path / "pose"))[0] == "pose"


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images at any depth; give a folder"):
        check_data(tmp_path, CheckConfig())
    with pytest.raises(DataError, match="does not exist"):
        check_data(tmp_path / "none", CheckConfig())
    (tmp_path / "file.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="is not a folder"):
        check_data(tmp_path / "file.jpg", CheckConfig())
    with pytest.raises(UnknownNameError, match="unknown task 'detecting'"):
        CheckConfig(task="detecting")


def test_one_class_and_equal_images_are_told(write_scenes: WriteScenes) -> None:
    root = write_scenes({"train/only": 1})
    for index in range(3):
        shutil.copy(root / "train/only/0.png", root / f"train/only/copy{index}.png")
    found = check_data(root, CheckConfig(task="classification"))
    assert {"refused", "copies"} <= names(found)
    assert found.find("copies").count == 3  # type: ignore[union-attr]
