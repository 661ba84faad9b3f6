"""Files are decoded once, and again only after they have changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vitrail.data import DataConfig, DataSplits, load_data

WriteImages = Callable[..., Path]


def load(root: Path) -> DataSplits:
    return load_data(DataConfig(path=str(root)))


def test_files_are_decoded_again_only_after_they_changed(
    write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vitrail.data.check.decoding as check

    root = write_images({"cat": 3, "dog": 3})
    first = load(root)
    decoded: list[bytes] = []
    real = check.inspect_image
    monkeypatch.setattr(check, "inspect_image", lambda data, limit: (decoded.append(data), real(data, limit))[1])
    assert load(root).fingerprint == first.fingerprint
    assert decoded == []
    changed = root / "cat" / "001.jpg"
    shutil.copy(root / "cat" / "000.jpg", changed)
    os.utime(changed, ns=(1, 1))
    assert load(root).fingerprint != first.fingerprint
    assert decoded == [changed.read_bytes()]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"cat/000.jpg": 3}', '{"cat/000.jpg": {"size": 1}}'])
def test_a_damaged_cache_is_ignored(text: str, write_images: WriteImages, tmp_path: Path) -> None:
    root = write_images({"cat": 2, "dog": 2})
    first = load(root)
    (cache,) = (tmp_path / "cache" / "vitrail" / "checked").iterdir()
    cache.write_text(text)
    assert load(root).fingerprint == first.fingerprint


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    write_images: WriteImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load(write_images({"cat": 2, "dog": 2})).train) == 2


def test_checks_are_complete_and_in_order_across_chunks(
    write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images({"cat": 4, "dog": 3})
    whole = load(root).fingerprint
    monkeypatch.setattr("vitrail.data.check.decoding.CHUNK", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "another"))
    assert load(root).fingerprint == whole
