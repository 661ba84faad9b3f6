"""Paths as users give them: the home folder, and names that are no UTF-8."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vitrail
from vitrail.core.errors import CheckpointError, DataError, RunError
from vitrail.core.files import read_json, write_json, write_text
from vitrail.core.paths import user_path
from vitrail.data import DataConfig
from vitrail.runs.run import Run

STRANGE = ["gar\udce7on", "\udcff", "\ud800"]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_home_folder_is_one_and_the_same_everywhere(tmp_path: Path) -> None:
    assert user_path("~/x") == Run(Path("~/x")).folder == tmp_path / "x"
    with pytest.raises(RunError, match=f"run folder {tmp_path}/x does not exist"):
        vitrail.open_run("~/x")
    with pytest.raises(DataError, match="data folder ~/x does not exist"):
        vitrail.load_data(DataConfig(path="~/x"))
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="damaged"):
        vitrail.create_model("edgevit_nano_stride2", weights="~/weights.pth")


@pytest.mark.parametrize("path", ["~nobody_of_that_name/x", "a/~", "x~"])
def test_what_names_no_home_folder_stays(path: str) -> None:
    assert user_path(path) == Path(path)


@pytest.mark.parametrize("name", STRANGE)
def test_files_of_text_hold_every_name(name: str, tmp_path: Path) -> None:
    path, value = tmp_path / "a.json", {"name": f"{name} ü 猫", "\udcff": 1}
    write_json(path, value)
    assert json.loads(path.read_bytes().decode("utf-8")) == read_json(path) == value
    write_text(path, name)
    assert path.read_bytes().decode("utf-8") == name.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("name", [*STRANGE, "a\0b"])
def test_a_run_whose_name_no_file_can_hold_is_refused_before_anything_is_made(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no UTF-8 text; choose another name"):
        vitrail.train("sample", run=tmp_path / name)
    assert list(tmp_path.iterdir()) == []
