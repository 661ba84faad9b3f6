"""Runs that lie among the images are no data."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vitrail.core.errors import DataError
from vitrail.core.files import write_text
from vitrail.data import DataConfig, find_images, load_data, load_pictures
from vitrail.data.formats.own_folders import holds_own_folders, is_own_folder

WriteImages = Callable[..., Path]

OLD_RUN = Path(__file__).parents[2] / "runs" / "run-0.1.0"


def add_run(folder: Path, picture: Path) -> None:
    """A run with pictures, as training, quantisation and explanation leave them."""
    shutil.copytree(OLD_RUN, folder)
    for name in ("figures", "explanation"):
        (folder / name).mkdir()
        shutil.copy(picture, folder / name / "picture.jpg")


@pytest.mark.parametrize(
    "place", ["runs/train", "runs/compare/mixers/vit/seed-0", "mine", "cat/runs/a", "b/quantized/c"]
)
def test_runs_below_the_data_folder_are_no_data(place: str, write_images: WriteImages) -> None:
    root = write_images({"cat": 3, "dog": 3})
    before = load_data(DataConfig(path=str(root)))
    add_run(root / place, root / "cat" / "000.jpg")
    after = load_data(DataConfig(path=str(root)))
    assert after.classes == ("cat", "dog")
    assert after.fingerprint == before.fingerprint
    assert after.remarks == (
        f"Left out of the data, since Vitrail wrote it: what it has in {place.partition('/')[0]}.",
    )
    pictures = load_pictures(DataConfig(path=str(root)), labelled=False, crops=True)
    assert len(pictures.train) + len(pictures.val) == 6
    assert len(find_images(root)) == 6
    assert len(find_images(root / place)) == 2, "pictures of a run that is asked for"


def test_runs_beside_parts_are_no_data(write_images: WriteImages) -> None:
    root = write_images({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 1})
    for place in ("runs/a", "train/runs/b"):
        add_run(root / place, root / "train" / "cat" / "000.jpg")
    data = load_data(DataConfig(path=str(root)))
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (4, 2)


def test_comparisons_and_fronts_are_no_data(write_images: WriteImages) -> None:
    root = write_images({"cat": 2, "dog": 2, "runs/compare/mixers": 1, "pareto": 1})
    write_text(
        root / "runs/compare/mixers/comparison.json", '{"question": "", "baseline": "", "training": {}, "score": 1}'
    )
    write_text(root / "pareto/pareto.csv", "device,run,model,file,runtime,variant\n")
    assert load_data(DataConfig(path=str(root))).classes == ("cat", "dog")


@pytest.mark.parametrize("text", ["", "{}", '{"model": "T34", "task": "count"}', "\xff", "[" * 100_000])
def test_a_foreign_file_of_that_name_hides_no_images(text: str, write_images: WriteImages) -> None:
    root = write_images({"cat": 2, "dog": 2})
    write_text(root / "dog" / "run.json", text)
    assert not is_own_folder(root / "dog")
    assert not holds_own_folders(root)
    data = load_data(DataConfig(path=str(root)))
    assert (data.classes, data.remarks) == (("cat", "dog"), ())


def test_a_run_that_begins_is_no_class(write_images: WriteImages) -> None:
    root = write_images({"cat": 2, "dog": 2, "runs/train": 0})
    (root / "runs/train/.lock").touch()
    (root / "dog/.lock").touch()
    assert load_data(DataConfig(path=str(root))).classes == ("cat", "dog")


def test_an_empty_class_is_still_told(write_images: WriteImages) -> None:
    root = write_images({"cat": 2, "dog": 2, "runs": 0})
    with pytest.raises(DataError, match=r"no images \(runs\)"):
        load_data(DataConfig(path=str(root)))
