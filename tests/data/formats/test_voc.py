"""Pascal VOC's XML as the challenge, LabelImg, CVAT, Roboflow and people on the web lay it out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitrail.core.errors import DataError
from vitrail.data import BoxSet, DataConfig, DataSplits, load_boxes, load_instances

Write = Callable[..., Path]


def xml(*objects: tuple[str, int, int, int, int], image: str = "", size: str = "", extra: str = "") -> str:
    boxes = "".join(
        f"<object><name>{name}</name>{extra}<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax>"
        f"<ymax>{bottom}</ymax></bndbox><part><name>head</name></part></object>"
        for name, left, top, right, bottom in objects
    )
    return f"<annotation><filename>{image}</filename>{size}{boxes}</annotation>"


DOG, CAT = xml(("dog", 2, 3, 12, 13)), xml(("cat", 1, 1, 5, 6), ("dog", 2, 3, 12, 13))


def load(root: Path, **options: Any) -> DataSplits[BoxSet]:
    return load_boxes(DataConfig(path=str(root), **options))


@pytest.mark.parametrize(
    ("texts", "images"),
    [
        (
            {
                "ImageSets/Main/train.txt": "a\n",
                "ImageSets/Main/val.txt": "b\n",
                "ImageSets/Main/trainval.txt": "a\nb\n",
                "ImageSets/Main/dog_train.txt": "a 1\n",
                "Annotations/a.xml": DOG,
                "Annotations/b.xml": CAT,
                "Annotations/c.xml": CAT,
            },
            ["JPEGImages/a.png", "JPEGImages/b.png", "JPEGImages/c.png"],
        ),
        ({"train/a.xml": DOG, "valid/a.xml": CAT}, ["train/a.png", "valid/a.png"]),
        ({"annotations/train/a.xml": DOG, "annotations/val/a.xml": CAT}, ["images/train/a.png", "images/val/a.png"]),
        (
            {"train/annotations/a.xml": DOG, "test/b.xml": CAT, "dev/x.xml": CAT},
            ["train/images/a.png", "dev/images/x.png", "test/b.png"],
        ),
    ],
    ids=["challenge", "Roboflow", "parts inside", "parts outside"],
)
def test_parts_and_pairs(texts: dict[str, str], images: list[str], write_yolo: Write) -> None:
    data = load(write_yolo(texts, images))
    assert data.classes == ("cat", "dog")
    assert (data.train.names, data.val.names) == (images[:1], images[1:2])
    assert data.train.target(0)["boxes"].tolist() == [[2, 3, 12, 13]]
    assert data.train.target(0)["labels"].tolist() == [1]
    assert data.val.target(0)["labels"].tolist() == [0, 1]


@pytest.mark.parametrize("folders", [("images", "annotations"), ("", ""), ("JPEGImages", "Annotations")])
def test_without_parts_they_are_cut(folders: tuple[str, str], write_yolo: Write) -> None:
    names = ("a", "b", "c", "d")
    texts = {
        f"{folders[1]}/{name}.xml".lstrip("/"): '<?xml version="1.0" encoding="utf-8"?>' + CAT for name in names[:3]
    }
    data = load(write_yolo(texts, [f"{folders[0]}/{name}.png".lstrip("/") for name in names]), val_fraction=0.25)
    assert (len(data.train), len(data.val)) == (3, 1)
    assert "Images without an XML file, which count as images without objects: 1" in data.remarks


def test_difficult_objects_are_neither_learnt_nor_measured(write_yolo: Write) -> None:
    texts = {"a.xml": xml(("dog", 2, 3, 12, 13), extra="<difficult>1</difficult>"), "b.xml": DOG}
    data = load(write_yolo(texts, ["a.png", "b.png"]), val_fraction=1.0)
    assert [data.val.target(i)["iscrowd"].tolist() for i in range(2)] == [[True], [False]]


def test_the_challenges_own_files_count_pixels_from_one(write_yolo: Write) -> None:
    own = DOG.replace("<object>", "<source><database>The VOC2007 Database</database></source><object>", 1)
    data = load(write_yolo({"a.xml": own, "b.xml": DOG}, ["a.png", "b.png"]), val_fraction=1.0)
    assert [data.val.target(index)["boxes"].tolist() for index in range(2)] == [[[1, 2, 12, 13]], [[2, 3, 12, 13]]]
    assert any("counted from 1 in files of the challenge's database (1)" in one for one in data.remarks)


def test_whoever_borrows_the_challenges_name_is_taken_at_his_word(write_yolo: Write) -> None:
    own = [text.replace("<object>", "<source><database>The VOC2012 Database</database></source><object>", 1)
           for text in (DOG, xml(("dog", 0, 3, 12, 13)))]  # fmt: skip
    data = load(write_yolo({"a.xml": own[0], "b.xml": own[1]}, ["a.png", "b.png"]), val_fraction=1.0)
    assert data.val.target(0)["boxes"].tolist() == [[2, 3, 12, 13]]
    assert not any("counted from 1" in one for one in data.remarks)


SIZE = "<size><width>{}</width><height>{}</height><depth>3</depth></size>"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (xml(("dog", 2, 3, 40, 13)), r"Annotations/a.xml object 1: its box 2, 3, 38, 10 reaches out of the image"),
        (xml(("dog", 12, 3, 2, 13)), r"Annotations/a.xml object 1: its box has no area"),
        (xml(("dog", 2, 3, 12, 10**400)), r"object 1: its bndbox has no numbers"),
        ("<annotation><object><name>dog</name></object></annotation>", r"object 1: its bndbox has no numbers xmin"),
        (xml(("a\nb", 2, 3, 12, 13)), "or with control characters in it"),
        (xml(("", 2, 3, 12, 13)), "a.xml has an object without a name"),
        (
            xml(("dog", 2, 3, 12, 13), size=SIZE.format(64, 48)),
            r"a.png: Annotations/a.xml says 64x48 pixels, but the image has 32x24",
        ),
        (xml(("dog", 2, 3, 12, 13), image="b.png"), "a.xml is of this image by its name, and of b.png by its contents"),
        ("<annotations/>", r"its first element is <annotations>"),
        ("<annotation>", "a.xml is no XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "a.xml defines entities"),
        ("", "a.xml is no XML"),
    ],
)
def test_wrong_files_are_listed(text: str, words: str, write_yolo: Write) -> None:
    texts = {"Annotations/a.xml": text, "Annotations/b.xml": CAT, "Annotations/A.xml": DOG}
    root = write_yolo(texts, ["JPEGImages/a.png", "JPEGImages/b.png", "JPEGImages/A.png"])
    with pytest.raises(DataError, match=words):
        load(root)


@pytest.mark.parametrize("image", ["gone.png", "C:\\photos\\gone.png", "x" * 400, ""])
@pytest.mark.parametrize("size", ["", SIZE.format(32, 24), SIZE.format(0, 0), SIZE.format("", "x")])
def test_names_and_sizes_that_say_nothing(image: str, size: str, write_yolo: Write) -> None:
    texts = {"a.xml": xml(("dog", 2, 3, 12, 13), image=image, size=size), "b.xml": CAT}
    assert len(load(write_yolo(texts, ["a.png", "b.png"]), val_fraction=1.0).val) == 2


@pytest.mark.parametrize(
    ("texts", "images", "words"),
    [
        (["a.xml"], ["a.png", "a.bmp"], "a.bmp: a.xml is not its own alone"),
        (["annotations/a.xml", "a.xml"], ["images/a.png"], "images/a.png: annotations/a.xml is not its own alone"),
        (["a.xml", "b.xml"], ["a.png"], "b.xml: there is no image for this file"),
        (["x/a.xml", "b.xml"], ["y/a.png", "b.png"], "x/a.xml: there is no image for this file"),
    ],
)
def test_pairs_that_are_not_clear_are_refused(
    texts: list[str], images: list[str], words: str, write_yolo: Write
) -> None:
    with pytest.raises(DataError, match=words):
        load(write_yolo(dict.fromkeys(texts, DOG), images))


@pytest.mark.parametrize("listed", ["x.rf.1\n", "x.rf.1.png\n", "a b/x.rf.1\n", "a b/x.rf.1 1\n", "a b\\x.rf.1.png\n"])
def test_lists_name_images_in_many_forms(listed: str, write_yolo: Write) -> None:
    texts = {"ImageSets/Main/train.txt": "y\n", "ImageSets/Main/val.txt": listed, "y.xml": CAT, "a b/x.rf.1.xml": DOG}
    data = load(write_yolo(texts, ["y.png", "a b/x.rf.1.png"]))
    assert data.val.names == ["a b/x.rf.1.png"]


def test_a_listed_name_of_several_images_is_refused(write_yolo: Write) -> None:
    texts = {"ImageSets/Main/train.txt": "a\n", "ImageSets/Main/val.txt": "y/b\n"}
    texts |= dict.fromkeys(["x/a.xml", "y/a.xml", "x/b.xml", "y/b.xml"], DOG)
    with pytest.raises(DataError, match=r"train.txt 'a': several images are called so"):
        load(write_yolo(texts, ["x/a.png", "y/a.png", "x/b.png", "y/b.png"]))


@pytest.mark.parametrize(
    ("listed", "words"),
    [("", "val.txt lists no images"), ("c\n", r"ImageSets/Main/val.txt 'c': there is no such image")],
)
def test_lists_of_what_is_not_there_are_refused(listed: str, words: str, write_yolo: Write) -> None:
    texts = {"ImageSets/Main/train.txt": "a\nb\n", "ImageSets/Main/val.txt": listed, "a.xml": DOG, "b.xml": CAT}
    with pytest.raises(DataError, match=words):
        load(write_yolo(texts, ["a.png", "b.png"]))


def test_images_in_no_part_beside_others_are_refused(write_yolo: Write) -> None:
    texts = dict.fromkeys(["train/a.xml", "val/b.xml", "other/c.xml"], DOG)
    with pytest.raises(DataError, match=r"1 images in no part, such as other/c.png, and others in train, val or test"):
        load(write_yolo(texts, ["train/a.png", "val/b.png", "other/c.png"]))


def test_an_image_in_two_lists_is_refused(write_yolo: Write) -> None:
    texts = {"ImageSets/Main/train.txt": "a\nb\n", "ImageSets/Main/val.txt": "b\n", "a.xml": DOG, "b.xml": CAT}
    with pytest.raises(DataError, match=r"val.txt lists b.png, which is in the part train too"):
        load(write_yolo(texts, ["a.png", "b.png"]))


def test_masks_of_objects_are_not_in_it(write_yolo: Write) -> None:
    root = write_yolo({"Annotations/a.xml": DOG}, ["JPEGImages/a.png"])
    with pytest.raises(
        DataError, match=r"found Annotations/a.xml: annotations in Pascal VOC's form, which have boxes only"
    ):
        load_instances(DataConfig(path=str(root)))
