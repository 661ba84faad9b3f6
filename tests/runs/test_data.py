"""The data of a run after the folder has changed: the parts are those of the training."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import read_json
from vitrail.data import DataSplits, ImageSet, LabelledImage, load_data
from vitrail.runs.data import load_run_data
from vitrail.runs.evaluate import evaluate_run
from vitrail.runs.parts import (
    Changes,
    KnownImage,
    annotated_otherwise,
    known_images,
    parts_as_trained,
    read_parts,
    write_parts,
)
from vitrail.runs.run import Run
from vitrail.runs.train import train
from vitrail.training import TrainConfig


@pytest.fixture(scope="module")
def trained(config: TrainConfig, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run, and ``photos/`` beside it, which it was trained on."""
    folder = tmp_path_factory.mktemp("trained")
    photos = shutil.copytree(images, folder / "photos")
    data = replace(config.data, path=str(photos))
    return train(replace(config, data=data, epochs=1), run=folder / "run", progress=False)


@pytest.fixture
def moved(trained: Run, tmp_path: Path) -> tuple[Run, Path]:
    """A copy of both."""
    photos = shutil.copytree(trained.folder.parent / "photos", tmp_path / "photos")
    run = Run(shutil.copytree(trained.folder, tmp_path / "run"))
    values = read_json(run.description)["training"]
    run.update(training=values | {"data": values["data"] | {"path": str(photos)}})
    return run, photos


def names(data: DataSplits[ImageSet]) -> tuple[list[str], list[str]]:
    return data.train.names, data.val.names


def before(run: Run, part: str) -> list[str]:
    return [one.name for one in read_parts(run.images) if one.part == part]


def test_unchanged_data_has_the_parts_that_training_cut(
    moved: tuple[Run, Path], config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    run, photos = moved
    cut = load_data(replace(config.data, path=str(photos)))
    assert names(load_run_data(run)) == names(cut) == (before(run, "train"), before(run, "val"))
    assert (len(cut.train), len(cut.val), load_run_data(run).remarks) == (24, 8, cut.remarks)
    assert not caplog.records


def test_training_images_never_become_held_out(moved: tuple[Run, Path], caplog: pytest.LogCaptureFixture) -> None:
    """New images would change the cut; here the old validation images remain, without the one that is gone."""
    run, photos = moved
    gone, kept = before(run, "val")[0], before(run, "val")[1:]
    (photos / gone).unlink()
    (photos / before(run, "train")[0]).unlink()
    for number in range(30):
        shutil.copy(photos / kept[0], photos / "red" / f"new{number}.png")
        with (photos / "red" / f"new{number}.png").open("ab") as file:
            file.write(bytes([number]))  # other contents, the same picture
    data = load_run_data(run)
    assert names(data) == (before(run, "train")[1:], kept)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert tuple(told) == data.remarks[-2:]
    assert told[0].startswith(f"gone from {photos} since the training (1 train, 1 val): 2 images, ")
    assert told[1].startswith(f"new in {photos} since the training, and left out: 30 images, red/new0.png, ")
    values = evaluate_run(run)
    assert values["reports"]["torch-float"]["num_images"] == len(kept)
    assert set(told) <= set(values["data"]["remarks"])


def rename(photos: Path, first: str, second: str) -> None:
    (photos / first).rename(photos / f"red/{Path(second).name}")


def swap(photos: Path, first: str, second: str) -> None:
    """As when files are numbered anew."""
    contents = (photos / first).read_bytes(), (photos / second).read_bytes()
    (photos / second).write_bytes(contents[0])
    (photos / first).write_bytes(contents[1])


def test_images_that_moved_are_known_by_their_contents(moved: tuple[Run, Path]) -> None:
    run, photos = moved
    held, seen = (next(name for name in before(run, part) if name.startswith("red")) for part in ("val", "train"))
    rename(photos, held, "was_held_out.png")
    rename(photos, seen, "was_trained_on.png")
    data = load_run_data(run)
    assert "red/was_held_out.png" in data.val.names
    assert "red/was_trained_on.png" in data.train.names
    assert (len(data.train), len(data.val)) == (24, 8)
    assert "known by their contents: 2 images" in data.remarks[-1]


def test_names_that_changed_places_change_no_parts(moved: tuple[Run, Path]) -> None:
    run, photos = moved
    held, seen = (next(name for name in before(run, part) if name.startswith("red")) for part in ("val", "train"))
    swap(photos, held, seen)
    data = load_run_data(run)
    assert held in data.train.names
    assert seen in data.val.names


def test_a_copy_of_a_training_image_is_not_held_out(moved: tuple[Run, Path]) -> None:
    run, photos = moved
    shutil.copy(photos / before(run, "train")[0], photos / "green" / "copy.png")
    shutil.copy(photos / before(run, "val")[0], photos / "green" / "another.png")
    assert names(load_run_data(run)) == (before(run, "train"), before(run, "val"))


@pytest.mark.parametrize("part", ["train", "val"])
def test_other_contents_under_a_kept_name_are_refused(moved: tuple[Run, Path], images: Path, part: str) -> None:
    run, photos = moved
    name = before(run, part)[0]
    contents = (photos / name).read_bytes()
    (photos / name).write_bytes(contents + b"\0")
    with pytest.raises(DataError, match=rf"with other contents in .*: 1 image, {name}; restore .* --data {photos}"):
        evaluate_run(run)


def test_a_class_that_came_later_is_new(moved: tuple[Run, Path], images: Path) -> None:
    run, photos = moved
    shutil.copytree(images / "red", photos / "blue")
    for path in (photos / "blue").iterdir():
        path.write_bytes(path.read_bytes() + b"\0")
    data = load_run_data(run)
    assert data.classes == run.read().classes == ("green", "red")
    assert names(data) == (before(run, "train"), before(run, "val"))
    labels = [int(name.startswith("red")) for name in data.val.names]
    assert data.val.labels.tolist() == labels


def test_nothing_left_to_hold_out_is_refused(moved: tuple[Run, Path]) -> None:
    run, photos = moved
    for name in before(run, "val"):
        (photos / name).unlink()
    with pytest.raises(DataError, match=rf"none of the images that {run.folder} held out is left in {photos}"):
        load_run_data(run)


def test_training_images_elsewhere_are_counted(moved: tuple[Run, Path], tmp_path: Path) -> None:
    run, photos = moved
    photos.rename(tmp_path / "moved")
    data = load_run_data(run, other=str(tmp_path / "moved"))
    assert len(data.held_out) == 32
    assert data.remarks[-1].startswith(f"24 images of {tmp_path / 'moved'} are training images of {run.folder}")
    run.images.unlink()
    assert load_run_data(run, other=str(tmp_path / "moved")).remarks == data.remarks


def test_a_run_without_the_list_says_that_it_cannot_know(
    moved: tuple[Run, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run, photos = moved
    expected = before(run, "train"), before(run, "val")
    run.images.unlink()
    assert names(load_run_data(run)) == expected
    assert not caplog.records
    (photos / expected[1][0]).unlink()
    assert "training images may be among the held-out ones" in load_run_data(run).remarks[-1]
    assert len(caplog.records) == 1


def test_the_list_reads_as_it_was_written(tmp_path: Path) -> None:
    odd = ['a,"b".png', "two\nlines.png", "b\udce9.png", "日本.png"]
    images = [KnownImage(part="val", name=name, image="0" * 16, target="") for name in odd]
    write_parts(tmp_path / "images.csv", images)
    assert read_parts(tmp_path / "images.csv") == images


ROW = "train,a.png,00,00\n"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "no column 'part'"),
        ("part,name,image\n", "no column 'target'"),
        (f"part,name,image,target\n{ROW}dev,b.png,00,00\n", "line 3"),
        (f"part,name,image,target\n{ROW}{ROW}", "line 3"),
        ("part,name,image,target\ntrain\n", "line 2"),
        (f"part,name,image,target\ntrain,{'a' * 200_000},0,0\n", "cannot be read: field larger"),
    ],
)
def test_a_damaged_list_is_refused_with_its_line(moved: tuple[Run, Path], text: str, where: str) -> None:
    run, _ = moved
    run.images.write_text(text)
    with pytest.raises(RunError, match=rf"{run.images}.*{where}.*restore the file"):
        load_run_data(run)


def test_columns_of_later_versions_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("name,part,image,target,rating\na.png,val,00,11,5\n")
    assert read_parts(tmp_path / "images.csv") == [KnownImage(part="val", name="a.png", image="00", target="11")]


def made(rows: list[tuple[str, str, int]]) -> DataSplits[ImageSet]:
    """Splits from (part, name, label); the name says the contents."""
    records = [LabelledImage(name=n, source=b"", label=k, part=p, digest=n * 16) for p, n, k in rows]
    parts = [ImageSet(records=[one for one in records if one.part == part]) for part in ("train", "val")]
    return DataSplits(("cat", "dog"), parts[0], parts[1], None, "", (), "photos")


def test_parts_and_labels_that_a_table_changes_later() -> None:
    """The same images in a ``labels.csv`` whose split and labels were edited."""
    known = known_images(made([("train", "a", 0), ("train", "b", 1), ("val", "c", 0), ("val", "d", 1)]))
    now = made([("val", "a", 0), ("train", "b", 0), ("train", "c", 0), ("val", "d", 0)])
    data, changes = parts_as_trained(now, known)
    assert names(data) == (["b", "a"], ["c", "d"])
    assert changes == Changes()
    assert sorted(annotated_otherwise(data, known)) == ["b", "d"]


def test_contents_of_both_parts_are_not_held_out_under_another_name() -> None:
    known = [
        KnownImage(part=part, name=name, image="0" * 16, target="") for part, name in (("val", "x"), ("train", "y"))
    ]
    data, _ = parts_as_trained(made([("train", "0", 0)]), known)
    assert names(data) == (["0"], [])


def test_a_class_without_samples_may_be_unknown_to_the_model() -> None:
    data = made([("train", "a", 1), ("val", "b", 1)])
    assert data.align(["dog"]).val.labels.tolist() == [0]
    with pytest.raises(DataError, match="1 classes that the model does not know"):
        data.align(["cat"])
    assert torch.equal(data.align(["dog", "cat"]).train.labels, torch.tensor([0]))
