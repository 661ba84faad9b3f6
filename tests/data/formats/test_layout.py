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

LOADERS = [
    load_data,
    load_boxes,
    load_keypoints,
    load_masks,
    load_scores,
    partial(load_pictures, labelled=False, crops=True),
]


@pytest.mark.parametrize("load", LOADERS)
def test_a_folder_is_wanted(load: Callable[[DataConfig], object], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data folder .*nowhere does not exist; give "):
        load(DataConfig(path=str(tmp_path / "nowhere")))
    (tmp_path / "photos.zip").touch()
    with pytest.raises(DataError, match=r"photos\.zip is not a folder; unpack archives first, then give "):
        load(DataConfig(path=str(tmp_path / "photos.zip")))
