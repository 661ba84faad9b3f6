"""Ids, categories and numbers of COCO's JSON as tools write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from written_data import coco_values

from vitrail.core.errors import DataError
from vitrail.data import BoxSet, DataConfig, DataSplits, load_boxes, load_keypoints, load_masks
from vitrail.data.formats.coco import identifier
from vitrail.data.formats.coco_shapes import unpack

WriteCoco = Callable[..., Path]
IMAGES = {"train": ["0.png", "1.png"], "val": ["0.png", "1.png"]}


def load(root: Path, **options: Any) -> DataSplits[BoxSet]:
    return load_boxes(DataConfig(path=str(root), **options))


def named(data: DataSplits[BoxSet], part: BoxSet) -> list[list[str]]:
    return [[data.classes[label] for label in record.labels] for record in part.records]


@pytest.mark.parametrize(
    ("train", "val", "classes"),
    [
        ({1: "cat", 3: "dog"}, {1: "cat", 2: "dog"}, ("cat", "dog")),
        ({1: "cat", 2: "dog"}, {1: "dog", 2: "cat"}, ("cat", "dog")),
        ({2: "cat", 1: "dog"}, {1: "cat", 2: "dog"}, ("dog", "cat")),
        ({1: "cat", 2: "dog", 3: "fish"}, {1: "dog", 2: "fish"}, ("cat", "dog", "fish")),
        ({1: "cat", 2: "dog"}, {"1": "cat", "2": " dog "}, ("cat", "dog")),
        ({1: "cat", "3": "dog"}, {1: "cat", "3": "dog"}, ("cat", "dog")),
        ({"10": "cat", "9": "dog"}, {"10": "cat", "9": "dog"}, ("dog", "cat")),
        ({1.0: "cat", 2.0: "dog"}, {1: "cat", 2: "dog"}, ("cat", "dog")),
        ({"a": "cat", 7: "dog"}, {"a": "cat", 7: "dog"}, ("dog", "cat")),
    ],
)
def test_parts_that_number_a_class_differently_are_joined_by_name(
    train: dict[Any, str], val: dict[Any, str], classes: tuple[str, ...], write_coco: WriteCoco
) -> None:
    files = {"annotations/train.json": coco_values(train), "annotations/val.json": coco_values(val)}
    data = load(write_coco(files, IMAGES))
    assert data.classes == classes
    assert named(data, data.train) == [[name.strip()] for name in list(train.values())[:2]]
    assert named(data, data.val) == [[name.strip()] for name in list(val.values())[:2]]


def test_joining_is_said(write_coco: WriteCoco) -> None:
    values = {part: coco_values(names) for part, names in (("train", {1: "a", 2: "b"}), ("val", {2: "a", 1: "b"}))}
    data = load(write_coco({f"annotations/{part}.json": one for part, one in values.items()}, IMAGES))
    assert data.remarks == ("Annotation files number classes differently; classes are joined by name",)


def test_annotations_refer_to_ids_in_another_spelling(write_coco: WriteCoco) -> None:
    values = coco_values({"1": "cat", "2": "dog"})
    for image, annotation in zip(values["images"], values["annotations"], strict=True):
        image["id"] = str(image["id"])
        annotation["category_id"] = float(annotation["category_id"])
    data = load(write_coco({"annotations/train.json": values}, IMAGES), val_fraction=1.0)
    assert named(data, data.train) == [["cat"], ["dog"]]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("3", 3), ("-3", -3), (3.0, 3), ("03", "03"), ("3.0", "3.0"), ("0", 0), ("9" * 400, "9" * 400), ("a", "a")],
)
def test_a_number_in_a_text_is_that_number(value: Any, wanted: Any) -> None:
    assert identifier(value) == wanted
    assert type(identifier(value)) is type(wanted)


@pytest.mark.parametrize("value", [True, 1.5, None, [1], {}, float("nan")])
def test_what_is_no_id(value: Any) -> None:
    assert identifier(value) is None


def change(**entry: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: values["categories"].append(entry)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (change(id=5, name="dog"), r"two categories called 'dog' \(ids 2 and 5\)"),
        (change(id=5, name=" cat"), r"two categories called 'cat'"),
        (change(id=2, name="fish"), r"two categories of id 2 \('dog' and 'fish'\)"),
        (change(id="2", name="fish"), r"two categories of id 2"),
        (change(id=5), r"categories\[2\]: it needs an id and a name"),
        (change(id=5, name=None), r"categories\[2\]: it needs an id and a name"),
        (change(id=5, name=["a"]), r"categories\[2\]: it needs an id and a name"),
        (change(id=5, name="a\0b"), r"categories\[2\]: it needs an id and a name, a text without control characters"),
        (change(id=5, name="a\x1b[2Jb"), r"categories\[2\]: it needs an id and a name"),
        (change(name="fish"), r"categories\[2\]: it needs an id and a name"),
        (change(id=True, name="fish"), r"categories\[2\]: its id True is neither a number nor a text"),
    ],
)
def test_categories_that_contradict_each_other_are_refused(
    how: Callable[[dict[str, Any]], None], words: str, write_coco: WriteCoco
) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    how(values)
    with pytest.raises(DataError, match=words) as caught:
        load(write_coco({"annotations/train.json": values}, IMAGES))
    assert "annotations/train.json" in str(caught.value)


def test_a_new_class_under_an_id_of_the_training_part_is_refused(write_coco: WriteCoco) -> None:
    parts = {"train": coco_values({1: "cat", 2: "dog"}), "val": coco_values({1: "cat", 2: "wolf"})}
    with pytest.raises(DataError, match=r"val.json calls category 2 'wolf', but train.json calls it 'dog'"):
        load(write_coco({f"annotations/{part}.json": one for part, one in parts.items()}, IMAGES))


def test_classes_that_only_validation_has_are_said(write_coco: WriteCoco) -> None:
    parts = {"train": coco_values({1: "cat", 2: "dog"}), "val": coco_values({1: "cat", 9: "wolf"})}
    data = load(write_coco({f"annotations/{part}.json": one for part, one in parts.items()}, IMAGES))
    assert data.classes == ("cat", "dog", "wolf")
    assert data.remarks == ("Classes without training samples: 1 of 3 (wolf)",)


def test_the_name_of_a_group_is_no_class(write_coco: WriteCoco) -> None:
    """Roboflow writes the project's name as category 0; COCO's person is its own group."""
    values = coco_values({1: "red", 2: "white"})
    values["categories"] = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "red", "supercategory": "cells"},
        {"id": 2, "name": "white", "supercategory": "cells"},
        {"id": 3, "name": "person", "supercategory": "person"},
    ]
    data = load(write_coco({"annotations/train.json": values}, IMAGES), val_fraction=1.0)
    assert data.classes == ("red", "white", "person")
    assert "Category 'cells' is a group of other categories without objects, and no class" in data.remarks
    values["annotations"][0]["category_id"] = 0
    used = load(write_coco({"annotations/train.json": values}, IMAGES), val_fraction=1.0)
    assert used.classes == ("cells", "red", "white", "person")


def test_a_group_may_have_the_name_of_its_only_class(write_coco: WriteCoco) -> None:
    values = coco_values({1: "pothole"})
    values["categories"] = [
        {"id": 0, "name": "pothole", "supercategory": "none"},
        {"id": 1, "name": "pothole", "supercategory": "pothole"},
    ]
    data = load(write_coco({"annotations/train.json": values}, IMAGES), val_fraction=1.0)
    assert data.classes == ("pothole",)
    assert [record.labels for record in data.train.records] == [(0,), (0,)]
    values["annotations"][0]["category_id"] = 0
    with pytest.raises(DataError, match=r"two categories called 'pothole' \(ids 0 and 1\)"):
        load(write_coco({"annotations/train.json": values}, IMAGES))


@pytest.mark.parametrize("order", [["tail", "nose"], ["nose"], ["nose", "tail", "ear"]])
def test_parts_that_order_keypoints_differently_are_refused(order: list[str], write_coco: WriteCoco) -> None:
    files = {}
    for part, names in (("train", ["nose", "tail"]), ("val", order)):
        values = coco_values({1: "mouse"})
        values["categories"][0]["keypoints"] = names
        for annotation in values["annotations"]:
            annotation["keypoints"] = [3, 4, 2] * len(names)
        files[f"annotations/{part}.json"] = values
    with pytest.raises(DataError, match=r"/annotations/\w+.json category 'mouse' has other keypoints"):
        load_keypoints(DataConfig(path=str(write_coco(files, IMAGES))))


def test_one_file_under_two_image_ids_is_refused(write_coco: WriteCoco) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    values["images"][1]["file_name"] = "./0.png"
    root = write_coco({"annotations/train.json": values}, IMAGES)
    words = r"train/0.png: annotations/train.json has this file as image 0 and as image 1"
    with pytest.raises(DataError, match=words):
        load(root)
    values["images"].append({"id": 2, "file_name": "1.png", "width": 32, "height": 24})
    root = write_coco({"annotations/train.json": values}, IMAGES)
    data = load(root, bad_annotations="skip", val_fraction=1.0)
    assert data.train.names == ["train/1.png"], "the whole image is left out, not half of its objects"
    values["images"][1]["file_name"] = "../train/0.png"
    with pytest.raises(DataError, match=words):
        load(write_coco({"annotations/train.json": values}, IMAGES))


def test_test_images_without_any_annotation_are_left_out_and_said(write_coco: WriteCoco) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    files = {"train/_annotations.coco.json": values, "test/_annotations.coco.json": values | {"annotations": []}}
    data = load(write_coco(files, IMAGES | {"test": ["0.png", "1.png"]}))
    assert data.test is None
    assert "Images of test/_annotations.coco.json, none with an annotation, are left out: 2" in data.remarks


def test_a_part_without_images_is_refused(write_coco: WriteCoco) -> None:
    """Otherwise validation images would be cut from training."""
    values = coco_values({1: "cat", 2: "dog"})
    empty = values | {"images": [], "annotations": []}
    with pytest.raises(DataError, match=r"annotations/val.json lists no images"):
        load(write_coco({"annotations/train.json": values, "annotations/val.json": empty}, IMAGES))


def test_paths_of_the_folder_that_the_data_was_copied_from(write_coco: WriteCoco, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/0.png").write_bytes(b"another image")
    values = coco_values({1: "cat", 2: "dog"})
    values["images"][0]["file_name"] = str(tmp_path / "old/0.png")
    data = load(write_coco({"annotations/train.json": values}, IMAGES), val_fraction=1.0)
    assert data.train.names == ["train/0.png", "train/1.png"]


def test_annotations_need_no_ids(write_coco: WriteCoco) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    for annotation, missing in zip(values["annotations"], (True, False), strict=True):
        annotation.pop("id") if missing else annotation.update(id=None)
    data = load(write_coco({"annotations/train.json": values}, IMAGES), val_fraction=1.0)
    assert named(data, data.train) == [["cat"], ["dog"]]
    values["annotations"][1]["bbox"] = [1, 2, 3]
    with pytest.raises(DataError, match=r"train.json annotations\[1\]: bbox \[1, 2, 3\] is not four numbers"):
        load(write_coco({"annotations/train.json": values}, IMAGES))


def test_objects_with_keypoints_need_no_ids(write_coco: WriteCoco) -> None:
    values = coco_values({1: "mouse"})
    values["categories"][0]["keypoints"] = ["nose"]
    values["annotations"] = [{"image_id": 0, "category_id": 1, "bbox": [2, 3, 4, 5], "keypoints": [3, 4, 2]}] * 2
    data = load_keypoints(
        DataConfig(path=str(write_coco({"annotations/train.json": values}, IMAGES)), val_fraction=1.0)
    )
    assert sorted(data.train.names) == ["train/0.png#[0]", "train/0.png#[1]"]


@pytest.mark.parametrize(
    ("value", "crowd"), [(0, False), (1, True), ("0", False), ("1", True), (1.0, True), (None, False), (True, True)]
)
def test_crowds_in_any_spelling(value: Any, crowd: bool, write_coco: WriteCoco) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    values["annotations"][0]["iscrowd"] = value
    data = load(write_coco({"annotations/train.json": values}, IMAGES), val_fraction=1.0)
    assert [record.crowd for record in data.train.records] == [(crowd,), (False,)]


@pytest.mark.parametrize("value", [2, "no", [0], 0.5])
def test_crowds_that_are_no_number_are_listed(value: Any, write_coco: WriteCoco) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    values["annotations"][0]["iscrowd"] = value
    with pytest.raises(DataError, match=r"annotation 0: its iscrowd .* is neither 0 nor 1"):
        load(write_coco({"annotations/train.json": values}, IMAGES))


# --- hostile values

HUGE = 10**400
DEEP: Any = [[[[[[1]]]]]]


@pytest.mark.parametrize("bbox", [[HUGE, 1, 2, 3], [1, 1, 2, -HUGE], [1e300, 1, 2, 3], ["1", 1, 2, 3], DEEP, {}, True])
def test_boxes_of_odd_values_are_listed(bbox: Any, write_coco: WriteCoco) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    values["annotations"][0]["bbox"] = bbox
    with pytest.raises(DataError, match=r"annotations/train.json annotation 0: bbox .* is not four numbers") as caught:
        load(write_coco({"annotations/train.json": values}, IMAGES))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "entry",
    [
        {"file_name": "a\0b.png"},
        {"file_name": "a" * 300 + ".png"},
        {"file_name": "/".join(["a" * 200] * 40)},
        {"file_name": 5},
        {"file_name": None},
        {"file_name": ""},
        {"file_name": "."},
        {"width": HUGE},
    ],
)
def test_images_of_odd_values_are_listed(entry: dict[str, Any], write_coco: WriteCoco) -> None:
    values = coco_values({1: "cat", 2: "dog"})
    values["images"][0].update(entry)
    with pytest.raises(DataError, match=r"annotations/train.json image 0: ") as caught:
        load(write_coco({"annotations/train.json": values}, IMAGES))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("field", ["keypoints", "skeleton"])
@pytest.mark.parametrize("value", [5, "nose", {"a": 1}, 1.5, True])
def test_skeletons_that_are_no_lists_are_refused(field: str, value: Any, write_coco: WriteCoco) -> None:
    values = coco_values({1: "mouse"})
    values["categories"][0] |= {"keypoints": ["nose", "tail"], field: value}
    with pytest.raises(DataError, match=f"annotations/train.json category 'mouse' has the {field} "):
        load_keypoints(DataConfig(path=str(write_coco({"annotations/train.json": values}, IMAGES))))


@pytest.mark.parametrize("skeleton", [[5], [[1, HUGE]], [["a", "b"]], [None], [[1, 2], DEEP]])
def test_lines_of_skeletons_that_are_no_pairs_are_not_drawn(skeleton: Any, write_coco: WriteCoco) -> None:
    values = coco_values({1: "mouse"})
    values["categories"][0] |= {"keypoints": ["nose", "tail"], "skeleton": skeleton}
    for annotation in values["annotations"]:
        annotation |= {"keypoints": [3, 4, 2, 4, 5, 2], "area": HUGE}
    root = write_coco({"annotations/train.json": values}, IMAGES)
    data = load_keypoints(DataConfig(path=str(root), val_fraction=1.0))
    assert set(data.train.skeleton) <= {(0, 1)}
    assert data.train.records[0].area == 20


@pytest.mark.parametrize("text", ["1" * 100_000, "o" * 100_000, "PP" * 50_000 + "o" * 1000])
def test_packed_run_lengths_without_end_take_no_time(text: str) -> None:
    assert -1 in unpack(text) or sum(unpack(text)) >= 0


def test_an_image_that_cannot_be_read_is_the_reason(write_coco: WriteCoco) -> None:
    """Without a size in the JSON, boxes cannot be checked; they are not what is wrong."""
    values = coco_values({1: "cat", 2: "dog"})
    del values["images"][0]["width"]
    root = write_coco({"annotations/train.json": values}, IMAGES)
    (root / "train/0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"image 0: it has no size, and train/0.png cannot be read"):
        load(root)


def test_panoptic_parts_are_joined_by_name(write_coco: WriteCoco) -> None:
    parts = {}
    for part, names in (("train", {1: "sky", 2: "tree"}), ("val", {2: "sky", "1": "tree"})):
        values = coco_values(names)
        sky, tree = names
        values["annotations"] = [
            {
                "image_id": i,
                "file_name": f"{i}.png",
                "segments_info": [{"id": 7, "category_id": sky}, {"id": "9", "category_id": tree}],
            }
            for i in range(2)
        ]
        parts[f"annotations/panoptic_{part}.json"] = values
    root = write_coco(parts, IMAGES)
    for part in ("train", "val"):
        (root / f"annotations/panoptic_{part}").mkdir()
        for i in range(2):
            mask = Image.new("RGB", (32, 24), (7, 0, 0))
            mask.paste((9, 0, 0), (0, 0, 16, 24))
            mask.save(root / f"annotations/panoptic_{part}/{i}.png")
    data = load_masks(DataConfig(path=str(root)))
    assert data.classes == ("sky", "tree")
    for samples in (data.train, data.val):
        assert samples.target(0)[0, [0, 31]].tolist() == [1, 0]
