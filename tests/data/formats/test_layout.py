from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from vitrail.core.errors import DataError
from vitrail.data import (
    DataConfig,
    load_boxes,
    load_data,
    load_keypoints,
    load_masks,
    load_pictures,
    load_scores,
)
from vitrail.data.formats.layout import data_folder

LOADERS = [
    load_data,
    load_boxes,
    load_keypoints,
    load_masks,
    load_scores,
    partial(load_pictures, labelled=False, crops=True),
]


@pytest.mark.parametrize("name", ["data.yaml", "labels.csv", "instances.json", "obj.data"])
def test_a_file_that_describes_a_folder_leads_to_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=rf"{name} is not a folder; give its folder, {tmp_path}$"):
        data_folder(str(tmp_path / name), "give a folder")


@pytest.mark.parametrize("load", LOADERS)
def test_a_folder_is_wanted(load: Callable[[DataConfig], object], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data folder .*nowhere does not exist; give "):
        load(DataConfig(path=str(tmp_path / "nowhere")))
    (tmp_path / "photos.zip").touch()
    with pytest.raises(DataError, match=r"photos\.zip is not a folder; unpack archives first, then give "):
        load(DataConfig(path=str(tmp_path / "photos.zip")))


def test_a_class_whose_name_no_file_can_hold_is_refused(write_images: Callable[..., Path]) -> None:
    root = write_images({"cat": 2, "dog\udce9": 2})
    with pytest.raises(DataError, match=r"photos has a class 'dog\\udce9', whose name is no UTF-8 text; rename it"):
        load_data(DataConfig(path=str(root)))
    (root / "dog\udce9").rename(root / "dog")
    (root / "dog" / "000.jpg").rename(root / "dog" / "a\udce9.jpg")
    assert len(load_data(DataConfig(path=str(root))).skipped) == 0
