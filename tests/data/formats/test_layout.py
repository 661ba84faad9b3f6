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
