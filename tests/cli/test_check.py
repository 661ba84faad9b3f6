"""``vitrail check``: what it prints, writes and exits with."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from written_data import scene

import vitrail
from vitrail.cli.main import main
from vitrail.core.errors import DataError

Capture = pytest.CaptureFixture[str]

HOSTILE = "<script>alert(1)<"
"""A class, as a folder may be called."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in two parts, and one training image in both parts."""
    for place, folder in enumerate(("train/ä b", f"train/{HOSTILE}", "val/ä b", f"val/{HOSTILE}")):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for index in range(3):
            scene(10 * place + index, side=32).save(tmp_path / "photos" / folder / f"{index}.png")
    shutil.copy(tmp_path / f"photos/train/{HOSTILE}/0.png", tmp_path / f"photos/val/{HOSTILE}/copy & more.png")
    return tmp_path / "photos"


def test_it_prints_the_worst_first_and_writes_everything(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main(["check", str(photos), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert f"{photos}: classification, 13 images (6 train, 7 val), 2 classes" in text
    assert text.index("!! 1 image is in more than one part") < text.index(" - 2 classes have fewer than 10 images")
    assert "copy & more.png = train/" in text
    assert "--weights" in text
    assert sorted(path.name for path in out.iterdir()) == ["check.html", "check.json", "findings.csv"]
    values = json.loads((out / "check.json").read_text())
    assert values["findings"][0]["name"] == "copies-across-parts"
    with (out / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["file"] == f"val/{HOSTILE}/copy & more.png"
    assert rows[0]["serious"] == "yes"


def test_the_page_needs_nothing_and_escapes_everything(photos: Path, tmp_path: Path) -> None:
    assert main(["check", str(photos), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    page = (tmp_path / "out" / "check.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert page.count("data:image/jpeg;base64,") >= 2
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_strict_exits_with_2_after_everything_is_written(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["check", str(photos), "--out", str(tmp_path / "out"), "--strict"]) == 2
    told = capsys.readouterr().err
    assert "is not sound (1 image is in more than one part of the data)" in told
    assert told.count("\n") == 1
    assert (tmp_path / "out" / "check.html").exists()


def test_json_is_one_document(photos: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["check", str(photos), "--out", str(tmp_path / "out"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["serious"] == 1
    assert len(values["files"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none"], "data folder none does not exist; give a folder"),
        (["."], "has no images at any depth; give a folder"),
        (["sample", "--out", "file"], "cannot write to file: file is a file; choose another folder"),
        (["sample", "--task", "detecting"], "unknown task 'detecting'"),
        (["sample", "--batch-size", "0"], "--batch-size 0 is below 1"),
        (["sample", "--mean", "1", "2"], "--mean 1 2"),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert main(["check", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_python_has_it_too(photos: Path, tmp_path: Path) -> None:
    found = vitrail.check_data(photos, out=tmp_path / "out")
    assert [finding.name for finding in found.serious] == ["copies-across-parts"]
    assert (tmp_path / "out" / "check.html").exists()
    with pytest.raises(DataError, match="is not sound"):
        vitrail.check_data(str(photos), strict=True)
