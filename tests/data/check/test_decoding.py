"""Files are decoded once, and again only after they have changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitrail.core.errors import DataError
from vitrail.data import DataConfig, DataSplits, load_data
from vitrail.data.check.decoding import FileCheck, check_files

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


def test_a_file_that_did_not_fit_into_memory_is_decoded_again(
    write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vitrail.data.check.decoding as check

    root = write_images({"cat": 2})
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))

    def full(*_: object) -> None:
        raise DataError("image does not fit into memory") from MemoryError()

    with monkeypatch.context() as patch:
        patch.setattr(check, "inspect_image", full)
        assert all(one.problem for one in check_files(root, names, max_pixels=10**6))
    assert [one.problem for one in check_files(root, names, max_pixels=10**6)] == [None, None]


def test_processes_that_check_other_files_keep_what_each_other_found(
    write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vitrail.data.check.decoding as check

    root = write_images({"cat": 2})
    first, second = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    decode = check._check

    def meanwhile(*words: Any) -> FileCheck:
        monkeypatch.setattr(check, "_check", decode)
        check_files(root, [second], max_pixels=10**6)
        return decode(*words)

    monkeypatch.setattr(check, "_check", meanwhile)
    check_files(root, [first], max_pixels=10**6)
    monkeypatch.setattr(check, "inspect_image", lambda *_: pytest.fail("it was decoded again"))
    assert len(check_files(root, [first, second], max_pixels=10**6)) == 2


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "[]", "null", '{"cat/000.jpg": 3}', '{"cat/000.jpg": {"size": 1}}']
)
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
