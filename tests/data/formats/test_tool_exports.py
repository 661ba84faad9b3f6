"""Exports of labelling tools are read as they are, or the file that was found is named with what it lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from written_data import coco_values, write_plain_images

from vitrail.core.errors import DataError, VitrailError
from vitrail.data import BoxSet, DataConfig, DataSplits, load_boxes, load_instances, load_keypoints, load_masks

Write = Callable[..., Path]
BOX = "0.5 0.5 0.25 0.5"
YAML = "names: [cat, dog]\nnc: 2\n"


def load(root: Path, **options: Any) -> DataSplits[BoxSet]:
    return load_boxes(DataConfig(path=str(root), **options))


def images(data: DataSplits[BoxSet]) -> dict[str, list[str]]:
    parts = {"train": data.train, "val": data.val} | ({"test": data.test} if data.test is not None else {})
    return {part: samples.names for part, samples in parts.items()}


def renamed(values: dict[str, Any], form: str) -> dict[str, Any]:
    for entry in values["images"]:
        entry["file_name"] = form.format(entry["file_name"])
    return values


# --- COCO

PLACES = {
    "COCO": ({"annotations/instances_{}2017.json": "{}"}, "{}2017"),
    "COCO in images/": ({"annotations/instances_{}2017.json": "{}"}, "images/{}2017"),
    "plain": ({"annotations/{}.json": "{}"}, "{}"),
    "plain in images/": ({"annotations/{}.json": "{}"}, "images/{}"),
    "images in parts": ({"annotations/{}.json": "{}"}, "{}/images"),
    "CVAT": ({"annotations/instances_{}.json": "{}"}, "images/{}"),
    "own names": ({"annotations/{}_cells_v2.json": "{}"}, "{}"),
    "one folder": ({"annotations/my_{}set.json": "{0}/{{}}"}, "images"),
    "beside": ({"{}.json": "{}"}, "{}"),
    "Roboflow": ({"{}/_annotations.coco.json": "{}"}, "{}"),
    "FiftyOne": ({"{}/labels.json": "{}"}, "{}/data"),
    "CVAT a part": ({"{}/annotations/instances_default.json": "{}"}, "{}/images/default"),
    "from the root": ({"annotations/{}.json": "{0}/{{}}"}, "{}"),
    "another machine": ({"annotations/{}.json": "/srv/photos/{{}}"}, "{}"),
    "Windows": ({"annotations/{}.json": "C:\\data\\{{}}"}, "{}"),
    "Windows below": ({"annotations/{}.json": "sub\\{{}}"}, "{}"),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("words", [("train", "val", "test"), ("Train", "valid", "holdout")])
def test_coco_wherever_tools_put_it(name: str, words: tuple[str, str, str], tmp_path: Path) -> None:
    ((json_form, file_form),), folder_form = PLACES[name][0].items(), PLACES[name][1]
    want: dict[str, list[str]] = {}
    for part, word in zip(("train", "val", "test"), words, strict=True):
        folder, form = folder_form.format(word), file_form.format(word) if "{{" in file_form else file_form
        below = {"one folder": f"{word}/", "Windows below": "sub/"}.get(name, "")
        want[part] = [f"{folder}/{below}{i}.png" for i in range(2)]
        write_plain_images(tmp_path, want[part])
        file = tmp_path / json_form.format(word)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(renamed(coco_values({1: "cat", 2: "dog"}), form)))
    data = load(tmp_path)
    assert images(data) == want
    assert data.classes == ("cat", "dog")
    assert [record.labels for record in data.val.records] == [(0,), (1,)]


ALONE = {
    "CVAT": ("annotations/instances_default.json", "images/default/{}", "{}"),
    "CVAT, older": ("annotations/instances_default.json", "images/{}", "{}"),
    "CVAT, folders": ("annotations/instances_default.json", "images/default/a/{}", "a/{}"),
    "Label Studio": ("result.json", "images/{}", "images/{}"),
    "Label Studio on Windows": ("result.json", "images/{}", "images\\{}"),
    "Label Studio, own names": ("result_coco.json", "images/{}", "../../label-studio/media/upload/1/{}"),
    "FiftyOne": ("labels.json", "data/{}", "{}"),
    "Roboflow, one folder": ("_annotations.coco.json", "{}", "{}"),
    "makesense": ("labels_cells_2026-01-01.json", "photos/../{}", "{}"),
}


@pytest.mark.parametrize("name", ALONE)
def test_coco_without_parts_is_cut(name: str, write_coco: Write) -> None:
    file, place, form = ALONE[name]
    (root := write_coco({file: renamed(coco_values({0: "cat", 1: "dog"}, 4), form)}, {}) / "photos").mkdir()
    root = root.parent
    write_plain_images(root, [place.format(f"{i}.png") for i in range(4)])
    (root / "meta.json").write_text('{"version": 1}')
    data = load(root, val_fraction=0.25)
    assert (len(data.train), len(data.val), data.test) == (3, 1, None)
    assert sorted(data.train.names + data.val.names) == [
        place.replace("photos/../", "").format(f"{i}.png") for i in range(4)
    ]


def test_boxes_in_a_second_form_are_told(write_coco: Write) -> None:
    images = {"train": ["0.png", "1.png"]}
    root = write_coco({"annotations/train.json": coco_values({1: "cat", 2: "dog"})}, images)
    told = "Boxes are read from the COCO JSON; the YOLO text files beside it are not read"
    assert told not in load(root, val_fraction=0.5).remarks
    (root / "data.yaml").write_text("names: [dog, cat]\n")
    data = load(root, val_fraction=0.5)
    assert (data.classes, data.remarks[0]) == (("cat", "dog"), told)


def test_coco_of_other_kinds_beside_it_is_left_alone(write_coco: Write) -> None:
    """The whole download of COCO: captions, keypoints, and test images whose annotations are secret."""
    values = coco_values({1: "cat", 2: "dog"})
    secret = values | {"annotations": []}
    files = {
        f"annotations/{kind}_{part}2017.json": values
        for kind in ("instances", "person_keypoints")
        for part in ("train", "val")
    }
    files |= {"annotations/captions_train2017.json": {"images": [], "annotations": []}}
    files |= {"annotations/image_info_test2017.json": secret, "annotations/image_info_test-dev2017.json": secret}
    names = ["0.png", "1.png"]
    data = load(write_coco(files, {"train2017": names, "val2017": names, "test2017": names}))
    assert images(data) == {part: [f"{part}2017/{name}" for name in names] for part in ("train", "val")}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ("annotations/instances_train2014.json", "annotations/instances_train2017.json"),
            "several annotations of one part",
        ),
        (
            ("annotations/train.json", "annotations/training.json"),
            r"annotations/train.json and annotations/training.json",
        ),
        (
            ("annotations/instances_default.json", "annotations/instances_train.json"),
            "instances_default.json names no part",
        ),
        (("result.json", "labels.json"), r"several annotations of one part \(labels.json and result.json\)"),
        (("train/_annotations.coco.json", "train/_annotations.coco (1).json"), "several annotations of one part"),
    ],
)
def test_files_that_may_both_be_meant_are_refused(files: tuple[str, ...], words: str, write_coco: Write) -> None:
    root = write_coco(dict.fromkeys(files, coco_values({1: "cat"})), {"train": ["0.png", "1.png"]})
    with pytest.raises(DataError, match=words):
        load(root)


def test_keypoints_and_masks_of_tools(write_coco: Write) -> None:
    values = coco_values({1: "mouse"})
    values["categories"][0]["keypoints"] = ["nose"]
    for annotation in values["annotations"]:
        annotation |= {"keypoints": [3, 4, 2], "segmentation": [[2, 3, 8, 3, 8, 9]]}
    root = write_coco({"train/_annotations.coco.json": values}, {"train": ["0.png", "1.png"]})
    config = DataConfig(path=str(root), val_fraction=1.0)
    assert len(load_keypoints(config).train) == len(load_instances(config).train) == 2
    values["categories"].append({"id": 2, "name": "cage"})
    write_coco({"train/_annotations.coco.json": values}, {})
    assert load_masks(config).classes == ("mouse", "cage")


# --- YOLO

CVAT = {
    "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = b/\n",
    "obj.names": "cat\ndog\n",
    "train.txt": "data/obj_train_data/sub/0.png\ndata/obj_train_data/1.png\n",
    "valid.txt": "data/obj_valid_data/2.png\n",
    "obj_train_data/sub/0.txt": f"1 {BOX}",
    "obj_train_data/1.txt": "",
    "obj_valid_data/2.txt": f"0 {BOX}",
}
CVAT_IMAGES = ["obj_train_data/sub/0.png", "obj_train_data/1.png", "obj_valid_data/2.png"]


def test_cvat_yolo(write_yolo: Write) -> None:
    data = load(write_yolo(CVAT, CVAT_IMAGES))
    assert data.classes == ("cat", "dog")
    assert images(data) == {
        "train": ["obj_train_data/1.png", "obj_train_data/sub/0.png"],
        "val": ["obj_valid_data/2.png"],
    }
    assert [record.labels for record in data.train.records] == [(), (1,)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"obj.names": None}, r"obj.data needs obj.names beside it"),
        ({"obj.names": "cat\ndog\ncow\n"}, "says classes = 2, but obj.names has 3"),
        ({"train.txt": None}, r"no images for 'train' in 'data/train.txt', which obj.data"),
        (
            {"train.txt": "data/obj_train_data/7.png\n"},
            r"train.txt 'data/obj_train_data/7.png': there is no such image",
        ),
    ],
)
def test_cvat_yolo_that_lacks_something(change: dict[str, str | None], words: str, write_yolo: Write) -> None:
    texts = {name: text for name, text in (CVAT | change).items() if text is not None}
    with pytest.raises(DataError, match=words):
        load(write_yolo(texts, CVAT_IMAGES))


EXPORTS = {
    "Roboflow YOLO": (
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n" + YAML,
            "README.txt": "x",
        },
        ["train/images/a_jpg.rf.0.png", "valid/images/b.png", "test/images/c.png"],
        "labels",
    ),
    "CVAT Ultralytics": (
        {
            "data.yaml": "path: .\ntrain: train.txt\nval: val.txt\n" + YAML,
            "train.txt": "data/images/train/a.png",
            "val.txt": "data/images/val/b.png",
        },
        ["images/train/a.png", "images/val/b.png"],
        "labels",
    ),
    "Roboflow Darknet": (
        {"train/_darknet.labels": "cat\ndog", "valid/_darknet.labels": "cat\ndog"},
        ["train/a.png", "valid/b.png"],
        "",
    ),
    "ultralytics coco": (
        {
            "coco.yaml": YAML + "path: ../datasets/coco\ntrain: train2017.txt\nval: val2017.txt\n",
            "train2017.txt": "./images/train2017/a.png",
            "val2017.txt": "./images/val2017/b.png",
        },
        ["images/train2017/a.png", "images/val2017/b.png"],
        "labels",
    ),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_yolo_of_tools(name: str, write_yolo: Write) -> None:
    texts, places, labels = EXPORTS[name]
    own = {place.replace("images", labels or "images")[:-4] + ".txt": f"1 {BOX}" for place in places}
    data = load(write_yolo(texts | own, places))
    assert data.classes == ("cat", "dog")
    assert images(data) == dict(zip(("train", "val", "test"), ([place] for place in places), strict=False))
    assert data.train.records[0].labels == (1,)


@pytest.mark.parametrize(
    ("texts", "folder", "labels"),
    [
        ({"classes.txt": "cat\ndog\n", "notes.json": '{"categories": [], "info": {}}'}, "images", "labels"),
        ({"classes.txt": "cat\ndog\n"}, "", ""),
        ({"labels/classes.txt": "cat\ndog\n"}, "images", "labels"),
        ({"my cells.yaml": YAML, "docker.yaml": "{{ x }}: ["}, "images", "labels"),
    ],
    ids=["Label Studio", "LabelImg in one folder", "LabelImg", "named otherwise"],
)
def test_yolo_without_parts_is_cut(texts: dict[str, str], folder: str, labels: str, write_yolo: Write) -> None:
    names = [str(i) for i in range(4)]
    own = {f"{labels}/{name}.txt".lstrip("/"): f"1 {BOX}" for name in names}
    data = load(write_yolo(texts | own, [f"{folder}/{name}.png".lstrip("/") for name in names]), val_fraction=0.25)
    assert (len(data.train), len(data.val)) == (3, 1)
    assert data.classes == ("cat", "dog")


def test_yolo_counts_where_the_json_has_no_training_part(write_yolo: Write) -> None:
    """ultralytics' COCO has labels of both parts, and the JSON of validation for its measure."""
    texts = {"data.yaml": YAML, "annotations/instances_val2017.json": json.dumps(coco_values({1: "a", 2: "b"}))}
    places = [f"images/{part}2017/{i}.png" for part in ("train", "val") for i in range(2)]
    own = {place.replace("images", "labels").replace("png", "txt"): f"1 {BOX}" for place in places}
    data = load(write_yolo(texts | own, places))
    assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 2, 2)


# --- what is not read


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (
            "annotations.xml",
            "<annotations/>",
            r"found annotations.xml: annotations in CVAT's own form; export it as COCO",
        ),
        ("ds0/ann/a.png.json", "{}", r"found ds0/ann/a.png.json: annotations of Supervisely; export it as COCO JSON"),
        (
            "export.json",
            '[{"data": {"image": "x"}, "annotations": []}]',
            r"export.json, which is Label Studio's own JSON",
        ),
        ("a.json", '{"shapes": [], "imagePath": "a.png"}', r"found a.json, which is a file of LabelMe"),
        ("via.json", '{"_via_img_metadata": {}}', r"found via.json, which is a project of the VGG annotator"),
        (
            "labels.json",
            '{"images": [], "annotations": []}',
            r"labels.json, which is no COCO JSON: it lacks .* categories",
        ),
        ("annotations/train.json", "5", r"train.json is no COCO JSON: it needs the lists"),
        (
            "annotations/boxes.json",
            '{"images": []}',
            r"boxes.json, which is no COCO JSON: it lacks .* annotations, categories",
        ),
        ("train/_annotations.csv", "filename,width\n", r"train/_annotations.csv: annotations of Roboflow as a table"),
        ("train/metadata.jsonl", "{}", r"found train/metadata.jsonl: a table of Hugging Face's datasets"),
        ("cells.tfrecord", "x", r"found cells.tfrecord: annotations of TensorFlow"),
        ("labels.json", "{", "found labels.json, which cannot be read as JSON"),
        ("_annotations.coco.json", "{", "_annotations.coco.json is not JSON"),
    ],
)
def test_files_that_are_not_read_are_named(file: str, text: str, words: str, write_yolo: Write) -> None:
    root = write_yolo({file: text}, ["images/a.png"])
    for read in (load_boxes, load_instances, load_keypoints):
        with pytest.raises(VitrailError, match=words):
            read(DataConfig(path=str(root)))


def test_masks_count_before_a_json_that_lies_elsewhere(write_coco: Write) -> None:
    root = write_coco({"coco.json": coco_values({1: "cat", 2: "dog"})}, {"images": ["0.png", "1.png"]})
    (root / "masks").mkdir()
    for i in range(2):
        mask = Image.new("L", (32, 24), 3)
        mask.putpixel((0, 0), 4)
        mask.save(root / f"masks/{i}.png")
    assert load_masks(DataConfig(path=str(root))).classes == ("3", "4")
