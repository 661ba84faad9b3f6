"""A folder with broken files is explained from the others, which are listed as ``predict`` lists them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitrail.cli.main import main
from vitrail.core.errors import DataError
from vitrail.runs import explain as room
from vitrail.runs.explain import explain_run
from vitrail.runs.run import Run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The images that reach the explanation, which is left out."""
    images: list[Any] = []

    def explain_images(_: Any, batch: Any, *__: Any, **___: Any) -> SimpleNamespace:
        images.append(batch)
        return SimpleNamespace(skipped={})

    monkeypatch.setattr(room, "explain_images", explain_images)
    monkeypatch.setattr(room, "write_explanation", lambda *_: [])
    return images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (folder := tmp_path / "holidays").mkdir()
    for name in ("a.png", "z.jpg"):
        Image.fromarray(np.full((40, 60, 3), 100, np.uint8)).save(folder / name)
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:60])
    return folder


def test_broken_files_are_skipped_and_listed(
    old_run: Run, folder: Path, seen: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(old_run.folder), str(folder), "--json"]) == 0
    told = capsys.readouterr()
    assert seen[0].shape == (2, 3, 48, 48)
    broken = [str(folder / name) for name in ("cut.png", "empty.png", "text.jpg")]
    assert [row["image"] for row in json.loads(told.out)["skipped_images"]] == broken
    assert [line.startswith("vitrail: skipped: ") for line in told.err.splitlines()] == [True] * 3


def test_nothing_but_broken_files_is_an_error(old_run: Run, folder: Path, seen: list[Any]) -> None:
    with pytest.raises(DataError, match="0 bytes"):
        explain_run(old_run, [folder / "empty.png"])
    with pytest.raises(DataError, match="none of the 2 images could be decoded; the first: "):
        explain_run(old_run, [folder / "empty.png", folder / "text.jpg"])
    assert seen == []
