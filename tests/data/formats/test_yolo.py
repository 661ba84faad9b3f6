"""YOLO's classes are numbers, its parts are what data.yaml says, its labels are found by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitrail.core.errors import DataError
from vitrail.data import BoxSet, DataConfig, DataSplits, load_boxes

WriteYolo = Callable[..., Path]
BOX = "0.5 0.5 0.25 0.5"
LIST = "names: [cat, dog]\n"


def load(root: Path, **options: Any) -> DataSplits[BoxSet]:
    return load_boxes(DataConfig(path=str(root), **options))


def found(data: DataSplits[BoxSet]) -> dict[str, tuple[str, list[str]]]:
    """Image -> its part and its classes."""
    parts = {"train": data.train, "val": data.val} | ({"test": data.test} if data.test is not None else {})
    return {
        record.name: (part, [data.classes[label] for label in record.labels])
        for part, samples in parts.items()
        for record in samples.records
    }


# --- names


@pytest.mark.parametrize(
    ("yaml", "numbers", "classes"),
    [
        ("names: {0: cat, 1: dog}", (0, 1), ("cat", "dog")),
        ("names:\n  1: cat\n  2: dog\n", (1, 2), ("cat", "dog")),
        ("names:\n  0: cat\n  5: dog\n", (0, 5), ("cat", "dog")),
        ("names: {5: dog, 0: cat}\nnc: 6", (0, 5), ("cat", "dog")),
        ("names: {5: dog, 0: cat}\nnc: 2", (0, 5), ("cat", "dog")),
        ("names: {'0': cat, '1': dog}", (0, 1), ("cat", "dog")),
        ("names: {0: cat, '1': dog}", (0, 1), ("cat", "dog")),
        ("names: {10: dog, 9: cat}", (9, 10), ("cat", "dog")),
        ("names: [no, yes]\nnc: 2", (0, 1), ("no", "yes")),
        ("names: [007, 1.10]\nnc: '2'", (0, 1), ("007", "1.10")),
        ("names: [null, 2024-01-01]", (0, 1), ("null", "2024-01-01")),
        ("\ufeffnames: [cat, dog]", (0, 1), ("cat", "dog")),
    ],
)
def test_numbers_and_names_are_those_of_the_table(
    yaml: str, numbers: tuple[int, int], classes: tuple[str, ...], write_yolo: WriteYolo
) -> None:
    texts = {"data.yaml": yaml, "labels/a.txt": f"{numbers[0]} {BOX}", "labels/b.txt": f"{numbers[1]} {BOX}"}
    data = load(write_yolo(texts, ["images/a.png", "images/b.png"]), val_fraction=1.0)
    assert data.classes == classes
    assert found(data) == {"images/a.png": ("val", [classes[0]]), "images/b.png": ("val", [classes[1]])}


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        (
            "names: [cat, dog]\nnc: 3\n",
            r"data.yaml line 2: nc is 3, but there are 2 names of classes \(numbers 0 to 1\)",
        ),
        ("nc: 1\nnames: [cat, dog]\n", "line 1: nc is 1, but"),
        ("nc: two\nnames: [cat, dog]\n", "line 1: nc is two, but"),
        ("names: {0: cat, 0: dog}", "line 1: the key '0' occurs twice"),
        ("names: {0: cat, 00: dog}", "class 0 has two names, 'cat' and 'dog'"),
        ("names: {0: cat, '0': dog}", "class 0 has two names"),
        ("names:\n  0: cat\n  1: cat\n", "calls class 0 and class 1 'cat'"),
        ("names: [cat, cat]", "calls class 0 and class 1 'cat'"),
        ("names: {a: cat}", "line 1: the key 'a' in 'names' is no number of a class"),
        ("names: {-1: cat}", "the key '-1' in 'names' is no number"),
        ("names: {1.5: cat}", "the key '1.5' in 'names' is no number"),
        ("names: {[1]: cat}", "the key '' in 'names' is no number"),
        ("names: [cat, [dog]]", "class 1 has no name without control"),
        ("names: [cat, '']", "class 1 has no name without control"),
        ('names: [cat, "d\\0g"]', "class 1 has no name without control"),
        ("names: []", "has no class names"),
        ("names: cat", "has no class names"),
        ("nc: 2", "has no class names"),
        ("[a, b]", "has no class names"),
        ("names: [a\n", "is not YAML"),
        ("names: [a]\nnames: [b]\n", "line 2: the key 'names' occurs twice"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: *c\n", "class 0 has no name without control"),
        ("[" * 5000, "nested more than 50 deep"),
        ("names:\n  ? " + "9" * 900 + "\n  : cat\n", "line 2: it has a number of 900 digits"),
        ("names:\n  ? " + "9" * 90 + "\n  : cat\n", "is no number of a class"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(yaml: str, words: str, write_yolo: WriteYolo) -> None:
    root = write_yolo({"data.yaml": yaml, "labels/a.txt": f"0 {BOX}"}, ["images/a.png", "images/b.png"])
    with pytest.raises(DataError, match=words) as caught:
        load(root)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_number_that_no_class_has_is_refused_with_the_line(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": "names: {1: cat, 4: dog}", "labels/a.txt": f"1 {BOX}\n0 {BOX}\n", "labels/b.txt": f"4 {BOX}"}
    root = write_yolo(texts, ["images/a.png", "images/b.png"])
    with pytest.raises(DataError, match=r"labels/a.txt line 2: class 0 does not exist; data.yaml has the numbers 1, 4"):
        load(root)


@pytest.mark.parametrize(
    ("lines", "classes"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("cat\r\ndog\r\n\r\n", ("cat", "dog")),
        ("\ufeffcat\ndog", ("cat", "dog")),
        ("1 dog\n0 cat\n", ("cat", "dog")),
        ("0: cat\n1: dog\n", ("cat", "dog")),
        ("1 euro\n2 euro\n", ("1 euro", "2 euro")),
        ("a\u2028b\nc\x85d\n", ("a\u2028b", "c\x85d")),
    ],
)
@pytest.mark.parametrize("file", ["classes.txt", "obj.names", "labels/classes.txt"])
def test_a_line_of_a_list_of_names_is_a_class(
    file: str, lines: str, classes: tuple[str, ...], write_yolo: WriteYolo
) -> None:
    texts = {file: lines.encode(), "labels/a.txt": f"0 {BOX}", "labels/b.txt": f"1 {BOX}"}
    data = load(write_yolo(texts, ["images/a.png", "images/b.png"]), val_fraction=1.0)
    assert data.classes == classes
    assert found(data)["images/b.png"] == ("val", [classes[1]])


def test_the_count_holds_for_a_list_of_names_too(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": "nc: 2\n", "classes.txt": "cat\ndog\ncow\n", "labels/a.txt": f"0 {BOX}"}
    with pytest.raises(DataError, match=r"data.yaml line 1: nc is 2, but there are 3 names"):
        load(write_yolo(texts, ["images/a.png", "images/b.png"]))


def test_lists_of_names_that_contradict_each_other_are_refused(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST, "labels/classes.txt": "dog\ncat\n", "labels/a.txt": f"0 {BOX}"}
    with pytest.raises(DataError, match=r"data.yaml and .*labels/classes.txt name different classes"):
        load(write_yolo(texts, ["images/a.png", "images/b.png"]))


@pytest.mark.parametrize(
    ("first", "second"), [("data.yaml", "dataset.yaml"), ("cells.yaml", "old.yml"), ("data.yaml", "data.yml")]
)
def test_descriptions_that_differ_are_refused(first: str, second: str, write_yolo: WriteYolo) -> None:
    texts = {first: LIST, second: LIST, "labels/a.txt": f"0 {BOX}"}
    images = ["images/a.png", "images/b.png"]
    assert load(write_yolo(texts, images)).classes == ("cat", "dog")
    with pytest.raises(DataError, match=rf"{first} and .*{second} differ; keep the one that is right"):
        load(write_yolo(texts | {second: "names: [dog, cat]"}, images))


@pytest.mark.parametrize("name", ["d\0g", "d\x1b[31mg", "d\x08g", "d\x0cg"])
def test_names_with_control_characters_are_refused(name: str, write_yolo: WriteYolo) -> None:
    texts = {"classes.txt": f"cat\n{name}\n", "labels/a.txt": f"0 {BOX}"}
    with pytest.raises(DataError, match=r"classes.txt line 2 has control characters"):
        load(write_yolo(texts, ["images/a.png", "images/b.png"]))


def test_an_empty_line_would_move_the_classes_after_it(write_yolo: WriteYolo) -> None:
    texts = {"classes.txt": "cat\n\ndog\n", "labels/a.txt": f"0 {BOX}"}
    with pytest.raises(DataError, match=r"classes.txt line 2 is empty"):
        load(write_yolo(texts, ["images/a.png", "images/b.png"]))


# --- parts

PLAIN = {"a/images/1.png": "train", "b/images/2.png": "val", "c/images/3.png": "test"}


@pytest.mark.parametrize(
    "parts",
    [
        "train: a/images\nval: b/images\ntest: c/images\n",
        "train: ./a/images/\nvalid: ./b/images/\ntest: [c/images]\n",
        "train: ../a/images\nval: ../b/images\ntest: ../c/images\n",
        "path: .\ntrain: a/images\nval: b/images\ntest: c/images\n",
        "path: ../datasets/cells\ntrain: a/images\nvalidation: b/images\ntest: c/images\n",
        "path: /content/cells\ntrain: a/images\nval: b/images\ntest: c/images\n",
        "train: /content/cells/a/images\nval: /content/cells/b/images\ntest: /content/cells/c/images\n",
        "train: C:\\cells\\a\\images\nval: C:\\cells\\b\\images\ntest: C:\\cells\\c\\images\n",
        "train: a.txt\nval: lists/b.txt\ntest: c.txt\n",
        "train: a\nval: b\ntest: c\n",
    ],
)
def test_parts_are_those_of_the_description(parts: str, write_yolo: WriteYolo) -> None:
    texts: dict[str, Any] = {"data.yaml": LIST + parts}
    texts |= {
        "a.txt": "./a/images/1.png\n",
        "lists/b.txt": "data/b/images/2.png\r\n",
        "c.txt": "\ufeff/x/c/images/3.png\n",
    }
    texts |= {image.replace("images", "labels").replace("png", "txt"): f"1 {BOX}" for image in PLAIN}
    data = load(write_yolo(texts, PLAIN))
    assert found(data) == {image: (part, ["dog"]) for image, part in PLAIN.items()}


def test_a_list_of_folders_is_one_part(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST + "train:\n  - a/images\n  - c/images\nval: b/images\ntest:\n"}
    texts |= {image.replace("images", "labels").replace("png", "txt"): f"1 {BOX}" for image in PLAIN}
    data = load(write_yolo(texts, PLAIN))
    assert {name: part for name, (part, _) in found(data).items()} == PLAIN | {"c/images/3.png": "train"}


@pytest.mark.parametrize(
    "folders",
    [
        ("images/train2017", "images/val2017", "images/test2017"),
        ("images/Train", "images/Validation", "images/Test"),
        ("train/images", "valid/images", "holdout/images"),
        ("images/training", "images/dev", "images/testing"),
    ],
)
def test_folders_are_called_as_parts(folders: tuple[str, ...], write_yolo: WriteYolo) -> None:
    images = dict(zip((f"{folder}/sub/1.png" for folder in folders), ("train", "val", "test"), strict=True))
    texts = {image.replace("images", "labels").replace("png", "txt"): f"0 {BOX}" for image in images}
    data = load(write_yolo({"data.yaml": LIST} | texts, images))
    assert {name: part for name, (part, _) in found(data).items()} == images


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ("train: gone/images\n", r"no images for 'train' in 'gone/images', which data.yaml or its own name"),
        ("train: a/images\nval: empty\n", "no images for 'val' in empty"),
        ("train: /etc\n", "no images for 'train' in '/etc'"),
        ("train: ../../..\n", r"no images for 'train' in '../../..'"),
        ("train: /content/images\n", "no images for 'train' in '/content/images'"),
        ("train: a/images\nval: a/images\n", r"has a/images/1.png in the parts train and val; give each part its own"),
        ("train: .\nval: b/images\n", "in the parts train and val"),
        ("train: a/images\nval: b/images\nvalid: c/images\n", "line 4: 'valid' is another folder for 'val'"),
        ("train: a.txt\n", r"a.txt 'a/images/9.png': there is no such image"),
        ('train: "a\\0b"\n', "no images for 'train' in"),
        ("train: " + "a" * 3000 + "\n", "no images for 'train' in"),
    ],
)
def test_parts_that_are_not_there_or_overlap_are_refused(parts: str, words: str, write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST + parts, "a.txt": "a/images/1.png\na/images/9.png\n", "empty/labels/1.txt": ""}
    texts |= {image.replace("images", "labels").replace("png", "txt"): f"1 {BOX}" for image in PLAIN}
    with pytest.raises(DataError, match=words) as caught:
        load(write_yolo(texts, PLAIN))
    assert len(str(caught.value)) < 700


def test_a_test_part_that_is_not_there_is_said(write_yolo: WriteYolo) -> None:
    """Roboflow's data.yaml names test images that were not exported."""
    texts = {"data.yaml": LIST + "train: a/images\nval: b/images\ntest: ../test/images\n"}
    texts |= {image.replace("images", "labels").replace("png", "txt"): f"1 {BOX}" for image in PLAIN}
    data = load(write_yolo(texts, PLAIN))
    assert data.test is None
    assert "There are no test images: data.yaml or a folder names '../test/images'" in data.remarks


def test_folders_that_overlap_in_one_part_give_each_image_once(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST + "train: [a, a/images, all.txt]\nval: b/images\n", "all.txt": "a/images/1.png\n"}
    texts |= {image.replace("images", "labels").replace("png", "txt"): f"1 {BOX}" for image in PLAIN}
    assert load(write_yolo(texts, PLAIN)).train.names == ["a/images/1.png"]


def test_a_part_that_the_description_forgets_is_kept(write_yolo: WriteYolo) -> None:
    images = {"train/images/1.png": "train", "valid/images/2.png": "val"}
    texts = {image.replace("images", "labels").replace("png", "txt"): f"0 {BOX}" for image in images}
    data = load(write_yolo({"data.yaml": LIST + "train: train/images\n"} | texts, images))
    assert {name: part for name, (part, _) in found(data).items()} == images


def test_test_images_without_any_labels_are_left_out_and_said(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST, "labels/train/1.txt": f"0 {BOX}", "labels/val/2.txt": f"1 {BOX}"}
    data = load(write_yolo(texts, ["images/train/1.png", "images/val/2.png", "images/test/3.png"]))
    assert data.test is None
    assert "Images of images/test, none with a label file, are left out: 1" in data.remarks


# --- labels


def test_labels_are_found_by_path_and_not_by_name(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST, "labels/x/1.txt": f"0 {BOX}", "labels/y/1.txt": f"1 {BOX}"}
    data = load(write_yolo(texts, ["images/x/1.png", "images/y/1.png"]), val_fraction=1.0)
    assert found(data) == {"images/x/1.png": ("val", ["cat"]), "images/y/1.png": ("val", ["dog"])}


def test_a_bare_name_counts_where_it_is_unique(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST, "labels/1.txt": f"0 {BOX}", "labels/z/2.txt": f"1 {BOX}"}
    data = load(write_yolo(texts, ["images/x/1.png", "images/2.png"]), val_fraction=1.0)
    assert found(data) == {"images/x/1.png": ("val", ["cat"]), "images/2.png": ("val", ["dog"])}


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        (["labels/1.txt"], ["images/x/1.png", "images/y/1.png"]),
        (["labels/x/1.txt", "labels/y/1.txt"], ["images/1.png"]),
        (["labels/x/3.txt"], ["images/1.png"]),
    ],
)
def test_labels_that_no_image_can_be_told_to_have_are_refused(
    labels: list[str], images: list[str], write_yolo: WriteYolo
) -> None:
    texts = dict.fromkeys(labels, f"0 {BOX}") | {"data.yaml": LIST, "labels/good.txt": f"1 {BOX}"}
    root = write_yolo(texts, [*images, "images/good.png"])
    with pytest.raises(DataError, match=rf"{labels[0]}: there is no image for these labels"):
        load(root)
    data = load(root, bad_annotations="skip", val_fraction=1.0)
    assert all(not labels for name, (_, labels) in found(data).items() if name != "images/good.png")


def test_two_images_that_want_one_label_file_are_refused(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST, "labels/a.txt": f"0 {BOX}", "labels/b.txt": f"1 {BOX}"}
    root = write_yolo(texts, ["images/a.png", "images/a.bmp", "images/b.png"])
    with pytest.raises(DataError, match=r"images/a.bmp: wants the label file labels/a.txt, as does images/a.png"):
        load(root)
    assert load(root, bad_annotations="skip", val_fraction=1.0).val.names == ["images/b.png"]
    lists = {"data.yaml": LIST + "train: t.txt\nval: v.txt\n", "t.txt": "images/a.png\n", "v.txt": "images/a.bmp\n"}
    with pytest.raises(DataError, match=r"images/a.bmp: wants the label file labels/a.txt, as does images/a.png"):
        load(write_yolo(lists, []))


def test_images_without_a_label_file_are_background_and_counted(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST, "labels/train/1.txt": f"0 {BOX}", "labels/val/4.txt": f"0 {BOX}"}
    images = [f"images/train/{i}.png" for i in (1, 2, 3)] + ["images/val/4.png"]
    data = load(write_yolo(texts, images))
    assert found(data)["images/train/2.png"] == ("train", [])
    assert "Images of images/train without a label file, which count as images without objects: 2" in data.remarks


def test_a_part_without_any_label_file_is_refused(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST, "label/train/1.txt": f"0 {BOX}"}
    with pytest.raises(DataError, match="images/train: none of its 2 images has a label file"):
        load(write_yolo(texts, ["images/train/1.png", "images/train/2.png"]))


@pytest.mark.parametrize(
    ("line", "box"),
    [
        (f"1 {BOX}".encode(), [12, 6, 20, 18]),
        (b"\xef\xbb\xbf1 " + BOX.encode(), [12, 6, 20, 18]),
        (f"1 {BOX}\r\n\r\n".encode("utf-16"), [12, 6, 20, 18]),
        (f"1.0\t{BOX}".encode(), [12, 6, 20, 18]),
        (b"1 0.25 0.25 0.5 0.25 0.375 0.75", [8, 6, 16, 18]),
        (b"1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75", [8, 6, 16, 18]),
        (f"1 {BOX} ".encode() + b"0.1 " * 9, None),
        (b"1 0.5 0.5 0.25 0.5 0.9", None),
        (b"1 0.5 0.5", None),
        (b"1 0.5 0.5 0.25 " + b"9" * 400, None),
        (b"9" * 400 + f" {BOX}".encode(), None),
        (b"1,0.5,0.5,0.25,0.5", None),
        (b"\xff\xff", None),
    ],
)
def test_forms_of_a_line(line: bytes, box: list[float] | None, write_yolo: WriteYolo) -> None:
    root = write_yolo({"data.yaml": LIST, "labels/a.txt": line}, ["images/a.png", "images/b.png"])
    if box is None:
        with pytest.raises(DataError, match=r"labels/a\.txt"):
            load(root)
        return
    data = load(root, val_fraction=1.0)
    assert data.val.target(0)["boxes"].tolist() == [pytest.approx(box)]
    assert data.val.target(0)["labels"].tolist() == [1]


def test_an_image_whose_labels_cannot_be_read_is_no_background(write_yolo: WriteYolo) -> None:
    root = write_yolo(
        {"data.yaml": LIST, "labels/a.txt": b"\xff", "labels/b.txt": ""}, ["images/a.png", "images/b.png"]
    )
    assert load(root, bad_annotations="skip", val_fraction=1.0).val.names == ["images/b.png"]


def test_lines_with_keypoints_have_their_box_first(write_yolo: WriteYolo) -> None:
    texts = {"data.yaml": LIST + "kpt_shape: [2, 3]\n", "labels/a.txt": f"1 {BOX} 0.1 0.1 2 0.9 0.9 1"}
    data = load(write_yolo(texts, ["images/a.png", "images/b.png"]), val_fraction=1.0)
    assert data.val.target(0)["boxes"].tolist() == [[12, 6, 20, 18]]


def test_a_broken_image_is_listed_and_not_dropped(write_yolo: WriteYolo) -> None:
    root = write_yolo({"data.yaml": LIST, "labels/a.txt": "", "labels/b.txt": f"0 {BOX}"}, ["images/b.png"])
    (root / "images/a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 2 images .* are unusable, .*images/a.png"):
        load(root, max_bad_fraction=0.01)
