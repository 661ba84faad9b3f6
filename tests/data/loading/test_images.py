from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vitrail.core.errors import DataError
from vitrail.data import DataConfig, DataSplits, ImageSet, decode_image, load_data

WriteImages = Callable[..., Path]


def load(root: Path, **options: object) -> DataSplits:
    return load_data(DataConfig(path=str(root), **options))


def contents(images: ImageSet) -> dict[str, int]:
    return dict(zip(images.names, images.labels.tolist(), strict=True))


# --- the built-in sample


def test_sample_is_complete_and_decodes() -> None:
    data = load_data(DataConfig())
    assert data.classes == tuple("0123456789")
    assert (len(data.train), len(data.val), len(data.test)) == (760, 140, 300)
    assert data.test.labels.bincount().tolist() == [30] * 10
    assert data.val.labels.bincount().tolist() == [14] * 10
    image, label = data.test[299]
    assert (image.shape, image.dtype, label) == ((3, 48, 48), torch.uint8, 9)
    assert not set(data.train.names) & set(data.val.names)
    assert data.held_out is data.test


def test_sample_split_follows_the_seed_and_the_fingerprint_does_not() -> None:
    first, again, other = (load_data(DataConfig(seed=seed)) for seed in (1, 1, 2))
    assert first.val.names == again.val.names != other.val.names
    assert first.fingerprint == again.fingerprint == other.fingerprint


def test_sample_is_not_to_be_mirrored_but_folders_are(write_images: WriteImages) -> None:
    assert not load_data(DataConfig()).train.mirrored_alike
    assert load(write_images({"a": 2, "b": 2})).train.mirrored_alike


def test_classes_of_a_side_are_not_mirrored(write_images: WriteImages) -> None:
    data = load(write_images({"TurnLeft": 2, "TurnRight": 2, "stop": 2}))
    assert not data.train.mirrored_alike
    remark = "Images are mirrored only with --hflip: a mirror image may belong to another class (TurnLeft, TurnRight)"
    assert data.remarks == (remark,)


# --- the split


def test_class_folders_are_split_with_every_class_on_both_sides(write_images: WriteImages) -> None:
    data = load(write_images({"cat": 10, "dog": 20}), val_fraction=0.2)
    assert data.classes == ("cat", "dog")
    assert data.train.labels.bincount().tolist() == [8, 16]
    assert data.val.labels.bincount().tolist() == [2, 4]
    assert data.test is None
    assert data.held_out is data.val
    assert all(name.startswith(data.classes[label]) for name, label in contents(data.train).items())


def test_val_fraction_one_holds_everything_out(write_images: WriteImages) -> None:
    data = load(write_images({"cat": 1, "dog": 2}), val_fraction=1.0)
    assert (len(data.train), len(data.val)) == (0, 3)


def test_a_class_with_one_image_cannot_be_split(write_images: WriteImages) -> None:
    with pytest.raises(DataError, match=r"only one image.*dog/000\.jpg"):
        load(write_images({"cat": 3, "dog": 1}))


# --- layouts


def test_given_parts_are_kept(write_images: WriteImages) -> None:
    root = write_images({"train/cat": 3, "train/dog": 1, "valid/cat": 2, "test/dog": 2})
    data = load(root)
    assert (len(data.train), len(data.val), len(data.test)) == (4, 2, 2)
    assert data.classes == ("cat", "dog")
    assert set(data.test.labels.tolist()) == {1}
    assert all(name.startswith("valid/cat/") for name in data.val.names)


def test_val_is_cut_from_train_where_it_is_not_given(write_images: WriteImages) -> None:
    data = load(write_images({"train/cat": 10, "train/dog": 10, "test/dog": 2}), val_fraction=0.2)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 2)


def test_images_are_found_at_any_depth_and_hidden_ones_are_counted(write_images: WriteImages) -> None:
    root = write_images({"cat": 2, "dog/puppies": 2, ".cache/cat": 2, "cat/.thumbnails": 1, "__MACOSX/cat": 1})
    (root / "cat" / "._000.jpg").write_bytes(b"\0\5\x16\7")
    (root / "cat" / "notes.txt").write_text("no image")
    data = load(root, val_fraction=1.0)
    assert data.val.names == ["cat/000.jpg", "cat/001.jpg", "dog/puppies/000.jpg", "dog/puppies/001.jpg"]
    hidden = [".cache/cat/000.jpg", ".cache/cat/001.jpg", "__MACOSX/cat/000.jpg", "cat/.thumbnails/000.jpg"]
    assert data.skipped == tuple(f"{name}: is hidden" for name in hidden)


def test_links_are_followed_and_circles_are_not(write_images: WriteImages, tmp_path: Path) -> None:
    outside = write_images({"bird": 2, "more": 2}, root=tmp_path / "outside")
    root = write_images({"cat": 2, "dog": 2})
    (root / "bird").symlink_to(outside / "bird")
    (outside / "bird" / "home").symlink_to(root)
    (root / "cat" / "out.jpg").symlink_to(outside / "more" / "000.jpg")
    (root / "cat" / "in.jpg").symlink_to(root / "cat" / "000.jpg")
    (root / "cat" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "cat" / "self.jpg").symlink_to(root / "cat" / "self.jpg")
    (root / "cat" / "above").symlink_to(tmp_path)
    (root / "dog" / "deep").symlink_to(outside / "more")
    (root / "dog" / "again").symlink_to(root / "dog")
    (root / "dog" / "pipe.png").symlink_to("/dev/zero")
    data = load(root, val_fraction=1.0)
    assert data.classes == ("bird", "cat", "dog")
    assert data.val.names == [
        *("bird/000.jpg", "bird/001.jpg", "cat/000.jpg", "cat/001.jpg", "cat/in.jpg", "cat/out.jpg"),
        *("dog/000.jpg", "dog/001.jpg", "dog/deep/000.jpg", "dog/deep/001.jpg"),
    ]
    assert data.skipped == (
        "cat/above: is a link that leads back to a folder above it",
        "cat/gone.jpg: is a link that leads to nothing",
        "cat/self.jpg: is a link that leads to nothing",
        "dog/pipe.png: is no regular file",
    )
    assert torch.equal(data.val[5][0], decode_image(outside / "more" / "000.jpg"))


def test_table_with_class_index_is_one_test_set_with_the_given_numbers(write_images: WriteImages) -> None:
    root = write_images({"images": 3})
    (root / "labels.csv").write_text(
        "image,class_index,wnid,name\n002.jpg,4,n1,crane\n000.jpg,0,n0,cat\n001.jpg,4,n1,crane\n"
    )
    data = load(root)
    assert data.classes == ("cat", "1", "2", "3", "crane")
    assert (len(data.train), len(data.val)) == (0, 0)
    assert contents(data.test) == {"images/000.jpg": 0, "images/001.jpg": 4, "images/002.jpg": 4}
    assert data.held_out is data.test


def test_table_takes_class_names_from_a_file_and_keeps_them_distinct(write_images: WriteImages) -> None:
    root = write_images({"images": 2})
    (root / "labels.csv").write_text("image,class_index\n000.jpg,0\n001.jpg,2\n")
    (root / "synset_words.txt").write_text("n02012849 crane\nn01440764 tench, Tinca tinca\nn03126707 crane\n")
    assert load(root).classes == ("crane (0)", "tench, Tinca tinca", "crane (2)")


def test_table_with_labels_and_split(write_images: WriteImages) -> None:
    root = write_images({"": 6})
    rows = [f"{i:03d}.jpg,{'dog' if i % 2 else 'cat'},{'val' if i > 3 else 'train'}" for i in range(6)]
    (root / "labels.csv").write_text("\ufeffimage,label,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    data = load(root)
    assert data.classes == ("cat", "dog")
    assert contents(data.val) == {"004.jpg": 0, "005.jpg": 1}
    assert len(data.train) == 4
    assert data.test is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("image,class_index\n", "has no rows"),
        ("file,class\na,b\n", "has the columns file, class; it needs image and class_index"),
        ("image,class_index\n000.jpg,-1\n", "line 2: class_index '-1' is not a number"),
        ("image,class_index\n000.jpg,99999999999\n", "more than the limit of 999999"),
        ("image,class_index\n000.jpg,0\n", "only one class"),
        ("image,class_index\n000.jpg,1\n000.jpg,0\n", "lists images/000.jpg more than once"),
        ("image,class_index\ngone.jpg,1\n", "'gone.jpg', which is neither"),
        ("image,class_index\n../../outside.jpg,1\n", "outside of"),
        ("image,class_index,split\n000.jpg,1,fold3\n", "split 'fold3' is not one of"),
        ("image,label\n000.jpg,\n001.jpg,x\n", "line 2: label '' is not one of"),
    ],
)
def test_a_bad_table_is_an_error_that_says_where(text: str, words: str, write_images: WriteImages) -> None:
    root = write_images({"images": 2})
    shutil.copy(root / "images" / "000.jpg", root.parent / "outside.jpg")
    (root / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        load(root)


def test_class_names_that_are_not_utf8(write_images: WriteImages) -> None:
    root = write_images({"images": 2})
    (root / "labels.csv").write_text("image,class_index\n000.jpg,0\n001.jpg,1\n")
    (root / "classes.txt").write_bytes(b"\xe9t\xe9\nhiver\n")
    with pytest.raises(DataError, match=r"classes\.txt cannot be read"):
        load(root)


# --- bad input


def test_missing_and_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; give a folder"):
        load(tmp_path / "gone")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is not a folder; unpack"):
        load(tmp_path / "photos.zip")


def test_empty_folder_says_what_is_there_instead(tmp_path: Path, write_images: WriteImages) -> None:
    root = tmp_path / "photos"
    (root / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="has no images"):
        load(root)
    (root / "cat" / "a.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found 1 \.heic"):
        load(root)
    shutil.rmtree(root)
    with pytest.raises(DataError, match="has images but no class folders"):
        load(write_images({"": 2}))


def test_folders_for_parts_without_images(tmp_path: Path) -> None:
    (tmp_path / "photos" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="has no images"):
        load(tmp_path / "photos")


def test_links_that_lead_to_nothing_are_said(tmp_path: Path, write_images: WriteImages) -> None:
    outside = write_images({"cat": 2}, root=tmp_path / "outside")
    root = tmp_path / "photos"
    root.mkdir()
    (root / "cat").symlink_to(outside / "cat")
    (root / "dog").symlink_to(outside / "gone")
    (root / "stray.jpg").symlink_to(outside / "gone.jpg")
    with pytest.raises(DataError, match=r"only one class \(cat\)"):
        load(root)
    (root / "cat").unlink()
    with pytest.raises(DataError, match=r"found .*stray\.jpg, which is a link that leads to nothing"):
        load(root)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"cat": 3}, r"only one class \(cat\)"),
        ({"train/cat": 3}, r"only one class \(cat\)"),
        ({"cat": 3, "dog": 3, "bird": 0}, r"1 class folders .* no images \(bird\)"),
        ({"train/cat": 2, "train/dog": 2, "val/bird": 1}, r"no training images \(bird\)"),
        ({"train/cat": 2, "train/dog": 2, "val/dog": 1, "valid/dog": 1}, "more than one folder for 'val'"),
    ],
)
def test_folders_that_cannot_be_learnt_from(counts: dict[str, int], words: str, write_images: WriteImages) -> None:
    with pytest.raises(DataError, match=words) as caught:
        load(write_images(counts))
    assert "\n" not in str(caught.value)


def test_undecodable_files_are_listed_and_skipped_up_to_the_limit(write_images: WriteImages) -> None:
    root = write_images({"cat": 10, "dog": 10})
    (root / "cat" / "005.jpg").write_bytes(b"")
    data = (root / "dog" / "003.jpg").read_bytes()
    (root / "dog" / "003.jpg").write_bytes(data[: len(data) // 2])
    splits = load(root, max_bad_fraction=0.1)
    assert len(splits.train) + len(splits.val) == 18
    assert [text.split(":")[0] for text in splits.skipped] == ["cat/005.jpg", "dog/003.jpg"]
    assert "empty" in splits.skipped[0]
    with pytest.raises(DataError, match=r"2 of 20 images .* more than the allowed 9.0%: cat/005.jpg .*empty"):
        load(root, max_bad_fraction=0.09)
    with pytest.raises(DataError, match=r"allowed 0\.0%"):
        load(root, max_bad_fraction=0)
    assert load(root).skipped == splits.skipped, "three are always too few to refuse data for"
    for number in (7, 8):
        (root / "cat" / f"{number:03d}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"4 of 20 images .* more than the allowed 1\.0% or 3 files"):
        load(root)


def test_a_class_whose_images_are_all_broken_is_an_error(write_images: WriteImages) -> None:
    root = write_images({"cat": 10, "dog": 1})
    (root / "dog" / "000.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable training image \(dog\)"):
        load(root, max_bad_fraction=0.5)


def test_max_pixels_reaches_the_check(write_images: WriteImages) -> None:
    with pytest.raises(DataError, match="max_pixels=10"):
        load(write_images({"cat": 2, "dog": 2}), max_pixels=10)


# --- fingerprint, alignment


def test_fingerprint_follows_names_labels_and_contents_not_the_place(write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 3, "dog": 3})
    first = load(root).fingerprint
    copy = tmp_path / "elsewhere"
    shutil.copytree(root, copy)
    assert load(copy, seed=5).fingerprint == first
    (copy / "cat" / "000.jpg").rename(copy / "cat" / "z.jpg")
    assert load(copy).fingerprint != first


def test_align_moves_labels_to_the_models_classes(write_images: WriteImages) -> None:
    data = load(write_images({"cat": 2, "dog": 2}), val_fraction=1.0)
    aligned = data.align(["dog", "bird", "cat"])
    assert aligned.classes == ("dog", "bird", "cat")
    assert contents(aligned.val) == {"cat/000.jpg": 2, "cat/001.jpg": 2, "dog/000.jpg": 0, "dog/001.jpg": 0}
    assert data.align(("cat", "dog")) is data
    with pytest.raises(DataError, match=r"1 classes that the model does not know \(dog\)"):
        data.align(["cat", "bird"])
