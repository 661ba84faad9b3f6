"""Images with any number of classes: what tables and lists mean, and what is told about the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vitrail.core.errors import DataError
from vitrail.core.types import Preprocessing
from vitrail.data import DataConfig, DataSplits, MultiLabelSet, ResolvedAugment, load_labels
from vitrail.data.formats.label_tables import has_several_labels
from vitrail.data.records import MultiLabelImage
from vitrail.data.sets.stratify import cut_by_labels

FIVE = tuple(f"images/{i}.png" for i in range(5))
WANTED = {"0": ("cat", "dog"), "1": ("dog",), "2": (), "3": ("cat", "dog"), "4": ("bird",)}
LISTS = [["cat", "dog"], ["dog"], [], ["cat", "dog"], ["bird"]]

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder of images of one colour each, and texts."""

    def write(texts: Mapping[str, str], images: tuple[str, ...] = FIVE) -> Path:
        for number, name in enumerate(images):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (40 * number, 9, 200)).save(tmp_path / name)
        for name, text in texts.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def load(root: Path, **given: Any) -> DataSplits[MultiLabelSet]:
    return load_labels(DataConfig(path=str(root), **({"val_fraction": 0.4} | given)))


def labels_of(data: DataSplits[MultiLabelSet]) -> dict[str, tuple[str, ...]]:
    return {
        Path(one.name).stem: tuple(data.classes[label] for label in one.labels)
        for part in data.parts.values()
        for one in part.records
    }


def table(values: list[str], head: str = "image,labels") -> str:
    return "\n".join([head, *(f"{i}.png,{value}" for i, value in enumerate(values))]) + "\n"


FORMS = {
    "semicolons": ("labels.csv", table(["cat; dog", "dog", "", "cat;dog", "bird"], "File,Labels")),
    "bars": ("labels.csv", table(["cat|dog", "dog", "", "cat|dog", "bird"])),
    "commas": ("labels.csv", table(['"cat, dog"', "dog", "", '"cat,dog"', "bird"])),
    "lists": ("labels.csv", table(["\"['cat', 'dog']\"", "['dog']", "[]", '"[""cat"",""dog""]"', "['bird']"])),
    "choices": ("a.csv", table(['"{""choices"":[""cat"",""dog""]}"', "dog", "", "cat;dog", "bird"], "image,choice")),
    "long": (
        "labels.csv",
        "file,label\n0.png,cat\n0.png,dog\n1.png,dog\n2.png,\n3.png,dog\n3.png,cat\n4.png,bird\n4.png,bird\n",
    ),
    "columns": (
        "labels.csv",
        (
            "\ufefffile;bird;cat;dog;width\n0.png;0;1;1;8\n.\\1.png;0;0;1.0;8\nimages\\2.png;0;0;0;8\n"
            "3.png;False;True;x;8\n4.png;1;0;no;8\n"
        ),
    ),
    "marks": ("labels.csv", "file,bird,cat,dog\n0.png,,1,1\n1.png,,,1\n2.png,,,\n3.png,,1,1\n4.png,1,,\n"),
    "entries": ("x.json", json.dumps([{"file": f"{i}.png", "tags": own} for i, own in enumerate(LISTS)])),
    "by file": ("x.json", json.dumps({f"{i}.png": own for i, own in enumerate(LISTS)})),
    "by file and class": (
        "x.json",
        json.dumps(
            {f"{i}.png": {name: int(name in own) for name in ("bird", "cat", "dog")} for i, own in enumerate(LISTS)}
        ),
    ),
    "lines": (
        "metadata.jsonl",
        "\n".join(json.dumps({"file_name": f"images/{i}.png", "labels": own}) for i, own in enumerate(LISTS)),
    ),
    "places": (
        "labels.json",
        json.dumps(
            {"classes": ["bird", "cat", "dog"], "labels": {"0": [1, 2], "1": 2, "2": None, "3": [2, 1], "4": [0]}}
        ),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_say_the_same(form: str, make: Make) -> None:
    data = load(make(dict([FORMS[form]])))
    assert data.classes == ("bird", "cat", "dog")
    assert labels_of(data) == WANTED
    assert any("Images without any label: 1 of 5" in one for one in data.remarks)


def test_unknown_labels_are_counted_and_masked(make: Make) -> None:
    lines = ("file,Cat,traffic light,split", "0.png,1,0,train", "1.png,0,-1,train", "2.png,,1,train", "3.png,0,1,val")
    text = "\n".join([*lines, "4.png,1,0,val"])
    data = load(make({"labels.csv": text}))
    assert data.classes == ("Cat", "traffic light")
    assert data.train.targets().tolist() == [[1, 0], [0, -1], [-1, 1]]
    assert any("Unknown labels (-1 or blank): 2 of 10" in one for one in data.remarks)
    assert data.train.class_shares(2).tolist() == [[1, 1], [1, 1]]
    mix = data.train.mix(ResolvedAugment(mixup_alpha=1.0), 2)
    assert mix is not None
    images, soft = mix(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), data.train.targets())
    assert images.dtype == torch.uint8
    assert (soft < 0).sum() >= 2, "what is unknown in one of two images stays unknown"
    assert ((soft == -1) | ((soft >= 0) & (soft <= 1))).all()
    preprocessing = Preprocessing(image_size=(4, 4))
    image, target = data.train.fitted(0, preprocessing)
    assert (image.shape, target.tolist()) == ((3, 4, 4), [1, 0])


def test_names_with_spaces_and_spaces_between_names(make: Make) -> None:
    names = load(make({"labels.csv": table(["traffic light", "cat", "stop sign", "traffic light", "cat"])}))
    assert names.classes == ("cat", "stop sign", "traffic light")
    ambiguous = table(["red light", "green light", "cat", "cat", "red light"])
    with pytest.raises(DataError, match=r"'red light' in labels\.csv line 2 is one class or 2; write ; between"):
        load(make({"labels.csv": ambiguous}))
    data = load(make({"labels.csv": ambiguous, "classes.txt": "cat\nred light\ngreen light\n"}))
    assert data.classes == ("cat", "red light", "green light"), "in the order of the file"
    (make({}) / "classes.txt").unlink()
    many = ["a b", "a c", "b c", "a b c", "c a"]  # more combinations than words
    assert load(make({"labels.csv": table(many)})).classes == ("a", "b", "c")


def test_numbers_are_places_in_a_file_of_names(make: Make) -> None:
    values = json.dumps([{"file": f"{i}.png", "labels": own} for i, own in enumerate([[0, 1], [1], [0], [1], []])])
    data = load(make({"labels.json": values, "classes.txt": "cat\ndog\n"}))
    assert labels_of(data)["0"] == ("cat", "dog")
    with pytest.raises(DataError, match="names 1 classes, and a label is 1"):
        load(make({"classes.txt": "cat\n"}))


PARTS = ("train/a.png", "train/b.png", "valid/c.png", "test/d.png")


@pytest.mark.parametrize(
    ("texts", "images"),
    [
        (
            {
                "train/_classes.csv": "filename, cat, dog\na.png, 1, 0\nb.png, 1, 1\n",
                "valid/_classes.csv": "filename, dog, cat\nc.png, 1, 0\n",
                "test/_classes.csv": "filename, cat, dog\nd.png, 0, 0\n",
            },
            PARTS,
        ),
        ({"labels.csv": "image,labels\ntrain/a.png,cat\ntrain/b.png,cat;dog\nvalid/c.png,dog\ntest/d.png,\n"}, PARTS),
        (
            {
                "train.csv": "image,labels\na.png,cat\nb.png,cat;dog\n",
                "val.csv": "image,labels\nc.png,dog\n",
                "test.csv": "image,labels\nd.png,\n",
            },
            tuple(f"images/{Path(name).name}" for name in PARTS),
        ),
        (
            {"labels.csv": "id,labels,split\na,cat,train\nb,cat;dog,train\nc,dog,valid\nd,,test\n"},
            tuple(Path(name).name for name in PARTS),
        ),
    ],
    ids=["roboflow", "folders", "files", "column"],
)
def test_parts(texts: dict[str, str], images: tuple[str, ...], make: Make) -> None:
    data = load(make(texts, images))
    assert {name: [Path(one).stem for one in part.names] for name, part in data.parts.items()} == {
        "train": ["a", "b"],
        "val": ["c"],
        "test": ["d"],
    }
    assert labels_of(data) == {"a": ("cat",), "b": ("cat", "dog"), "c": ("dog",), "d": ()}
    assert "Classes without a validation image, which have no score: 1 of 2 (cat)" in data.remarks
    assert "Classes that every training image has: 1 of 2 (cat)" in data.remarks


def test_coco_without_boxes(make: Make) -> None:
    values = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(4)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c}
            for n, (i, c) in enumerate([(0, 1), (0, 2), (2, 2), (3, 1), (3, 1)])
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    data = load(make({"annotations.json": json.dumps(values)}, FIVE[:4]))
    assert labels_of(data) == {"0": ("cat", "dog"), "1": (), "2": ("dog",), "3": ("cat",)}
    values["annotations"].append({"id": 9, "image_id": 77, "category_id": 1})
    with pytest.raises(DataError, match="there is no image 77"):
        load(make({"annotations.json": json.dumps(values)}, FIVE[:4]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "has no table of labels; give labels.csv with the columns image and labels"),
        ({"labels.csv": table(["cat,dog"])}, r"labels\.csv line 2 has 3 values for 2 columns; put values in quotes"),
        (
            {"labels.csv": table(['"cat;dog"', '"dog,cat"'])},
            r"by ',' in labels\.csv line 3 and by ';' in labels\.csv line 2",
        ),
        (
            {"labels.csv": "file,cat,dog\n0.png,1,0\n1.png,0,2\n"},
            "column 'dog' has '2' in line 3, and 0 or 1 elsewhere",
        ),
        (
            {"labels.csv": "file,a,b\n0.png,1,0\n0.png,1,1\n"},
            r"images/0\.png: has 'b' in labels\.csv line 3, and not in",
        ),
        ({"labels.csv": table(["a;b"]) + "0.png,a\n"}, r"images/0\.png: has 'b' in labels\.csv line 2, and not in"),
        ({"labels.csv": table(["a;b"]) + "9.png,a\n"}, r"labels\.csv line 3: image '9\.png' is missing"),
        ({"labels.csv": table(["a"]) + "../../x.png,a\n"}, r"image '\.\./\.\./x\.png' is missing"),
        ({"labels.csv": table(["", ""])}, "has 2 images and 0 classes"),
        ({"labels.csv": table(["a", "b"])}, "has no class with two images, which could be split"),
        (
            {"labels.csv": "image,labels,split\n0.png,a,train\n1.png,,val\n"},
            "none of the 1 validation images of .* has a label",
        ),
        ({"labels.csv": "image,labels,split\n0.png,a,train\n0.png,b,val\n"}, r"is in the parts train and val"),
        ({"labels.csv": "image,labels,split\n0.png,a,tarin\n"}, "split 'tarin' is not one of"),
        ({"labels.csv": "image,width\n0.png,8\n"}, "has no class among its columns"),
        ({"labels.csv": "picture,cat\n0.png,1\n"}, "has the columns picture, cat; it has none of the images"),
        ({"labels.csv": "image,class_index\n0.png,1\n"}, "has class_index, one class an image"),
        ({"labels.csv": "image,label,cat\n0.png,1,0\n"}, "column 'label' has 0 and 1 alone; if it is a class"),
        ({"labels.csv": "image,tags,classes\n0.png,1,0\n"}, "has the columns tags and classes; call the one"),
        ({"a.csv": table(["a"]), "b.csv": table(["b"])}, r"several tables \(a\.csv and b\.csv\)"),
        ({"labels.csv": table(["a"]), "train.csv": table(["b"])}, r"labels\.csv and train\.csv; keep one table"),
        (
            {"train.csv": table(["a"]), "val.csv": "file,b\n1.png,1\n"},
            "lists the classes of an image, and val.csv has a",
        ),
        ({"train.csv": "file,a\n0.png,1\n", "val.csv": "file,b\n1.png,1\n"}, r"val\.csv lacks the class 'a'"),
        ({"labels.csv": table(['"a\x1b"'])}, "has control characters"),
        (
            {"labels.csv": table(["cat"]), "classes.txt": "dog\n"},
            "has the label 'cat', which classes.txt does not name",
        ),
        (
            {"labels.json": json.dumps([{"file": "0.png", "labels": [True]}])},
            "label True is neither a text nor a number",
        ),
        ({"labels.json": json.dumps([{"file": "0.png", "labels": ["a"]}, 3])}, "entry 2 is int instead of an object"),
        ({"metadata.jsonl": '{"file": "0.png"\n'}, r"metadata\.jsonl line 1 is not JSON"),
        ({"labels.json": "{"}, "labels.json"),
    ],
)
def test_wrong_data_is_told_in_one_line(texts: dict[str, str], message: str, make: Make) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(make(texts))
    assert "\n" not in str(caught.value)


def test_names_that_several_files_bear_are_not_guessed(make: Make) -> None:
    with pytest.raises(DataError, match=r"image '1\.png' is one of 2 of this name"):
        load(make({"labels.csv": "image,labels\n1.png,cat\n"}, ("a/1.png", "b/1.png")))


def test_wrong_rows_can_be_left_out(make: Make) -> None:
    text = table(["a;b", "b", "a", "a;b"]) + "9.png,a\n"
    data = load(make({"labels.csv": text}), bad_annotations="skip")
    assert len(data.train) + len(data.val) == 4
    assert data.skipped == ("labels.csv line 6: image '9.png' is missing",)


def records(rows: list[tuple[int, ...]]) -> MultiLabelSet:
    every = [MultiLabelImage(name=f"{i:03d}", source=b"", labels=labels) for i, labels in enumerate(rows)]
    return MultiLabelSet(records=every, num_classes=1 + max((label for row in rows for label in row), default=0))


def test_every_class_is_cut_in_its_share() -> None:
    draw = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.6, 0.3, 0.1, 0.03])
    rows = [tuple(torch.nonzero(row)[:, 0].tolist()) for row in torch.rand(300, 4, generator=draw) < shares]
    samples = records([*rows, (0, 4)])
    cut = samples.subset(cut_by_labels(samples, DataConfig(val_fraction=0.2)))
    total, own = samples.class_shares(5)[1], cut.class_shares(5)[1]
    assert own[4] == 0, "the only image of a class is trained on"
    assert ((own - 0.2 * total).abs()[:4] <= 1 + 0.02 * total[:4]).all()
    assert abs(len(cut) - 60) <= 6
    again = cut_by_labels(samples, DataConfig(val_fraction=0.2))
    assert again == cut_by_labels(samples, DataConfig(val_fraction=0.2))
    assert cut_by_labels(samples, DataConfig(val_fraction=1)) == list(range(301))


def test_another_folder_takes_the_classes_of_a_model(make: Make) -> None:
    lists = load(make({"labels.csv": table(["cat;dog", "dog", "", "cat;dog", "cat"])})).align(
        ("ant", "cat", "dog", "eel")
    )
    assert lists.train.target(0)[0] == 0, "a list that does not name it says no"
    columns = load(make({"labels.csv": "file,cat,fish,dog\n0.png,1,0,1\n1.png,0,0,1\n2.png,1,-1,-1\n3.png,1,0,1\n"}))
    found = columns.align(("ant", "cat", "dog"))
    every = torch.cat([found.train.targets(), found.val.targets()])
    assert (every[:, 0] == -1).all(), "a class without a column is unknown"
    assert found.train.num_classes == 3
    assert (every[:, 1:] == -1).sum() == 1
    with pytest.raises(DataError, match="1 classes that the model does not know"):
        columns.align(("ant", "dog"))


@pytest.mark.parametrize(
    ("text", "several"),
    [
        (table(["cat;dog", "dog", "cat", "bird", ""]), True),
        (FORMS["columns"][1], True),
        (table(["cat", "dog", "cat", "bird", "dog"], "image,label"), False),
        (table(['"crane, bird"', '"crane, bird"', "cat", "cat", "cat"], "image,label"), False),
        ("image,class_index,name\n0.png,0,cat\n1.png,1,dog\n", False),
        ("image,score\n0.png,3\n", False),
    ],
)
def test_whether_a_table_clearly_has_several_labels(text: str, several: bool, make: Make) -> None:
    assert has_several_labels(make({"labels.csv": text})) is several
