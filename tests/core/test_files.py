"""Nothing half-written is ever seen under its final name."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vitrail.core.errors import DataError, RunError, VitrailError
from vitrail.core.files import (
    append_lines,
    atomic_folder,
    atomic_path,
    check_regular,
    file_hash,
    open_regular,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
    write_json,
    write_text,
)
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


@pytest.fixture(params=["pipe", "device", "socket", "folder", "link to a pipe", "NUL"])
def irregular(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """What is no regular file, under the name of one; opening it plainly may wait for ever."""
    path = tmp_path / "a.json"
    with socket.socket(socket.AF_UNIX) as server:
        if request.param == "device":
            path = Path("/dev/zero")
        elif request.param == "socket":
            server.bind(os.path.relpath(path))  # absolute ones may be too long for a socket
        elif request.param == "folder":
            path.mkdir()
        elif request.param == "NUL":
            path = tmp_path / "a\0.json"
        else:
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to("pipe")
            path = path if "link" in request.param else tmp_path / "pipe"
        yield path


def test_only_regular_files_are_read(irregular: Path) -> None:
    for read in (check_regular, open_regular, read_bytes, read_text, file_hash):
        with pytest.raises(OSError, match=r"no regular file|Is a directory|null byte"):
            read(irregular)
    for read in (read_json, read_yaml):
        with pytest.raises(DataError, match=r"^cannot read .*(no regular file|Is a directory|null byte)"):
            read(irregular, error=DataError)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfabc\r\n")
    assert read_text(path, 8) == "abc\r\n"
    with pytest.raises(OSError, match="more than 7 bytes, which is the limit"):
        read_text(path, 7)
    os.truncate(path, 2**40)  # a terabyte that takes no room on the disk
    with pytest.raises(VitrailError, match=r"a\.csv: it has more than 4194304 bytes"):
        read_yaml(path)
    with pytest.raises(VitrailError, match=r"a\.csv: it has more than 4294967296 bytes"):
        read_json(path)


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_json, b"[" * 100_000, "a.txt is refused: it is nested more than 50 deep"),
        (read_json, b"\xff", "a.txt is not JSON"),
        (read_json, b"", "a.txt is not JSON"),
        (read_yaml, b"[" * 100_000, "a.txt is refused: line 1: it is nested more than 50 deep"),
        (read_yaml, b"a: [", "a.txt is not YAML"),
        (read_yaml, b"\xff", "a.txt is not YAML"),
        (read_yaml, b"a: 2020-99-99", "a.txt is not YAML"),
    ],
)
def test_contents_beyond_a_limit_are_one_line(
    tmp_path: Path, read: Callable[..., object], content: bytes, message: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path / "a.txt", error=DataError)
    assert "\n" not in str(error.value)


APPEND = """
import sys
from pathlib import Path
from vitrail.core.files import append_lines
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    append_lines(Path(sys.argv[2]), [f"{sys.argv[1]} {number}", "x" * 5000])
"""


def test_lines_of_several_processes_are_all_kept(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    command = [sys.executable, "-c", APPEND]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, name, str(tmp_path / "rows")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
            for name in names
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
    lines = (tmp_path / "rows").read_text().split("\n")
    assert lines.pop() == ""
    assert set(lines[1::2]) == {"x" * 5000}  # pairs stay together
    assert sorted(lines[::2]) == sorted(f"{name} {number}" for name in names for number in range(100))


def test_a_line_that_was_cut_short_is_ended_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"whole\nha\xff")
    append_lines(path, ["new\u2028line"])
    append_lines(path, [])
    assert path.read_bytes() == b"whole\nha\xff\n" + "new\u2028line\n".encode()


def test_lines_that_find_no_room_leave_the_file_as_it_was(tmp_path: Path, small_files: None) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"whole\nhalf")
    with pytest.raises(VitrailError, match=r"cannot write .*rows: File too large; free space"):
        append_lines(path, ["x" * 6000])
    assert path.read_bytes() == b"whole\nhalf"


@pytest.fixture
def small_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_lock_that_does_not_end_is_not_waited_for_without_end(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(VitrailError, match=r"cannot write .*rows: another process has locked it for 0 s"):
            append_lines(path, ["x"], wait=0)
    append_lines(path, ["x"], wait=0)
    assert path.read_text() == "x\n"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_takes_lines_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    append_lines(tmp_path / "rows", ["x"])
    assert (tmp_path / "rows").read_text() == "x\n"
