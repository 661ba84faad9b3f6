"""Numbers, columns and parts of labels.csv as people and tools write them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vitrail.core.errors import DataError
from vitrail.data import DataConfig, DataSplits, ImageSet, load_data

WriteImages = Callable[..., Path]


@pytest.fixture
def photos(write_images: WriteImages) -> Path:
    return write_images({"images": 6, "images/sub": 2})


def load(root: Path, text: str | bytes, names: str = "") -> DataSplits[ImageSet]:
    (root / "labels.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    if names:
        (root / "classes.txt").write_text(names)
    return load_data(DataConfig(path=str(root)))


def rows(*rows: str, columns: str = "image,class_index,split") -> str:
    return "\n".join([columns, *(f"{number:03d}.jpg,{row}" for number, row in enumerate(rows))]) + "\n"


def named(images: ImageSet, data: DataSplits[ImageSet]) -> list[str]:
    return [data.classes[label] for label in images.labels.tolist()]


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_called_as_a_table_and_is_none_is_told(kind: str, write_images: WriteImages) -> None:
    root = write_images({"a": 3, "b": 3})
    table = root / "labels.csv"
    if kind == "folder":
        table.mkdir()
    elif kind == "link":
        table.symlink_to(root / "nowhere.csv")
    else:
        os.mkfifo(table)
    with pytest.raises(
        DataError, match=r"labels.csv is no table: .*; give it another name, or save the table under it"
    ):
        load_data(DataConfig(path=str(root)))


# --- numbers


@pytest.mark.parametrize(
    ("indices", "classes"),
    [
        (("1", "2", "1", "2"), ("1", "2")),
        (("0", "7", "0", "7"), ("0", "7")),
        (("10", "9", "10", "9"), ("9", "10")),
        (("0.0", "1.0", "0", "1"), ("0", "1")),
        (("01", "2", "1", "02"), ("1", "2")),
    ],
)
def test_the_indices_of_training_rows_are_the_classes(
    indices: tuple[str, ...], classes: tuple[str, ...], photos: Path
) -> None:
    parts = ("train", "train", "val", "val")
    data = load(photos, rows(*(f"{index},{part}" for index, part in zip(indices, parts, strict=True))))
    assert data.classes == classes
    assert named(data.train, data) == [str(int(float(index))) for index in indices[:2]]
    assert named(data.val, data) == [str(int(float(index))) for index in indices[2:]]


@pytest.mark.parametrize("column", ["name", "label"])
def test_names_belong_to_their_numbers(column: str, photos: Path) -> None:
    text = rows("1,cat,train", "2,dog,train", "2,,val", "1,cat,val", columns=f"image,class_index,{column},split")
    data = load(photos, text)
    assert data.classes == ("cat", "dog")
    assert named(data.val, data) == ["dog", "cat"]


def test_a_table_to_evaluate_on_keeps_the_numbers_of_the_outputs(photos: Path) -> None:
    data = load(photos, "image,class_index,name\n000.jpg,1,cat\n001.jpg,3,dog\n")
    assert data.classes == ("0", "cat", "2", "dog")


@pytest.mark.parametrize(
    ("text", "names", "words"),
    [
        (
            rows("0,cat", "1,dog", "0,dog", columns="image,class_index,name"),
            "",
            r"line 4: class_index 0 is called 'dog',",
        ),
        (
            rows("0,cat", "0,dog", columns="image,class_index,label"),
            "",
            r"line 3: class_index 0 is called 'dog', but 'cat'",
        ),
        (
            rows("0,dog", "1,cat", columns="image,class_index,name"),
            "cat\ndog\n",
            r"line 2: .* 'dog', but 'cat' in classes.t",
        ),
        (rows("1,train", "2,train"), "cat\ndog\n", r"line 3 has class_index 2, but only 2 classes have names"),
        (rows("1,train", "2,train"), "cat\ndog\nfish\n", r"no row of class_index 0, which classes.txt names 'cat'"),
        (rows("0,train", "1,train"), "cat\n\ndog\n", "classes.txt line 2 is empty"),
        (rows("0,train", "1,train", "2,val"), "", r"no training images \(2 in line 4\)"),
        (rows("cat,train", "dog,train", "cow,test", columns="image,label,split"), "", r"\(cow in line 4\)"),
        (
            rows("cat,train", "dog,train", columns="image,label,split"),
            "cat\ndog\ncat\n",
            r"classes.txt names 'cat' twice",
        ),
        (rows("ca\0t", columns="image,label"), "", "line 2"),
        (rows("0,ca\x1bt", columns="image,class_index,name"), "", "line 2: the name of class_index 0 has control"),
        (rows("0,dog", "1,cat", columns="image,class_index,label"), "cat\ndog\n", "line 2: .* 'dog', but 'cat' in"),
        (rows("0.5,train"), "", r"line 2: class_index '0.5' is not a number from 0 on"),
        (rows("1e3,train"), "", "class_index '1e3' is not a number"),
        (rows("²,train"), "", "class_index '²' is not a number"),
        (rows("9" * 5000 + ",train"), "", "line 2: class_index 9{20} is more than the limit"),
    ],
)
def test_contradictions_are_refused_with_the_line(text: str, names: str, words: str, photos: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        load(photos, text, names)
    assert len(str(caught.value)) < 500


def test_classes_that_differ_in_capitals_are_said(photos: Path) -> None:
    data = load(photos, rows("Dog,train", "dog,train", "cat,train", "cat,val", columns="image,label,split"))
    assert data.classes == ("Dog", "cat", "dog")
    assert data.remarks[0] == "Classes whose names differ in capitals only: Dog, dog"


def test_the_line_is_that_of_the_file(photos: Path) -> None:
    text = 'image,label,note\n\n000.jpg,cat,"two\nlines"\n,,\n001.jpg,,x\n'
    with pytest.raises(DataError, match=r"labels.csv line 6: label '' is not one of"):
        load(photos, text)


def test_one_name_of_the_table_may_be_a_part_of_the_listed_name(photos: Path) -> None:
    text = rows("0,tench", "1,Goldfish", columns="image,class_index,name")
    assert load(photos, text, "tench, Tinca tinca\ngoldfish, Carassius\n").classes[0] == "tench, Tinca tinca"


def test_listed_classes_without_training_images_are_said(photos: Path) -> None:
    data = load(photos, rows("0,train", "2,train", "2,val"), "cat\ndog\nfish\n")
    assert data.classes == ("cat", "dog", "fish")
    assert data.remarks[0] == "Classes without training samples: 1 of 3 (dog)"


# --- parts


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_an_empty_cell_among_splits_is_refused(empty: int, photos: Path) -> None:
    parts = ["train", "train", "val"]
    parts[empty] = ""
    text = rows(*(f"{i % 2},{part}" for i, part in enumerate(parts)))
    with pytest.raises(DataError, match=rf"line {empty + 2}: split is empty, others are not; write train, val or test"):
        load(photos, text)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("Train", "TRAIN", "Valid", "test"), (2, 1, 1)),
        (("training", "train", "dev", "holdout"), (2, 1, 1)),
        (("train", "train", "validation", "testing"), (2, 1, 1)),
    ],
)
def test_parts_have_many_names(words: tuple[str, ...], parts: tuple[int, ...], photos: Path) -> None:
    data = load(photos, rows(*(f"{i % 2},{word}" for i, word in enumerate(words))))
    assert data.test is not None
    assert (len(data.train), len(data.val), len(data.test)) == parts


def test_a_column_without_any_split_is_none(photos: Path) -> None:
    data = load(photos, rows("0,", "1,"))
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (0, 2)


# --- columns and forms

FORMS = {
    "capitals": "Image,Label,Split\n000.jpg,cat,train\n001.jpg,dog,train\n002.jpg,dog,val\n",
    "filename": "filename,class,split\n000.jpg,cat,train\n001.jpg,dog,train\n002.jpg,dog,val\n",
    "spaces": " File Name , Class Name,split\n 000.jpg , cat ,train\n001.jpg,dog,train\n002.jpg,dog,val\n",
    "semicolons": "image;label;split\n000.jpg;cat;train\n001.jpg;dog;train\n002.jpg;dog;val\n",
    "tabs": "image\tlabel\tsplit\n000.jpg\tcat\ttrain\n001.jpg\tdog\ttrain\n002.jpg\tdog\tval\n",
    "bars": "image|label|subset\n000.jpg|cat|train\n001.jpg|dog|train\n002.jpg|dog|val\n",
    "windows": "\ufeffimage,label,split\r\n000.jpg,cat,train\r\n.\\001.jpg,dog,train\r\nimages\\002.jpg,dog,val\r\n",
    "quotes": '"image","label","split"\n"000.jpg","cat","train"\n"001.jpg","dog","train"\n"002.jpg","dog","val"\n',
    "trailing": "image,label,split,\n000.jpg,cat,train,\n001.jpg,dog,train,,\n,,,\n002.jpg,dog,val\n",
    "mac": "image,label,split\r000.jpg,cat,train\r001.jpg,dog,train\r002.jpg,dog,val\r",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_in_many_forms(form: str, encoding: str, photos: Path) -> None:
    data = load(photos, FORMS[form].encode(encoding))
    assert data.classes == ("cat", "dog")
    assert data.train.names == ["images/000.jpg", "images/001.jpg"]
    assert named(data.train, data) == ["cat", "dog"]
    assert data.val.names == ["images/002.jpg"]


@pytest.mark.parametrize(
    "other", ["./000.jpg", "images/000.jpg", "../images/000.jpg", "images\\000.jpg", "sub/../000.jpg"]
)
def test_one_image_under_two_paths_is_listed_twice(other: str, photos: Path) -> None:
    with pytest.raises(DataError, match=r"lists images/000.jpg more than once"):
        load(photos, f"image,label\n000.jpg,cat\n{other},dog\n")


def test_backslashes_lead_into_folders(photos: Path) -> None:
    data = load(photos, "image,label\nsub\\000.jpg,cat\n000.jpg,dog\n")
    assert data.test is not None
    assert data.test.names == ["images/000.jpg", "images/sub/000.jpg"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("img,label", r"has the columns img, label; it needs .*; did you mean 'image' by 'img'\?"),
        ("id,breed", "did you mean 'image' by 'id'"),
        ("imagge,labels", "did you mean 'image' by 'imagge', 'label' by 'labels'"),
        ("image,classindex", "did you mean 'class_index' by 'classindex'"),
        ("image,category", "did you mean 'label' by 'category'"),
        ("image,label,label", "has the column label twice"),
        ("Image,image ,label", "has the column image twice"),
        ("filename,path,label", "has the columns filename and path; call the one that is meant image"),
        ("image,x", r"it needs image and class_index \(or label\)$"),
    ],
)
def test_other_columns_are_asked_about(columns: str, words: str, photos: Path) -> None:
    with pytest.raises(DataError, match=words):
        load(photos, f"{columns}\n000.jpg,cat\n001.jpg,dog\n")


@pytest.mark.parametrize(
    "text",
    ['image,label\n000.jpg,"cat\n001.jpg,dog\n', 'image,label\n000.jpg,"cat\n001.jpg,dog"\n002.jpg,dog\n'],
)
def test_quotes_that_swallow_rows_are_refused(text: str, photos: Path) -> None:
    with pytest.raises(DataError, match=r"labels.csv line 3"):
        load(photos, text)


def test_a_name_with_a_comma_needs_quotes(photos: Path) -> None:
    with pytest.raises(DataError, match=r"line 3 has 3 values for 2 columns; put values in quotes that contain ','"):
        load(photos, "image,label\n000.jpg,cat\n001.jpg,tench, Tinca\n")
    assert load(photos, 'image,label\n000.jpg,cat\n001.jpg,"tench, Tinca"\n').classes == ("cat", "tench, Tinca")


@pytest.mark.parametrize("image", ["a" * 300 + ".jpg", "a\0b.jpg", "/".join(["a" * 200] * 40), "", "."])
def test_names_that_no_file_can_have_are_missing_images(image: str, photos: Path) -> None:
    with pytest.raises(DataError, match=r"labels.csv line 2") as caught:
        load(photos, f"image,label\n{image},cat\n001.jpg,dog\n")
    assert len(str(caught.value)) < 500
