"""Nothing half-written is ever seen under its final name."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from vitrail.core.errors import RunError, VitrailError
from vitrail.core.files import atomic_folder, atomic_path, read_json, write_json, write_text
from vitrail.runs.run import Run


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.onnx"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".onnx"
        assert path.read_text() == "old"
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["model.onnx"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"kept": True})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"kept": True}
    assert os.listdir(tmp_path) == ["a.json"]


def test_several_files_and_folders_take_their_places_together(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "model.mlpackage") as draft:
            draft.mkdir()
            (draft / text).write_text(text)
            draft.with_name("model.json").write_text(text)
            assert (tmp_path / "model.json").exists() is (text == "new")
        assert sorted(os.listdir(tmp_path)) == ["model.json", "model.mlpackage"]
        assert os.listdir(tmp_path / "model.mlpackage") == [text]
        assert (tmp_path / "model.json").read_text() == text
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "model.mlpackage") as draft:
        draft.write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path / "model.mlpackage") == ["new"]
    with pytest.raises(VitrailError, match="cannot write"), atomic_folder(tmp_path / "model.json" / "x"):
        pass


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    message = r"cannot write .*a.txt: No space left on device; free space"
    with pytest.raises(VitrailError, match=message) as error, atomic_path(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VitrailError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "")


def test_files_get_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    write_text(tmp_path / "a", "")
    os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_json_has_no_nan_and_no_infinity(tmp_path: Path) -> None:
    values = {"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": "nan", "d": 2**70}
    write_json(tmp_path / "a.json", values)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert read == {"a": [1.5, None, [None, {"b": None}]], "c": "nan", "d": 2**70}


def test_what_is_not_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(VitrailError, match=r"a.json is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(VitrailError, match=r"cannot read .*b.json"):
        read_json(tmp_path / "b.json")


def test_a_run_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"does not exist; make one with: vitrail train --run"):
        Run.open(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file; give the folder"):
        Run.open(tmp_path / "file")
    run = Run(tmp_path)
    with pytest.raises(RunError, match=r"run.json is missing; make it with: vitrail train --run"):
        Run.open(tmp_path)
    run.update(task="classification", model={"name": "vit_tiny_patch16", "fields": {}}, seed=1)
    run.update(seed=2)
    assert Run.open(tmp_path, needs=("description",)).read().seed == 2
    with pytest.raises(RunError, match=r"model.safetensors is missing; finish it with: .* --resume"):
        Run.open(tmp_path)
    with pytest.raises(RunError, match=r"bench.jsonl is missing; make it with: vitrail bench "):
        Run.open(tmp_path, needs=("bench_rows",))


def test_a_description_of_something_else_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", [1])
    with pytest.raises(RunError, match="does not describe a run"):
        Run(tmp_path).read()
