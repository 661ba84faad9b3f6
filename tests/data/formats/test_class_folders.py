"""Folders as well-known downloads and people's own trees have them: expected parts and classes are written by hand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from vitrail.core.errors import DataError
from vitrail.data import DataConfig, DataSplits, load_data
from vitrail.data.formats.layout import part_of

WriteImages = Callable[..., Path]


def load(root: Path, **options: object) -> DataSplits:
    return load_data(DataConfig(path=str(root), **options))


def contents(data: DataSplits) -> dict[str, dict[str, int]]:
    """Part -> class -> number of images."""
    return {
        name: dict(sorted(Counter(data.classes[label] for label in part.labels.tolist()).items()))
        for name, part in data.parts.items()
    }


NAMELESS = "is an image by its contents, but not by its name; give it the suffix of its kind, such as .jpg"

TWO = {"sea": 2, "ice": 2}


def tree(folders: str, counts: dict[str, int] = TWO) -> dict[str, int]:
    return {f"{folder}/{name}": count for folder in folders.split() for name, count in counts.items()}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (tree("seg_train/seg_train seg_test/seg_test") | {"seg_pred/seg_pred": 3}, {"train", "val", "test"}),
        (tree("training_set test_set"), {"train", "val", "test"}),
        (tree("train dev"), {"train", "val"}),
        (tree("Training Validation holdout"), {"train", "val", "test"}),
        (tree("train2017 val2017"), {"train", "val"}),
        (tree("imgs-train imgs-valid imgs-test"), {"train", "val", "test"}),
        (tree("TrainImages TestImages"), {"train", "val", "test"}),
        (tree("trainset", {"sea": 2, "ice": 1}) | {"trainset/ice/more": 1, "testset/sea": 1}, {"train", "val", "test"}),
        (tree("train test_photos"), {"train", "val", "test"}),
        (tree("asl_train/asl_train") | {"asl_test/asl_test": 3}, {"train", "val"}),
        (tree("archive/photos/train archive/photos/test"), {"train", "val", "test"}),
        (tree("photos/photos"), {"train", "val"}),
        (tree("train/data"), {"train", "val"}),
        ({"sea/train": 2, "ice/train": 2, "sea/test": 1}, {"train", "val", "test"}),
        (tree("train", {"sea/images": 2, "ice/images": 2}) | {"val/sea": 1}, {"train", "val"}),
        (tree("train") | {"val/sea/day": 1, "val/sea/night": 1}, {"train", "val"}),
    ],
)
def test_parts_that_folders_name_are_kept(
    counts: dict[str, int], expected: set[str], write_images: WriteImages
) -> None:
    data = load(write_images(counts))
    found = contents(data)
    assert data.classes == ("ice", "sea")
    assert found.keys() == expected
    assert found["train"].keys() == {"ice", "sea"}
    named = {name: part for part, samples in data.parts.items() for name in samples.names}
    for name, part in named.items():
        said = {part_of(folder) for folder in Path(name).parts} - {""}
        assert said <= {part} or (part == "val" and "val" not in said and "val" not in "".join(counts))
    if any("pred" in one or "asl_test" in one for one in counts):
        assert len([text for text in data.skipped if "belongs to no part, class or annotation" in text]) == 3


@pytest.mark.parametrize(
    ("counts", "classes"),
    [
        ({"bus": 2, "car": 2, "train": 2}, ("bus", "car", "train")),
        ({"bullet_train": 2, "test_tube": 2, "dev_board": 2}, ("bullet_train", "dev_board", "test_tube")),
        ({"toy_train/a": 2, "toy_train/b": 2, "bus": 2}, ("bus", "toy_train")),
        ({"negative": 2, "test": 2}, ("negative", "test")),
        ({"cat/images": 2, "dog/images": 2}, ("cat", "dog")),
        ({"cat/2023": 2, "cat/2024": 2, "dog/2024": 2}, ("cat", "dog")),
        ({"images": 2, "drawings": 2}, ("drawings", "images")),
    ],
)
def test_words_in_the_names_of_classes_make_no_parts(
    counts: dict[str, int], classes: tuple[str, ...], write_images: WriteImages
) -> None:
    data = load(write_images(counts))
    assert data.classes == classes
    assert (data.test, data.skipped) == (None, ())


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"images": 2, "masks": 2}, "images/ and masks/, which look like .* pass --task segmentation"),
        ({"Images": 2, "labels": 0}, "Images/ and labels/, which look like .* --task detection or --task segmentation"),
        ({"train/images": 2, "train/masks": 2, "val/images": 1, "val/masks": 1}, "pass --task segmentation"),
        ({"JPEGImages": 2, "SegmentationClass": 2, "Annotations": 0}, "pass --task segmentation"),
        (tree("2023 2024"), r"folders 2023, 2024 .* has the same folders ice, sea"),
        ({"bottle/good": 1, "bottle/ground_truth": 1, "cable/good": 1, "cable/ground_truth": 1}, "the same folders"),
        (tree("train/a train/b"), "the same folders ice, sea"),
        (TWO | tree("water"), r"water has folders of the same names as those beside it \(ice, sea\)"),
        ({"train": 2, "test": 2}, "train/, test/, which were read as parts|test/, train/, which were read as parts"),
        ({"seg_train": 2, "seg_test": 2}, "which were read as parts of the data"),
        (tree("val test"), "no training images; add a folder train/"),
        ({"cat/train": 1, "cat/test": 1, "dog/test": 1}, r"no training images \(dog\)"),
        (tree("train val dev"), r"more than one folder for 'val' \(dev, val\)"),
        ({"cat": 1, "dog": 1, "photos/cat": 1, "train.csv/x": 0}, r"1 class folders .* no images \(train.csv\)"),
    ],
)
def test_folders_whose_meaning_is_not_clear_are_refused(
    counts: dict[str, int], words: str, write_images: WriteImages
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        load(write_images(counts))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("counts", "classes", "number"),
    [
        ({"cat": 3}, ("cat",), 3),
        ({"cat": 2, "dog": 0}, ("cat",), 2),
        ({"test/cat": 2, "test/dog": 0}, ("cat",), 2),
        ({"train/cat": 1, "val/dog": 1}, ("cat", "dog"), 2),
        ({"val/cat": 2, "test/dog": 1}, ("cat", "dog"), 3),
        ({"train/cat": 3, "train/dog": 2, "val/cat": 2, "test/dog": 1}, ("cat", "dog"), 8),
    ],
)
def test_data_to_evaluate_on_may_have_any_classes_and_parts(
    counts: dict[str, int], classes: tuple[str, ...], number: int, write_images: WriteImages
) -> None:
    data = load(write_images(counts), val_fraction=1.0)
    assert data.classes == classes
    assert len(data.choose("all")) == number == len(set(data.choose("all").names))
    assert sum(text.endswith("is a class folder without images") for text in data.skipped) == list(
        counts.values()
    ).count(0)


def test_parts_are_chosen_by_name(write_images: WriteImages) -> None:
    root = write_images({"train/cat": 3, "train/dog": 2, "val/cat": 2})
    data = load(root, val_fraction=1.0)
    assert (len(data.choose("train")), len(data.choose("val"))) == (5, 2)
    with pytest.raises(DataError, match=r"has no part 'test'; it has train \(5 images\), val \(2 images\)"):
        data.choose("test")


def test_what_lies_beside_the_data_is_listed(write_images: WriteImages) -> None:
    counts = {
        "": 1,
        "train": 1,
        "train/cat": 4,
        "train/dog": 4,
        "val/cat": 1,
        "extra/dog": 25,
        ".hidden": 1,
        "train/owl": 0,
    }
    root = write_images(counts)
    for name in ("train/dog/a.HEIC", "train/dog/b.tga", "val/c.dng"):
        (root / name).write_bytes(b"")
    (root / "train/dog/IMG_1").write_bytes((root / "000.jpg").read_bytes())
    (root / "train/dog/.DS_Store").write_bytes(b"")
    (root / "train/dog/._000.jpg").write_bytes(b"")
    (root / "train/dog/notes.txt").write_text("no image")
    data = load(root)
    assert data.skipped == (
        ".hidden/000.jpg: is hidden",
        "000.jpg: belongs to no part, class or annotation",
        "extra/dog: 25 files, such as 000.jpg: each belongs to no part, class or annotation",
        "train/000.jpg: belongs to no part, class or annotation",
        f"train/dog/IMG_1: {NAMELESS}",
        "train/dog/a.HEIC: is a .heic file, a kind that is not read; convert it to JPEG or PNG",
        "train/dog/b.tga: is a .tga file, a kind that is not read; convert it to JPEG or PNG",
        "train/owl: is a class folder without images",
        "val/c.dng: is a .dng file, a kind that is not read; convert it to JPEG or PNG",
    )
    assert data.remarks[-1].startswith("Left out: 33 (.hidden/000.jpg: is hidden; 000.jpg: ")
    assert data.remarks[-1].endswith("; and 6 more)")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"),
        ("Train2017", "train"),
        ("seg_train", "train"),
        ("validation_set", "val"),
        ("hold-out", "test"),
        ("TestData", "test"),
        ("TRAIN", "train"),
        ("train_test", ""),
        ("trains", ""),
        ("trainset", "train"),
        ("val-imgs", "val"),
        ("training_data", "train"),
        ("testament", ""),
        ("latest", ""),
        ("device", ""),
        ("", ""),
    ],
)
def test_parts_are_whole_words(name: str, part: str) -> None:
    assert part_of(name) == part


def test_a_folder_whose_name_resembles_a_part_is_none_if_it_has_other_folders(write_images: WriteImages) -> None:
    data = load(write_images(tree("train") | {"test_results/plots": 2}))
    assert contents(data).keys() == {"train", "val"}
    assert [text.split(":")[0] for text in data.skipped] == ["test_results/plots/000.jpg", "test_results/plots/001.jpg"]


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_a_table_of_one_class_is_enough_to_evaluate_on(fraction: float, write_images: WriteImages) -> None:
    root = write_images({"": 2})
    (root / "labels.csv").write_text("image,label\n000.jpg,cat\n001.jpg,cat\n")
    if fraction < 1:
        with pytest.raises(DataError, match=r"only one class \(cat\)"):
            load(root, val_fraction=fraction)
    else:
        assert load(root, val_fraction=fraction).classes == ("cat",)


def test_links_lead_nowhere_without_end(write_images: WriteImages) -> None:
    root = write_images({"cat": 2, "dog": 2})
    (root / ".hidden").symlink_to("/")
    rooms = [root / "cat" / f"room{i}" for i in range(12)]
    for room in rooms:
        room.mkdir()
        for other in rooms:
            (room / f"to {other.name}").symlink_to(other)
    assert load(root).skipped == ()
    (root / "wrapped").mkdir()
    (root / "wrapped" / "wrapped").symlink_to(root / "wrapped")
    with pytest.raises(DataError, match="has no images"):
        load(root / "wrapped")


def test_names_that_are_no_text_are_written_as_such(write_images: WriteImages) -> None:
    root = write_images({"cat": 2, "dog": 2})
    Path(os.fsdecode(os.fsencode(root / "cat") + b"/\xe9t\xe9.heic")).touch()
    (root / "dog" / ".IMG_1.jpg.icloud").touch()
    heic, hidden = load(root).skipped
    assert heic.startswith("cat/\\xe9t\\xe9.heic: is a .heic file")
    assert hidden == "dog/.IMG_1.jpg.icloud: is hidden"
